"""Which guesses were right: those that are what the row before them gave."""

from collections.abc import Sequence

from engine.messages import EngineStats
from engine.scheduling.plan import Draft, Plan


def accept(plan: Plan, token_ids: Sequence[Sequence[int]]) -> dict[int, Draft]:
    """Find how far a step's drafts were right, and count what they have computed; returns them by
    the row that decodes before them.

    `token_ids` are the tokens of all rows of logits. What guesses that were right have left in the
    pages is the request's; what the others have left is written over. Who guessed is told.
    """
    first = plan.first_draft_row
    for draft in plan.drafts:
        token, row = token_ids[draft.row][0], first
        for guessed in draft.token_ids:
            if guessed != token:
                break
            token = token_ids[row][0]
            row += 1
        draft.accepted = range(first, row)
        first += len(draft.token_ids)
        request, held = draft.request, len(draft.accepted)
        request.num_computed += held  # counted anew of one that waits again
        if request.drafter is not None:
            request.drafter.judge(held)
    return {draft.row: draft for draft in plan.drafts}


def count_drafts(stats: EngineStats, drafts: Sequence[Draft]) -> None:
    """Add drafts of a step that was read."""
    for draft in drafts:
        stats.num_drafts += 1
        stats.num_draft_tokens += len(draft.token_ids)
        counts, held = stats.accepted_per_place, len(draft.accepted)
        counts += [0] * (held - len(counts))
        for place in range(held):
            counts[place] += 1
