"""Puts guesses into the rows that a step has left.

Owns who gets how many. Rows that decode, prompts and newcomers come first. Where more than half of
the rows are taken steps are full enough, and go on as without: behind one with drafts nothing can
be started before it is read, and all that run would wait.
"""

from collections.abc import Callable, Sequence

from engine.request import Request
from engine.scheduling.step_budget import StepBudget

Drafts = dict[int, list[int]]  # by request id


def propose(running: Sequence[Request], num_left: int) -> Drafts:
    """What may follow those that decode next; `num_left` rows are free if nobody else comes."""
    found: Drafts = {}
    if num_left < len(running):
        return found
    for request in running:
        drafter = request.drafter
        if drafter is None or request.num_tokens - request.num_computed != 1:
            continue
        # the last token that a request may have is not computed
        most = min(drafter.most, num_left, request.max_tokens - request.num_tokens - 1)
        if most < 1:
            continue
        if ids := drafter.propose(request.token_ids, request.num_in_flight, most):
            found[request.request_id] = ids
    return found


def add_drafts(drafts: Drafts, step: StepBudget, make_room: Callable[[Request, int], int]) -> None:
    """Plan what there is room for, as much for each as for the others.

    `make_room(request, num_tokens)` says for how many of so many tokens there are pages.
    """
    rows = [(row, r) for row, r in enumerate(step.plan.decoding) if r.request_id in drafts]
    for place, (row, request) in enumerate(rows):
        share = -(-step.room // (len(rows) - place))
        end = request.num_computed  # the newest token's place, and one, now that it is planned
        ids = drafts[request.request_id][:share]
        ids = ids[: make_room(request, end + len(ids)) - end]
        if ids:
            step.add_draft(request, row, ids)
