"""One request's sampling options as a column of int32 that travels with every step.

The host keeps a table `int32[NUM_FIELDS, R+1]` by slot and sends the columns of a step's rows; the
device reads them with `unpack_rows`. Only scalars are here: options with lists (logit_bias,
allowed_token_ids, bad_words, stop ids for min_tokens) and counts live on the device by slot, in
`engine.sampling.state`, and a row's flags say whether any of that is to be read.

A column of zeros is an inert row, as padding is: greedy, no option, no log-probabilities.
"""

from enum import IntEnum, IntFlag, auto
from typing import NamedTuple

import numpy as np
from jax import lax
from jaxtyping import Array, Float32, Int32, UInt32
from numpy.typing import NDArray

from engine.sampling.params import SamplingParams

_LEAST_FLOAT = float(np.finfo(np.float32).tiny)
_LARGEST_INT = 2**31 - 1


class Field(IntEnum):
    """Rows of the table; floats are stored as their bits."""

    TEMPERATURE = 0  # 0: greedy
    TOP_P = auto()
    MIN_P = auto()
    PRESENCE = auto()
    FREQUENCY = auto()
    REPETITION = auto()
    TOP_K = auto()  # 0: off
    SEED_LOW = auto()
    SEED_HIGH = auto()
    MIN_POSITION = auto()  # no stop token before this index of the sequence
    FLAGS = auto()


class Flag(IntFlag):
    """What a row needs beyond temperature, top-k, top-p and min-p."""

    PENALTIES = auto()
    LOGIT_BIAS = auto()
    ALLOWED = auto()
    BAD_WORDS = auto()
    MIN_TOKENS = auto()
    LOGPROBS = auto()
    SCORED = auto()
    WATERMARK = auto()
    TIMES = auto()


NUM_FIELDS = len(Field)
ADMITTED = ~Flag.LOGPROBS  # what is told of a slot when its request enters


class SamplingRows(NamedTuple):
    """The table's columns on the device, one for each row of logits."""

    temperature: Float32[Array, " B"]
    top_p: Float32[Array, " B"]
    min_p: Float32[Array, " B"]
    presence: Float32[Array, " B"]
    frequency: Float32[Array, " B"]
    repetition: Float32[Array, " B"]
    top_k: Int32[Array, " B"]
    seed_low: UInt32[Array, " B"]
    seed_high: UInt32[Array, " B"]
    min_position: Int32[Array, " B"]
    flags: Int32[Array, " B"]


def sampling_row(params: SamplingParams, *, seed: int, prompt_len: int) -> NDArray[np.int32]:
    """A request's column, `int32[NUM_FIELDS]`; of `seed` the low 64 bits count."""
    row = np.zeros(NUM_FIELDS, np.int32)
    as_float, as_bits = row.view(np.float32), row.view(np.uint32)
    as_float[Field.TEMPERATURE] = params.temperature if params.draws else 0.0
    as_float[Field.TOP_P] = max(params.top_p, _LEAST_FLOAT)
    as_float[Field.MIN_P] = params.min_p
    as_float[Field.PRESENCE] = params.presence_penalty
    as_float[Field.FREQUENCY] = params.frequency_penalty
    as_float[Field.REPETITION] = max(params.repetition_penalty, _LEAST_FLOAT)
    row[Field.TOP_K] = max(params.top_k, 0)
    as_bits[Field.SEED_LOW] = seed & 0xFFFFFFFF
    as_bits[Field.SEED_HIGH] = seed >> 32 & 0xFFFFFFFF
    row[Field.MIN_POSITION] = min(prompt_len + params.min_tokens, _LARGEST_INT)
    row[Field.FLAGS] = flags_of(params)
    return row


def flags_of(params: SamplingParams) -> Flag:
    """The parts of the sampler that a request needs."""
    wanted = {
        Flag.PENALTIES: params.has_penalties,
        Flag.LOGIT_BIAS: bool(params.logit_bias),
        Flag.ALLOWED: params.allowed_token_ids is not None,
        Flag.BAD_WORDS: bool(params.bad_words),
        Flag.MIN_TOKENS: params.min_tokens > 0,
        Flag.LOGPROBS: params.logprobs is not None,
        Flag.SCORED: params.logprob_token_ids is not None,
        Flag.WATERMARK: params.watermarking is True,
    }
    return Flag(sum(flag for flag, is_wanted in wanted.items() if is_wanted))


def needs_admission(params: SamplingParams) -> bool:
    """Whether the request must be written into its slot before its first step."""
    return bool(flags_of(params) & ADMITTED)


def unpack_rows(packed: Int32[Array, "F B"]) -> SamplingRows:
    """The device's view of the columns that `sampling_row` wrote."""

    def floats(field: Field) -> Float32[Array, " B"]:
        return lax.bitcast_convert_type(packed[field], np.float32)

    def words(field: Field) -> UInt32[Array, " B"]:
        return lax.bitcast_convert_type(packed[field], np.uint32)

    return SamplingRows(
        temperature=floats(Field.TEMPERATURE),
        top_p=floats(Field.TOP_P),
        min_p=floats(Field.MIN_P),
        presence=floats(Field.PRESENCE),
        frequency=floats(Field.FREQUENCY),
        repetition=floats(Field.REPETITION),
        top_k=packed[Field.TOP_K],
        seed_low=words(Field.SEED_LOW),
        seed_high=words(Field.SEED_HIGH),
        min_position=packed[Field.MIN_POSITION],
        flags=packed[Field.FLAGS],
    )
