"""Counting the tokens of a response while it is made."""

from collections.abc import Callable, Sequence

from engine.outputs import OutputDelta
from engine.reasoning.thoughts import Thoughts
from serve.generation.provenance import CachedTokensDetails, SglExt
from serve.protocol.decoding import Usage, usage_of


class TokenCounter:
    """Prompt tokens are known at the start; generated and cached ones come with the deltas."""

    def __init__(
        self,
        prompt_tokens: Sequence[int],
        samples: int,
        thoughts: Callable[[], Thoughts | None] = lambda: None,
    ) -> None:
        """`thoughts` makes what finds the reasoning of a choice."""
        self._make_thoughts = thoughts
        self._thoughts: dict[int, Thoughts | None] = {}
        self._prompts = prompt_tokens
        self._samples = samples
        self._generated: dict[int, int] = {}
        self._cached: dict[int, tuple[int, int]] = {}  # of each prompt: all, those of the host

    def add(self, choice: int, delta: OutputDelta) -> None:
        """Count what one delta brought to one choice."""
        self._generated[choice] = self._generated.get(choice, 0) + len(delta.token_ids)
        if choice not in self._thoughts:
            self._thoughts[choice] = self._make_thoughts()
        if thoughts := self._thoughts[choice]:
            thoughts.extend(delta.token_ids)
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
            self._reasoning(self._thoughts.get(choice)),
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
        return self._reasoning(*self._thoughts.values())

    def total(self) -> Usage:
        """Of the whole response; each prompt counts once."""
        return usage_of(
            sum(self._prompts), self.generated_tokens, self.cached_tokens, self.reasoning_tokens
        )

    def cached(self) -> SglExt:
        """Where the cached tokens of all prompts were."""
        host = sum(external for _, external in self._cached.values())
        return SglExt(CachedTokensDetails(self.cached_tokens - host, host))

    @staticmethod
    def _reasoning(*thoughts: Thoughts | None) -> int | None:
        counts = [each.num_tokens for each in thoughts if each is not None]
        return sum(counts) if counts else None
