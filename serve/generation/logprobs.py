"""Log-probabilities in the shapes of the two APIs, and of vLLM's `prompt_logprobs`.

engine        {token id: Logprob}, the chosen token first, then the likeliest in order
chat          {token, logprob, bytes, top_logprobs: [...]}
completions   four parallel lists: tokens, token_logprobs, top_logprobs, text_offset
"""

import asyncio
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, TypeVar

from engine.outputs import Logprob, OutputDelta, PositionLogprobs
from serve.protocol.chat import ChatLogprobs, TokenLogprob, TopLogprob
from serve.protocol.completions import CompletionLogprobs

LOWEST = -9999.0  # JSON has no -inf
MANY_POSITIONS = 2000  # whose scores take some 20 ms to write
T = TypeVar("T")


async def aside(write: Callable[[], T], deltas: Mapping[int, OutputDelta]) -> T:
    """What `write` makes of `deltas`. Where each token of a long prompt is scored, that takes a
    second, for which the event loop does not wait."""
    scored = sum(len(d.logprobs or ()) + len(d.prompt_logprobs or ()) for d in deltas.values())
    return await asyncio.to_thread(write) if scored > MANY_POSITIONS else write()


def chat_logprobs(
    positions: Iterable[PositionLogprobs],
    top: int,
    *,
    as_ids: bool,
    named: Sequence[int] | None = None,
) -> ChatLogprobs:
    """The `logprobs` of a chat choice, with the `top` likeliest at each position, or those that
    the request `named`."""
    return ChatLogprobs([_chat_token(position, top, as_ids, named) for position in positions])


def completion_logprobs(
    positions: Sequence[PositionLogprobs | None],
    top: int,
    *,
    offset: int,
    as_ids: bool,
    first: tuple[int, str] | None = None,
    named: Sequence[int] | None = None,
    num_echoed: int = 0,
) -> tuple[CompletionLogprobs, int]:
    """The `logprobs` of a completion choice, and the offset that comes after them.

    `offset`: characters of the text so far. `first`: id and text of the prompt's first token,
    whose position has no log-probability. `num_echoed`: positions of the prompt, of which the
    likeliest are shown even where the request `named` others.
    """
    result = CompletionLogprobs([], [], [], [])
    for place, position in enumerate(positions):
        if position is None:
            if first is not None:
                token_id, text = first
                _append(result, f"token_id:{token_id}" if as_ids else text, None, offset, None)
                offset += len(text)
            continue
        token_id, chosen = next(iter(position.items()))
        others = _listed(position, top, named if place >= num_echoed else None)
        listed = {token_id: chosen, **dict(others)}  # the chosen one, always
        likeliest = {_name(i, entry, as_ids): _value(entry) for i, entry in listed.items()}
        _append(result, _name(token_id, chosen, as_ids), _value(chosen), offset, likeliest)
        offset += len(chosen.decoded_token or "")
    return result, offset


def prompt_logprobs(
    positions: Sequence[PositionLogprobs | None],
) -> list[dict[str, dict[str, Any]] | None]:
    """The `prompt_logprobs` of a response; the first token of a prompt has none."""
    return [None if position is None else _prompt_position(position) for position in positions]


def _prompt_position(position: PositionLogprobs) -> dict[str, dict[str, Any]]:
    return {
        str(token_id): {
            "logprob": _value(entry),
            "rank": entry.rank,
            "decoded_token": entry.decoded_token,
        }
        for token_id, entry in position.items()
    }


def _append(
    to: CompletionLogprobs,
    token: str,
    value: float | None,
    offset: int,
    likeliest: dict[str, float] | None,
) -> None:
    to.tokens.append(token)
    to.token_logprobs.append(value)
    to.text_offset.append(offset)
    to.top_logprobs.append(likeliest)


def _chat_token(
    position: PositionLogprobs, top: int, as_ids: bool, named: Sequence[int] | None
) -> TokenLogprob:
    token_id, chosen = next(iter(position.items()))
    likeliest = [
        TopLogprob(_name(other, entry, as_ids), _value(entry), list(entry.token_bytes or b""))
        for other, entry in _listed(position, top, named)
    ]
    return TokenLogprob(
        _name(token_id, chosen, as_ids), _value(chosen), list(chosen.token_bytes or b""), likeliest
    )


def _listed(
    position: PositionLogprobs, top: int, named: Sequence[int] | None
) -> list[tuple[int, Logprob]]:
    """Those that were asked for; of the likeliest, the chosen token only if it is that likely."""
    if named is not None:
        return [(token_id, position[token_id]) for token_id in named if token_id in position]
    return sorted(position.items(), key=lambda item: -item[1].logprob)[:top]


def _name(token_id: int, entry: Logprob, as_ids: bool) -> str:
    """The token's text; its id where that is asked for, or where there is no tokenizer."""
    if as_ids or entry.decoded_token is None:
        return f"token_id:{token_id}"
    return entry.decoded_token


def _value(entry: Logprob) -> float:
    return max(entry.logprob, LOWEST)
