"""Counting the tokens of a response while it is made."""

from collections.abc import Callable, Collection, Iterable, Sequence

from engine.outputs import OutputDelta
from engine.reasoning.thoughts import Thoughts
from serve.generation.drafts import SpecTokensDetails, drafts_told
from serve.generation.provenance import CachedTokensDetails
from serve.protocol.decoding import CompletionTokensDetails, Usage, summed, usage_of


class TokenCounter:
    """Prompt tokens are known at the start; generated and cached ones come with the deltas."""

    def __init__(
        self,
        prompt_tokens: Sequence[int],
        samples: int,
        thoughts: Callable[[], Thoughts | None] = lambda: None,
        *,
        predicted: bool = False,
    ) -> None:
        """`thoughts` makes what finds the reasoning of a choice; `predicted`: the request says what
        its answer may be, and is told how far that was right."""
        self._make_thoughts = thoughts
        self._thoughts: dict[int, Thoughts | None] = {}
        self._prompts = prompt_tokens
        self._samples = samples
        self._generated: dict[int, int] = {}
        self._cached: dict[int, tuple[int, int]] = {}  # of each prompt: all, those of the host
        self._drafted: dict[int, tuple[int, list[int]]] = {}  # of each choice: all, the right ones
        self._predicted = predicted

    def add(self, choice: int, delta: OutputDelta) -> None:
        """Count what one delta brought to one choice."""
        self._generated[choice] = self._generated.get(choice, 0) + len(delta.token_ids)
        if choice not in self._thoughts:
            self._thoughts[choice] = self._make_thoughts()
        if thoughts := self._thoughts[choice]:
            thoughts.extend(delta.token_ids)
        if delta.num_drafted:
            all_of, right = self._drafted.get(choice, (0, []))
            right += delta.accepted or ()  # in place, for there may be many
            self._drafted[choice] = all_of + delta.num_drafted, right
        if delta.num_cached_tokens:  # the first delta says it
            prompt = choice // self._samples
            new = delta.num_cached_tokens, delta.num_external_tokens
            self._cached[prompt] = max(self._cached.get(prompt, (0, 0)), new)

    def of_choice(self, choice: int) -> Usage:
        """So far, for one choice and its prompt."""
        prompt = choice // self._samples
        return usage_of(
            self._prompts[prompt],
            self._generated.get(choice, 0),
            self._cached.get(prompt, (0, 0))[0],
            self._written([choice]),
        )

    @property
    def generated_tokens(self) -> int:
        """Of all choices."""
        return sum(self._generated.values())

    @property
    def cached_tokens(self) -> int:
        """Of all prompts, each counted once."""
        return sum(cached for cached, _ in self._cached.values())

    @property
    def reasoning_tokens(self) -> int | None:
        """Of all choices; None where nobody knows how the model writes it."""
        return self._reasoning(self._thoughts)

    def total(self) -> Usage:
        """Of the whole response; each prompt counts once."""
        return usage_of(
            sum(self._prompts),
            self.generated_tokens,
            self.cached_tokens,
            self._written(self._generated),
        )

    def cached(self) -> CachedTokensDetails:
        """Where the cached tokens of all prompts were."""
        host = sum(external for _, external in self._cached.values())
        return CachedTokensDetails(self.cached_tokens - host, host)

    def drafts(self) -> list[SpecTokensDetails]:
        """How right they were, of each choice that had some."""
        found = (drafts_told(*self._drafted[choice]) for choice in sorted(self._drafted))
        return [each for each in found if each is not None]

    def _reasoning(self, choices: Iterable[int]) -> int | None:
        thoughts = [self._thoughts.get(choice) for choice in choices]
        counts = [each.num_tokens for each in thoughts if each is not None]
        return sum(counts) if counts else None

    def _written(self, choices: Collection[int]) -> CompletionTokensDetails | None:
        """What is known of the tokens of choices."""
        parts = []
        if (reasoning := self._reasoning(choices)) is not None:
            parts.append(CompletionTokensDetails(reasoning))
        for choice in choices if self._predicted else ():
            drafted, accepted = self._drafted.get(choice, (0, []))
            right = sum(accepted)
            parts.append(
                CompletionTokensDetails(
                    accepted_prediction_tokens=right, rejected_prediction_tokens=drafted - right
                )
            )
        return summed(parts)
