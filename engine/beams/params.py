"""What a caller asks of a beam search, and its bounds; names are vLLM's, meanings transformers'."""

from collections.abc import Callable
from typing import Any, Literal

import msgspec

from engine.errors import RequestError
from engine.plain_values import boolean, integer, number, shown
from engine.sampling.params import MAX_LOGPROBS

MAX_LENGTH_PENALTY = 10.0  # a length to the power of more than that is no float any longer

EarlyStopping = bool | Literal["never"]


class BeamSearchParams(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Options of one search; raises `RequestError` naming the field that is out of bounds.

    Finished sequences are compared by `sum of log-probabilities / length ** length_penalty`, where
    the length is that of what was generated, an end of text included, as in transformers. (vLLM
    counts the prompt, too.) So values above 0 favour long sequences, and 0 compares sums.

    `early_stopping` is transformers': False stops once the best beam, if it ended now, could not
    improve on the worst of `beam_width` finished sequences; True as soon as there are so many;
    "never" once no length that is still possible could improve on them.

    A search takes the likeliest: a `temperature` of 0 and of 1 say so, and others are refused.
    (vLLM takes any, and its scores do not depend on it.)
    """

    beam_width: int
    max_tokens: int
    ignore_eos: bool = False
    temperature: float = 0.0
    length_penalty: float = 1.0
    early_stopping: EarlyStopping = False

    def __post_init__(self) -> None:
        for name, convert in _CONVERSIONS.items():
            msgspec.structs.force_setattr(self, name, convert(name, getattr(self, name)))
        self._require(1 <= self.beam_width <= MAX_LOGPROBS, "beam_width", _WIDTH)
        self._require(1 <= self.max_tokens < 2**31, "max_tokens", "must be at least 1")
        self._require(
            self.temperature in (0, 1), "temperature", "must be 0 or 1 where beams are searched"
        )
        self._require(
            abs(self.length_penalty) <= MAX_LENGTH_PENALTY,
            "length_penalty", f"must be within ±{MAX_LENGTH_PENALTY:g}",
        )  # fmt: skip

    def _require(self, condition: bool, name: str, rule: str) -> None:
        if not condition:
            raise RequestError(f"{name} {rule}, got {shown(getattr(self, name))}.", name)

    def check_model(self, vocab_size: int, num_eos: int, param: str = "beam_width") -> None:
        """Raise `RequestError` that names `param` for more beams than can be told apart.

        A beam is continued by `beam_width` tokens that do not end it, and any end of text may be
        likelier than these, so `beam_width + num_eos` log-probabilities are looked at.
        """
        most = min(MAX_LOGPROBS, vocab_size) - (0 if self.ignore_eos else num_eos)
        if self.beam_width > most:
            raise RequestError(
                f"{param} may be at most {most} for this model, got {self.beam_width}.", param
            )


def _early_stopping(name: str, value: object) -> object:
    return value if value == "never" else boolean(name, value)


_WIDTH = f"must be between 1 and {MAX_LOGPROBS}"
_CONVERSIONS: dict[str, Callable[[str, Any], object]] = {
    "beam_width": integer,
    "max_tokens": integer,
    "ignore_eos": boolean,
    "temperature": number,
    "length_penalty": number,
    "early_stopping": _early_stopping,
}
