"""The sampler written plainly: one row, float64, sorting, one option after the other."""

import dataclasses
from dataclasses import dataclass, field

import jax
import numpy as np
from msgspec.structs import replace
from numpy.typing import NDArray

from engine.sampling.params import SamplingParams

Floats = NDArray[np.float64]


@dataclass
class Sequence:
    """A request about to choose its next token."""

    params: SamplingParams
    prompt: list[int] = field(default_factory=lambda: [0])
    output: list[int] = field(default_factory=list)
    stop_ids: list[int] = field(default_factory=list)
    bad_words: list[list[int]] = field(default_factory=list)
    seed: int = 0

    @property
    def position(self) -> int:
        return len(self.prompt) + len(self.output)


def processed(logits: NDArray[np.float32], sequence: Sequence) -> Floats:
    """Logits after everything that can change the likeliest token."""
    params, x = sequence.params, logits.astype(np.float64)
    allowed = np.ones(len(x), bool)
    if params.allowed_token_ids is not None:
        allowed[:] = False
        allowed[params.allowed_token_ids] = True
    banned = ~allowed
    for *before, last in sequence.bad_words:
        if not before or sequence.output[-len(before) :] == before:
            banned[last] = True
    if len(sequence.output) < params.min_tokens:
        banned[sequence.stop_ids] = True
    if banned.all():
        banned = ~allowed
    for token, bias in (params.logit_bias or {}).items():
        x[token] += bias
    for token in set(sequence.prompt + sequence.output):
        divides = x[token] > 0
        x[token] *= 1 / params.repetition_penalty if divides else params.repetition_penalty
    for token in set(sequence.output):
        x[token] -= params.frequency_penalty * sequence.output.count(token)
        x[token] -= params.presence_penalty
    x[banned] = -np.inf
    return x


def distribution(logits: NDArray[np.float32], sequence: Sequence) -> Floats:
    """Probabilities from which a token is drawn; temperature must be above 0."""
    params = sequence.params
    x = processed(logits, sequence) / params.temperature
    p = _softmax(x)
    x[p < params.min_p * p.max()] = -np.inf
    if 0 < params.top_k < len(x):
        x[x < np.sort(x)[-params.top_k]] = -np.inf
    p = _softmax(x)
    descending = np.sort(p)[::-1]
    if params.top_p < 1:
        enough = np.searchsorted(np.cumsum(descending), params.top_p)
        p[p < descending[min(enough, len(p) - 1)] * (1 - 1e-12)] = 0
    return p / p.sum()


def logprobs(
    logits: NDArray[np.float32], sequence: Sequence, *, top_p: float | None = None
) -> Floats:
    """Of what a token is drawn from, or of what the likeliest is taken of."""
    with np.errstate(divide="ignore"):
        if sequence.params.temperature == 0:
            return np.log(_softmax(processed(logits, sequence)))
        share = sequence.params.top_p if top_p is None else top_p
        params = replace(sequence.params, top_p=share)
        return np.log(distribution(logits, dataclasses.replace(sequence, params=params)))


def gumbel(seed: int, position: int, vocab_size: int) -> Floats:
    """The noise of one token, in float64 from the same random bits."""
    words = np.array([seed >> 32 & 0xFFFFFFFF, seed & 0xFFFFFFFF], np.uint32)
    key = jax.random.fold_in(jax.random.wrap_key_data(words, impl="threefry2x32"), position)
    uniform = np.asarray(jax.random.bits(key, (vocab_size,)), np.float64) * 2.0**-32
    return -np.log(-np.log1p(-np.clip(uniform, 2.0**-33, 1 - 2.0**-24)))


def tokens(logits: NDArray[np.float32], sequence: Sequence) -> set[int]:
    """The token that must be chosen; two where rounding may decide."""
    if sequence.params.temperature == 0:
        return {int(np.argmax(processed(logits, sequence)))}
    with np.errstate(divide="ignore"):
        score = np.log(distribution(logits, sequence))
    score += gumbel(sequence.seed, sequence.position, len(logits))
    return {int(i) for i in np.flatnonzero(score >= score.max() - 1e-4)}


def _softmax(x: Floats) -> Floats:
    weight = np.exp(x - x.max())
    return weight / weight.sum()
