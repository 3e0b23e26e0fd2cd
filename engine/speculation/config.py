"""How tokens are guessed: vLLM's `--speculative-config`, as far as it is here."""

import msgspec

from engine.errors import ConfigError

MOST_TOKENS = 32
LENGTHS = 2, 4  # the fewest and the most tokens that are looked up, where nobody says


class SpeculativeConfig(msgspec.Struct, kw_only=True, frozen=True, forbid_unknown_fields=True):
    """Guess from what stood behind the same tokens before, in the prompt or in the answer.

    num_speculative_tokens: the most that are guessed at once for a request.
    prompt_lookup_max, prompt_lookup_min: how many of the newest tokens must have stood there; the
        most are tried first. With one of the two given, the other is the same.

    Raises:
        ConfigError: a number is out of its range.
    """

    method: str = "ngram"
    num_speculative_tokens: int
    prompt_lookup_max: int | None = None
    prompt_lookup_min: int | None = None

    def __post_init__(self) -> None:
        if self.method != "ngram":
            raise ConfigError(
                f"--speculative-config: method must be ngram, got {self.method[:60]!r}."
            )
        if not 1 <= self.num_speculative_tokens <= MOST_TOKENS:
            raise ConfigError(
                f"--speculative-config: num_speculative_tokens must be from 1 to {MOST_TOKENS}, "
                f"got {self.num_speculative_tokens}."
            )
        shortest, longest = self.lengths
        if not 1 <= shortest <= longest <= MOST_TOKENS:
            raise ConfigError(
                "--speculative-config: prompt_lookup_min must be at least 1 and at most "
                f"prompt_lookup_max, which is at most {MOST_TOKENS}; got {shortest} and {longest}."
            )

    @property
    def lengths(self) -> tuple[int, int]:
        """The fewest and the most tokens that are looked up."""
        if self.prompt_lookup_min is None and self.prompt_lookup_max is None:
            return LENGTHS
        shortest = self.prompt_lookup_min or self.prompt_lookup_max
        longest = self.prompt_lookup_max or self.prompt_lookup_min
        return shortest or 0, longest or 0
