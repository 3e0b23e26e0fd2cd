"""Which watermark the engine's texts carry: vLLM's `--watermark-config`."""

from typing import Literal

import msgspec

from engine.errors import ConfigError

_LARGEST_KEY = 2**64 - 1
_LONGEST_CONTEXT = 16  # beyond, one changed word hides more of a text than it leaves
_FLAG = "--watermark-config"


class WatermarkConfig(msgspec.Struct, kw_only=True, frozen=True, forbid_unknown_fields=True):
    """A watermark of the kind of Aaronson (2022), under vLLM's names.

    The noise by which a token is drawn comes from the key and the `context_width` tokens generated
    before it, not from the request's seed. Over all keys every token is as likely as without; who
    has the key can say of a text, without the model, whether its tokens were drawn so.

    key: the secret, 0 to 2^64 - 1. It is shown nowhere.
    deduplicate_contexts: with "single_turn" a token whose context the same answer had before is
        drawn as without a watermark, for it would be drawn by the same noise as there, which leads
        into loops. "none" draws it so.
    deduplicate_contexts_max_history: how far back such a context is looked for, in tokens; None is
        the whole answer.
    prf: what makes noise of key and context: JAX's Threefry. vLLM's is another, so each detects
        its own texts only.

    Raises:
        ConfigError: a value is out of its range.
    """

    key: int
    algorithm: Literal["gumbel"] = "gumbel"
    context_width: int = 4
    deduplicate_contexts: Literal["none", "single_turn"] = "single_turn"
    deduplicate_contexts_max_history: int | None = 8192
    prf: Literal["threefry"] = "threefry"

    def __post_init__(self) -> None:
        if not 0 <= self.key <= _LARGEST_KEY:
            raise ConfigError(f"{_FLAG}: key must be from 0 to 2^64 - 1.")
        if not 1 <= self.context_width <= _LONGEST_CONTEXT:
            raise ConfigError(
                f"{_FLAG}: context_width must be from 1 to {_LONGEST_CONTEXT}, "
                f"got {self.context_width}."
            )
        history = self.deduplicate_contexts_max_history
        if history is not None and history < 1:
            raise ConfigError(
                f"{_FLAG}: deduplicate_contexts_max_history must be at least 1, or null for the "
                f"whole answer, got {history}."
            )

    def __repr__(self) -> str:
        return f"WatermarkConfig(key=..., context_width={self.context_width})"

    @property
    def without_key(self) -> "WatermarkConfig":
        """The same for people to see."""
        return msgspec.structs.replace(self, key=0)

    def remembered(self, longest: int) -> int:
        """How many generated tokens a slot must hold, where an answer has at most `longest`."""
        if self.deduplicate_contexts == "none":
            return self.context_width
        history = self.deduplicate_contexts_max_history
        most = longest if history is None else min(longest, history)
        return self.context_width + most
