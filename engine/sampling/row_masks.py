"""Which rows of a step may sample some tokens only: as their grammar says, or forced to one.

The words that say so lie on the device by slot (`engine.grammar.masks` sends them); a row's flag
says whether they are read, so that a row that is free again costs nothing. Rows that are sampled
after their step bring their words with them (`engine.sampling.late_sampling`).
"""

import numpy as np
from numpy.typing import NDArray

from engine.packing import SlotColumns
from engine.request import Request
from engine.sampling.options import Flag
from engine.sampling.state import pack_bits
from engine.scheduling.plan import Plan

Words = NDArray[np.int32]


def row_masks(plan: Plan, columns: SlotColumns, vocab_size: int) -> list[tuple[int, Words]]:
    """Slots and words of the rows whose words change with this step; flags go to `columns`."""
    found = []
    for request in _watched(plan):
        if request.slot is None:
            raise RuntimeError("a request without a slot was planned")
        words = _words(request, vocab_size)
        if words is not None:
            found.append((request.slot, words))
        limited = request.params.allowed_token_ids is not None
        columns.set_flag(request.slot, Flag.ALLOWED, words is not None or limited)
    return found


def _watched(plan: Plan) -> list[Request]:
    return [r for r in plan.sampling if r.constraint is not None or r.thinking is not None]


def _words(request: Request, vocab_size: int) -> Words | None:
    """What the row may sample, if that is not what its slot says already."""
    forced = request.forced_token_id
    if forced is not None:
        return pack_bits([forced], vocab_size)
    if request.constraint is not None:
        return request.constraint.mask
    thinking, allowed = request.thinking, request.params.allowed_token_ids
    if thinking is None or not thinking.was_forced or allowed is None:
        return None
    thinking.was_forced = False
    return pack_bits(allowed, vocab_size)
