"""The scalars that travel with every step: what the host writes is what the device reads."""

import jax.numpy as jnp
import numpy as np
import pytest

from engine.sampling.options import (
    NUM_FIELDS,
    Flag,
    flags_of,
    needs_admission,
    sampling_row,
    unpack_rows,
)
from engine.sampling.params import SamplingParams


def test_the_device_reads_what_the_host_wrote() -> None:
    params = SamplingParams(
        temperature=0.7, top_k=50, top_p=0.9, min_p=0.05, presence_penalty=1.0,
        frequency_penalty=-0.5, repetition_penalty=1.1, min_tokens=4, logprobs=0,
    )  # fmt: skip
    table = np.zeros((NUM_FIELDS, 3), np.int32)
    table[:, 1] = sampling_row(params, seed=-2, prompt_len=10)
    rows = unpack_rows(jnp.asarray(table))
    assert [float(rows.temperature[1]), float(rows.top_p[1])] == [np.float32(0.7), np.float32(0.9)]
    assert [float(rows.min_p[1]), float(rows.presence[1])] == [np.float32(0.05), 1.0]
    assert [float(rows.frequency[1]), float(rows.repetition[1])] == [-0.5, np.float32(1.1)]
    assert [int(rows.top_k[1]), int(rows.min_position[1])] == [50, 14]
    assert [int(rows.seed_low[1]), int(rows.seed_high[1])] == [2**32 - 2, 2**32 - 1]
    assert Flag(int(rows.flags[1])) == Flag.PENALTIES | Flag.MIN_TOKENS | Flag.LOGPROBS
    assert not any(np.asarray(field)[0] for field in rows)


@pytest.mark.parametrize(
    ("options", "flag"),
    [
        ({"presence_penalty": -1}, Flag.PENALTIES),
        ({"frequency_penalty": 1}, Flag.PENALTIES),
        ({"repetition_penalty": 1.5}, Flag.PENALTIES),
        ({"logit_bias": {1: 1.0}}, Flag.LOGIT_BIAS),
        ({"allowed_token_ids": [1]}, Flag.ALLOWED),
        ({"bad_words": ["x"]}, Flag.BAD_WORDS),
        ({"min_tokens": 1}, Flag.MIN_TOKENS),
        ({"logprobs": 0}, Flag.LOGPROBS),
        ({"top_k": 5, "top_p": 0.5, "min_p": 0.5, "seed": 3, "logit_bias": {}}, Flag(0)),
    ],
)
def test_each_option_raises_its_flag_and_no_other(options, flag) -> None:
    params = SamplingParams(**options)
    assert flags_of(params) == flag
    assert needs_admission(params) == (flag not in (Flag.LOGPROBS, Flag(0)))


def test_values_beyond_float32_or_int32_stay_usable() -> None:
    params = SamplingParams(
        temperature=1e-30, top_p=1e-300, repetition_penalty=1e-300, top_k=-1, max_tokens=None,
        min_tokens=2**31 - 1,
    )  # fmt: skip
    rows = unpack_rows(jnp.asarray(sampling_row(params, seed=0, prompt_len=9)[:, None]))
    assert float(rows.temperature[0]) == 0.0
    assert float(rows.top_p[0]) > 0
    assert float(rows.repetition[0]) > 0
    assert int(rows.top_k[0]) == 0
    assert int(rows.min_position[0]) == 2**31 - 1
