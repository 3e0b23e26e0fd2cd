"""How right the drafts of an answer were, as SGLang tells it."""

from collections import Counter
from collections.abc import Sequence

from msgspec import Struct


class SpecTokensDetails(Struct):
    """Of an answer whose tokens were guessed: how many, and how many of the guesses were right."""

    spec_accept_rate: float  # of the guessed tokens those that were right
    spec_accept_length: float  # tokens that a judged draft brought, with the one behind it
    spec_num_correct_drafts: int
    spec_num_proposed_drafts: int
    spec_verify_ct: int  # steps that judged a draft
    spec_correct_drafts_histogram: list[int]  # entry k: steps in which k tokens were right


def drafts_told(num_drafted: int, accepted: Sequence[int]) -> SpecTokensDetails | None:
    """Of so many guessed tokens those that each step found right; None where none were guessed."""
    if not num_drafted or not accepted:
        return None
    right, steps = sum(accepted), Counter(accepted)
    return SpecTokensDetails(
        spec_accept_rate=right / num_drafted,
        spec_accept_length=1 + right / len(accepted),
        spec_num_correct_drafts=right,
        spec_num_proposed_drafts=num_drafted,
        spec_verify_ct=len(accepted),
        spec_correct_drafts_histogram=[steps[k] for k in range(max(steps) + 1)],
    )
