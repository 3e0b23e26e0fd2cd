"""The experts that tokens took on their way to whoever asked: `routed_rows` says what they are.

    step's experts [W, T, L, k] ─ rows of one request, each token's once ─> bytes of its delta

As of hidden states, which go the same way: what is computed again after a preemption is not told
again, and the last token, which never entered the model, has none. Knows no text.
"""

from engine.request import Request
from engine.scheduling.plan import Chunk
from engine.vectors.routed_rows import Experts


def experts_of_row(request: Request, experts: Experts, first: int, count: int) -> bytes:
    """Of a decoding row's `count` tokens from `first` on, whose `experts` are [W, L, k]."""
    end = min(first + count, len(request.token_ids) - 1)  # behind its end it was computed in vain
    return _told(request, first, end, experts)


def experts_of_chunk(chunk: Chunk, experts: Experts) -> bytes:
    """Of a chunk's tokens, with which `experts` [T, L, k] begin."""
    return _told(chunk.request, chunk.start, chunk.start + chunk.count, experts)


def _told(request: Request, first: int, end: int, experts: Experts) -> bytes:
    """`experts` are of tokens from `first` on; those up to `end` that were not told of yet."""
    if request.num_routed is None or request.num_routed >= end:
        return b""
    begin = max(first, request.num_routed)
    request.num_routed = end
    return experts[begin - first : end - first].tobytes()
