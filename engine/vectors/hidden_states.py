"""The last layer's states on their way to whoever asked (`--enable-return-hidden-states`).

    step's states [W, T, D] ─ rows of one request, each token's once ─> bytes of its delta

A request says from which token on it wants them; what it computes again after a preemption is not
told again. Every token has one but the last, which never entered the model. Knows no text.
"""

from typing import Any

from numpy.typing import NDArray

from engine.errors import RequestError
from engine.messages import AddRequest, ModelInfo
from engine.request import Request
from engine.scheduling.plan import Chunk

FIELD = "return_hidden_states"
States = NDArray[Any]  # in the model's dtype


def check_hidden(message: AddRequest, info: ModelInfo) -> None:
    """Raise RequestError where nobody is told."""
    if message.hidden_from is not None and not info.hidden_size:
        raise RequestError(f"{FIELD} needs the setting --enable-return-hidden-states.", FIELD)


def states_of_row(request: Request, states: States, first: int, count: int) -> list[bytes]:
    """Of a decoding row's `count` tokens from `first` on, whose `states` are [W, D]."""
    end = min(first + count, len(request.token_ids) - 1)  # behind its end it was computed in vain
    return _told(request, first, end, states)


def states_of_chunk(chunk: Chunk, states: States) -> list[bytes]:
    """Of a chunk's tokens, with which `states` [T, D] begin."""
    return _told(chunk.request, chunk.start, chunk.start + chunk.count, states)


def _told(request: Request, first: int, end: int, states: States) -> list[bytes]:
    """`states` are of tokens from `first` on; those up to `end` that were not told of yet."""
    if request.num_states is None or request.num_states >= end:
        return []
    begin = max(first, request.num_states)
    request.num_states = end
    return [row.tobytes() for row in states[begin - first : end - first].astype("<f4")]
