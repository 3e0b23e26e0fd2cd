"""Counting the tokens of a response while it is made."""

from collections.abc import Sequence

from engine.outputs import OutputDelta
from serve.protocol import Usage, usage_of


class TokenCounter:
    """Prompt tokens are known at the start; generated and cached ones come with the deltas."""

    def __init__(self, prompt_tokens: Sequence[int], samples: int) -> None:
        self._prompts = prompt_tokens
        self._samples = samples
        self._generated: dict[int, int] = {}
        self._cached: dict[int, int] = {}

    def add(self, choice: int, delta: OutputDelta) -> None:
        """Count what one delta brought to one choice."""
        prompt = choice // self._samples
        self._generated[choice] = self._generated.get(choice, 0) + len(delta.token_ids)
        self._cached[prompt] = max(self._cached.get(prompt, 0), delta.num_cached_tokens)

    def of_choice(self, choice: int) -> Usage:
        """So far, for one choice and its prompt."""
        prompt = choice // self._samples
        return usage_of(
            self._prompts[prompt], self._generated.get(choice, 0), self._cached.get(prompt, 0)
        )

    def total(self) -> Usage:
        """Of the whole response; each prompt counts once."""
        return usage_of(
            sum(self._prompts), sum(self._generated.values()), sum(self._cached.values())
        )
