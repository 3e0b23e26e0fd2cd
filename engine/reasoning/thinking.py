"""A reasoning budget: where a request stands, and which token it has to sample next, if one.

    ... thinks, `max_tokens` tokens long ─▶ end_token_ids, one by one, forced ─▶ answers

Before its budget could be passed by tokens that are on their way, a request waits for them, so
the end comes exactly where it is due though steps are launched ahead. A forced token is the only
one of a mask, so that log-probabilities, grammars and streams see it as any other.
"""

from collections.abc import Sequence

import msgspec

from engine.reasoning.thoughts import ThoughtMarks, Thoughts, TokenBytes

_NO_LIMIT = 1 << 30


class ThinkingBudget(msgspec.Struct, frozen=True, kw_only=True):
    """At most `max_tokens` tokens of reasoning, in [0, inf), then `end_token_ids`."""

    max_tokens: int
    end_token_ids: list[int]
    marks: ThoughtMarks


class Thinking:
    """One request's budget; its tokens are read from the list that the request keeps."""

    def __init__(self, budget: ThinkingBudget, token_bytes: TokenBytes, prompt_len: int) -> None:
        self.was_forced = False  # since its row was told again what else is allowed
        self._budget = budget
        self._thoughts = Thoughts(budget.marks, token_bytes)
        self._next = prompt_len  # index of the first token that was not looked at
        self._due: list[int] = []  # to be forced from index `_first_due` on
        self._first_due = 0

    def most_ahead(self, token_ids: Sequence[int], in_flight: int) -> int:
        """How many tokens may be sampled before the host must have read those `in_flight`."""
        self._read(token_ids, in_flight)
        if self._due:
            return 1 if self._index(token_ids, in_flight) < len(self._due) else _NO_LIMIT
        if self._thoughts.ended:
            return _NO_LIMIT
        left = max(0, self._budget.max_tokens - self._thoughts.num_tokens)
        to_begin = 0 if self._thoughts.is_open else 1  # the mark that would begin it
        return max(0, left + to_begin - in_flight)

    def forced(self, token_ids: Sequence[int], in_flight: int) -> int | None:
        """The token to sample after those known and those `in_flight`; None: whichever."""
        index = self._index(token_ids, in_flight)
        if index >= len(self._due):
            return None
        self.was_forced = True
        return self._due[index]

    @property
    def _is_up(self) -> bool:
        thoughts = self._thoughts
        return thoughts.is_open and thoughts.num_tokens >= self._budget.max_tokens

    def _index(self, token_ids: Sequence[int], in_flight: int) -> int:
        return len(token_ids) + in_flight - self._first_due

    def _read(self, token_ids: Sequence[int], in_flight: int) -> None:
        if self._next < len(token_ids) and not self._thoughts.ended:
            self._thoughts.extend(token_ids[self._next :])
        self._next = len(token_ids)
        if not self._due and not in_flight and self._is_up:
            self._due = self._rest_of_the_end(token_ids)
            self._first_due = len(token_ids)

    def _rest_of_the_end(self, token_ids: Sequence[int]) -> list[int]:
        """The end without what of it the reply has already: `</` of `</ think >`."""
        end = self._budget.end_token_ids
        for size in range(min(len(end) - 1, self._thoughts.num_tokens), 0, -1):
            if list(token_ids[-size:]) == end[:size]:
                return end[size:]
        return end
