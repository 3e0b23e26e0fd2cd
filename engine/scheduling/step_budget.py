"""What is left of the step being planned: tokens, rows of logits, rows.

Owns how much of a prompt a step takes. Knows no pages and no slots.
"""

from engine.request import Request
from engine.scheduling.plan import Chunk, Draft, Plan

_LONGEST_RIDE = 8  # forced tokens; more are computed as one chunk


class StepBudget:
    """What rows that decode, and run ahead, leave of a step of so many tokens and rows."""

    def __init__(self, plan: Plan, max_tokens: int, max_rows: int) -> None:
        self.plan = plan
        self._tokens = max_tokens - plan.num_tokens
        self._logit_rows = self._rows = max_rows - plan.num_tokens

    @property
    def room(self) -> int:
        """Rows of one token that the step has left."""
        return min(self._tokens, self._logit_rows, self._rows)

    @property
    def open(self) -> bool:
        return self.room > 0

    def most_tokens(self, request: Request) -> int:
        """Tokens that the step has left for a request; one whose prompt is scored takes a row of
        logits for each of them that is."""
        count = min(request.num_tokens - request.num_computed, self._tokens)
        if _unscored(request):
            unasked = max(0, request.num_prompt_logprobs - request.num_computed)
            count = min(count, unasked + self._logit_rows)
        return 1 if count <= _LONGEST_RIDE and self._rides(request) else count

    def _rides(self, request: Request) -> bool:
        """Whether these are tokens that a grammar forced, and other rows decode in this step: a
        token a step then rides along with them, since a chunk would make the step slower."""
        forced = (
            request.constraint is not None and request.num_computed >= request.num_prompt_tokens
        )
        return forced and self.plan.decode and any(r.constraint is None for r in self.plan.decoding)

    def add(self, request: Request, end: int, admitted: bool = False) -> Chunk:
        """Plan the request's tokens up to `end`."""
        start = request.num_computed
        samples = end == request.num_tokens
        scored = range(0)
        if _unscored(request):
            first = max(start, request.num_prompt_logprobs)
            scored = range(first, max(first, min(end, request.num_prompt_tokens - 1)))
            request.num_prompt_logprobs += len(scored)
        if request.slot is None:
            raise RuntimeError("a request without a slot was planned")
        chunk = Chunk(request, start, end - start, samples, scored, request.slot, admitted)
        self._tokens -= chunk.count
        self._logit_rows -= chunk.num_logit_rows
        self._rows -= 1
        self.plan.chunks.append(chunk)
        self.plan.num_tokens += chunk.count
        self.plan.decode &= chunk.count == 1
        return chunk

    def add_draft(self, request: Request, row: int, token_ids: list[int]) -> None:
        """Plan a row for each of these tokens, behind the row of the request that decodes."""
        if request.slot is None:
            raise RuntimeError("a request without a slot was planned")
        count = len(token_ids)
        self._tokens -= count
        self._logit_rows -= count
        self._rows -= count
        self.plan.drafts.append(Draft(request, row, request.slot, token_ids))
        self.plan.num_tokens += count


def _unscored(request: Request) -> bool:
    """Whether prompt tokens are still to be scored; the last one has nothing after it."""
    wanted = request.params.prompt_logprobs is not None
    return wanted and request.num_prompt_logprobs < request.num_prompt_tokens - 1
