"""The Hopper kernel for chunks equals the specification, in Mosaic's interpreter, without races."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pallas_kernels.attention.reference import attention_reference
from pallas_kernels.cache.quantise import quantise

if jax.__version_info__ < (0, 11):
    pytest.skip("Mosaic's interpreter needs JAX 0.11 for this kernel", allow_module_level=True)
pytest.importorskip("absl", reason="Mosaic GPU needs absl-py")

from pallas_kernels.attention.mosaic_ragged import mosaic_ragged

CASES = {  # name: (rows as (tokens, tokens before them), N, K, H, S, options)
    "one row, two blocks": ([(130, 0)], 2, 1, 64, 64, {}),
    "rows that share blocks": ([(5, 3), (1, 7), (60, 0), (2, 64), (100, 200)], 2, 1, 64, 16, {}),
    "window": ([(200, 300)], 1, 1, 128, 64, {"window": 70}),
    "page larger than a tile's half": ([(129, 127), (9, 9)], 1, 1, 128, 128, {"window": 20}),
    "tiles of 64, softcap": ([(150, 30)], 2, 2, 256, 128, {"softcap": 5.0}),
    "head dim 512": ([(70, 90), (5, 3), (60, 0)], 2, 1, 512, 16, {"window": 120}),
    "rows without tokens": ([(9, 30), (0, 9), (1, 9), (2, 0)], 2, 1, 64, 32, {}),
    "a row of one token": ([(1, 200)], 2, 1, 64, 64, {"least": 1}),
    "sinks": ([(66, 1), (70, 0)], 2, 1, 64, 64, {"sinks": [2.0, -1.0], "window": 50}),
    "slopes": ([(130, 60), (70, 0)], 2, 1, 64, 64, {"slopes": [0.25, 0.02]}),
    "slopes, softcap, window": (
        [(140, 40)],
        2,
        1,
        128,
        64,
        {"slopes": [0.5, 0.02], "softcap": 5.0, "window": 50},
    ),
    "fp8, sinks": (
        [(130, 3), (2, 40)],
        2,
        1,
        64,
        16,
        {"cache": "float8_e4m3fn", "sinks": [2.0, 0]},
    ),
    "int8, float16": ([(70, 90)], 1, 1, 128, 128, {"cache": "int8", "dtype": jnp.float16}),
    "float16": ([(66, 1)], 2, 1, 64, 64, {"dtype": jnp.float16}),
}


def make(rows, N, K, H, S, dtype, cache, padding):
    """Arrays as a step has them: pages shuffled, and NaN wherever nothing was written."""
    rng = np.random.default_rng(0)
    count, before = (np.array(part) for part in zip(*rows, strict=True))
    lengths, start = count + before, np.cumsum(count) - count
    width = max(lengths) // S + 2
    pages = len(rows) * width + 1
    k, v = (rng.standard_normal((pages, K, S, H)).astype(np.float32) for _ in range(2))
    table = 1 + rng.permutation(pages - 1).reshape(len(rows), width)
    written = np.zeros((pages, S), bool)
    for b, length in enumerate(lengths):
        places = np.arange(length)
        written[table[b, places // S], places % S] = True
    for array in (k, v):
        array.transpose(0, 2, 1, 3)[~written] = np.nan
    row = np.repeat(np.arange(len(rows)), count)
    positions = before[row] + np.arange(len(row)) - start[row]
    row, positions = (np.pad(x, (0, padding)) for x in (row, positions))
    q = rng.standard_normal((len(row), N, H))
    ints = (jnp.asarray(x, jnp.int32) for x in (table, positions, start, count, row))
    q, k, v = (jnp.asarray(x, dtype) for x in (q, k, v))
    if cache is None:
        return q, k, v, *ints, {}
    (k, k_scales), (v, v_scales) = quantise(k, cache), quantise(v, cache)
    return q, k, v, *ints, {"k_scales": k_scales, "v_scales": v_scales}


def check(
    rows, N, K, H, S, *, padding=3, least=2, dtype=jnp.bfloat16, cache=None, **options,
):  # fmt: skip
    q, k, v, table, positions, start, count, row, scales = make(
        rows, N, K, H, S, dtype, cache, padding
    )
    options = {"scale": H**-0.5, "window": None, "softcap": None, **options, **scales}
    for name in {"sinks", "slopes"} & set(options):
        options[name] = jnp.asarray(options[name], jnp.float32)
    got = mosaic_ragged(
        q, k, v, table, positions, start, count, least=least, interpret=True, **options
    )
    want = attention_reference(q, k, v, table, row, positions, **options)
    live = np.repeat(np.asarray(count) >= least, np.asarray(count))
    live = np.pad(live, (0, padding))
    got, want = (np.asarray(x, np.float32) for x in (got, want))
    assert np.isfinite(got).all()
    np.testing.assert_allclose(got[live], want[live], atol=0.03)


@pytest.mark.parametrize("name", CASES)
def test_equals_reference(name):
    rows, N, K, H, S, options = CASES[name]
    check(rows, N, K, H, S, **options)


@settings(max_examples=6, deadline=None, derandomize=True)
@given(
    st.lists(st.tuples(st.integers(0, 90), st.integers(0, 90)), min_size=1, max_size=4),
    st.sampled_from([16, 64]),
    st.sampled_from([None, 33]),
)
def test_any_rows(rows, S, window):
    check([(1, 0), *rows], 1, 1, 64, S, window=window)
