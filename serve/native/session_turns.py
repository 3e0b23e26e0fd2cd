"""One turn of a session: its prompt from what was before, and what the engine says heard twice."""

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager
from typing import Any

import msgspec
from starlette.types import Scope

from engine.outputs import OutputDelta
from serve.generation.prompts import check_ids, encode, longest_prompt
from serve.http.owner import owner_of
from serve.native.sessions import SessionParams, Turn
from serve.service import Service


def own_turn(
    service: Service, scope: Scope, params: SessionParams, name: str, ids: Sequence[int]
) -> AbstractContextManager[Turn]:
    """A turn of a session of the request's owner; raises as `Sessions.turn`."""
    bos = None
    if tokenizer := service.model.tokenizer:
        bos = tokenizer.special_token_ids.get(tokenizer.special_tokens.get("bos_token", ""))
    return service.sessions.turn(owner_of(scope), params, name, ids, bos)


async def ids_of(
    service: Service, prompt: str | list[int], *, add_special: bool = True
) -> list[int]:
    """What a turn adds that comes as a text, or as its ids; raises RequestError of `prompt`."""
    info = service.client.info
    if not isinstance(prompt, str):
        check_ids(prompt, info.vocab_size, "prompt")
        return prompt
    [ids] = await encode(
        service.model.tokenizer, [prompt], add_special=add_special,
        max_tokens=longest_prompt(info), param="prompt",
    )  # fmt: skip
    return ids


class HeardView:
    """Shows what another view shows, and tells a turn."""

    def __init__(self, view: Any, turn: Turn) -> None:
        self._view = view
        self._turn = turn

    def of(self, deltas: dict[int, OutputDelta]) -> Iterator[msgspec.Struct]:
        """Its chunks."""
        self._turn.hear(deltas[0])
        yield from self._view.of(deltas)

    def last(self) -> Iterator[msgspec.Struct]:
        """And those behind them."""
        yield from self._view.last()

    def whole(self, deltas: dict[int, OutputDelta]) -> Any:
        """The response that is not streamed."""
        self._turn.hear(deltas[0])
        return self._view.whole(deltas)
