"""Showing hidden states as SGLang does: the state from which an answer's last token was chosen, or
those of all tokens.

    /v1/...      [D]                                       of each choice
    /generate    [[n, D] of the prompt, [D], [D], ..]      of all tokens but the last

Those of tokens behind a stop string, which the answer does not have, are left out.
"""

from collections.abc import Sequence

import msgspec
import numpy as np
from msgspec import Raw

from engine.errors import RequestError
from engine.messages import ModelInfo
from engine.outputs import OutputDelta
from serve.engine_client import Prompt

MAX_NUMBERS = 1 << 24  # of one answer, which take some 300 MB as JSON


def check_size(prompts: Sequence[Prompt], info: ModelInfo) -> None:
    """Raise RequestError for more states than anybody could read."""
    wanted = [
        (len(each.token_ids) + (each.params.max_tokens or 0)) * each.params.n for each in prompts
    ]
    count = sum(wanted) * info.hidden_size
    if count > MAX_NUMBERS:
        raise RequestError(
            f"return_hidden_states would give up to {count} numbers, and at most {MAX_NUMBERS} can "
            "be; ask for fewer tokens.",
            "return_hidden_states",
        )


def last_state(delta: OutputDelta) -> list[float]:
    """Of a choice that was asked for it; nothing where it has no token."""
    return _numbers(delta.hidden_states[-1]) if delta.hidden_states else []


def all_states(delta: OutputDelta, prompt_tokens: int) -> list[Raw]:
    """Of a choice that was asked for all states, each written as JSON."""
    states = (delta.hidden_states or [])[: prompt_tokens + max(0, len(delta.token_ids) - 1)]
    written = [msgspec.json.encode(_numbers(state)) for state in states]
    prompt = b"[" + b",".join(written[:prompt_tokens]) + b"]"
    return [Raw(each) for each in (prompt, *written[prompt_tokens:])]


def _numbers(state: bytes) -> list[float]:
    numbers: list[float] = np.frombuffer(state, "<f4").tolist()
    return numbers
