"""Whether a text was drawn with a watermark: by its token ids and the key, without the model.

    from engine import GumbelWatermarkDetector

    found = GumbelWatermarkDetector(key=42).detect(token_ids)
    print(found.p_value, found.is_watermarked)

The tokens are those of the answer alone, in the model's own tokenizer: `return_token_ids` gives
them, and `/tokenize` does for a text, where it cuts words as the model did. Names are vLLM's.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Int32, UInt32

from engine.errors import RequestError
from engine.plain_values import integer, sequence
from engine.watermarking.config import WatermarkConfig
from engine.watermarking.contexts import context_key, key_words
from pallas_kernels.sampling.noise import bits, row_key

_LEAST_PADDED = 64


@dataclass(frozen=True, slots=True)
class WatermarkDetection:
    """score: the sum over tokens of a number that is exponential with mean 1 where there is no
    watermark, and larger where there is. p_value: how likely a text without one is to have such a
    score, or a larger one."""

    score: float
    p_value: float
    num_scored_tokens: int
    is_watermarked: bool


class GumbelWatermarkDetector:
    """Of texts drawn with this key and this width of contexts.

    p_value_threshold: the share of other texts that may be taken for watermarked.

    Raises:
        ConfigError: key or width are out of their range.
        ValueError: the threshold is.
    """

    def __init__(self, key: int, context_width: int = 4, p_value_threshold: float = 0.01) -> None:
        self._config = WatermarkConfig(key=key, context_width=context_width)
        if not 0 < p_value_threshold < 1:
            raise ValueError("p_value_threshold must be between 0 and 1.")
        self._threshold = p_value_threshold

    def detect(self, token_ids: Sequence[int]) -> WatermarkDetection:
        """Score each token that has a whole context before it, each context once; where there is
        none, nothing is found. Raises RequestError for what is no list of ids."""
        ids = sequence("token_ids", token_ids, _token_id)
        contexts, targets = self._pairs(ids)
        if not targets:
            return WatermarkDetection(0.0, 1.0, 0, False)
        score = float(self._scores(contexts, targets).sum())
        p_value = _gamma_survival(score, len(targets))
        return WatermarkDetection(score, p_value, len(targets), p_value <= self._threshold)

    def _pairs(self, ids: list[int]) -> tuple[list[tuple[int, ...]], list[int]]:
        """Contexts and the token behind each; of equal contexts, which had equal noise, the
        first."""
        width = self._config.context_width
        pairs: dict[tuple[int, ...], int] = {}
        for end in range(width, len(ids)):
            pairs.setdefault(tuple(ids[end - width : end]), ids[end])
        return [*pairs], [*pairs.values()]

    def _scores(
        self, contexts: list[tuple[int, ...]], targets: list[int]
    ) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
        """-log of the random number by which each token was drawn: small where its noise was
        large."""
        count = len(targets)
        padded = np.zeros((_padded(count), 1 + self._config.context_width), np.int32)
        padded[:count, :-1], padded[:count, -1] = contexts, targets
        key = np.array(key_words(self._config.key), np.uint32)
        uniform = np.asarray(_noise(key, padded), np.float64)[:count]
        uniform *= 2.0**-32
        scores: np.ndarray[tuple[int], np.dtype[np.float64]] = -np.log(
            np.clip(uniform, 2.0**-33, 1 - 2.0**-24)
        )
        return scores


@jax.jit
def _noise(key: UInt32[Array, " 2"], tokens: Int32[Array, "N W1"]) -> UInt32[Array, " N"]:
    """The random bits of each last token, by those before it."""
    words = jnp.broadcast_to(key, (len(tokens), 2))
    high, low = context_key((words[:, 0], words[:, 1]), tokens[:, :-1])
    noise: Array = bits(row_key(high, low, jnp.zeros_like(high)), tokens[:, -1])
    return noise


def _token_id(name: str, value: object) -> int:
    found = integer(name, value)
    if not 0 <= found < 2**31:
        raise RequestError(f"{name} must hold token ids, got {str(found)[:40]}.", name)
    return found


def _padded(count: int) -> int:
    """A power of two: of texts of any length few are compiled for."""
    return int(max(_LEAST_PADDED, 1 << (count - 1).bit_length()))


def _gamma_survival(score: float, count: int) -> float:
    """The chance that `count` exponentials of mean 1 are `score` or more in sum:
    exp(-s) (1 + s + s^2 / 2! + ... ), `count` terms."""
    steps = math.log(score) - np.log(np.arange(1, count))
    logs = np.concatenate([[0.0], np.cumsum(steps)])
    peak = float(logs.max())
    return min(1.0, math.exp(min(0.0, peak - score + math.log(np.exp(logs - peak).sum()))))
