"""The kernels for Ampere and Ada equal the specification, in Pallas's interpreter.

The interpreter runs a kernel's mathematics and addresses as one XLA program. What it cannot know,
registers and shared memory, only compiling for the GPU tells.
"""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pallas_kernels.attention.reference import attention_reference
from pallas_kernels.attention.splits import choose_splits
from pallas_kernels.attention.triton_decode import triton_decode
from pallas_kernels.attention.triton_ragged import cut, triton_ragged
from pallas_kernels.cache.quantise import quantise

DECODE = {  # name: (N, K, H, S, splits, options)
    "grouped, page 16": (4, 1, 64, 16, 1, {}),
    "every head its own, splits": (2, 2, 64, 64, 4, {}),
    "groups of three, head dim 192": (6, 2, 192, 32, 2, {}),
    "head dim 256, float16": (2, 1, 256, 128, 1, {"dtype": jnp.float16}),
    "forty heads twice, splits, sinks": (80, 2, 128, 64, 2, {"sinks": True}),
    "window and softcap": (2, 1, 128, 16, 2, {"window": 20, "softcap": 5.0}),
    "sinks and a window": (4, 2, 64, 64, 1, {"sinks": True, "window": 70}),
    "slopes and splits": (3, 1, 64, 64, 3, {"slopes": True}),
    "int8, splits": (4, 1, 64, 16, 2, {"cache": "int8"}),
    "fp8, head dim 192, sinks": (3, 1, 192, 64, 1, {"cache": "float8_e4m3fn", "sinks": True}),
}
RAGGED = {  # name: (rows as (tokens, tokens before them), N, K, H, S, options)
    "blocks of 32 tokens": ([(70, 0), (33, 31)], 4, 1, 64, 64, {}),
    "groups of three, head dim 192": ([(20, 100)], 6, 2, 192, 32, {}),
    "twenty heads in two blocks": ([(9, 30)], 20, 1, 64, 64, {}),
    "rows of one token are left out": ([(1, 40), (5, 3), (0, 9), (1, 0)], 2, 1, 64, 16, {}),
    "a row of one token": ([(1, 200)], 2, 1, 64, 64, {"least": 1}),
    "window": ([(90, 100), (3, 60)], 1, 1, 128, 128, {"window": 40}),
    "softcap, head dim 256, float16": (
        [(40, 20)], 2, 2, 256, 64, {"softcap": 5.0, "dtype": jnp.float16},
    ),
    "sinks and a window": ([(66, 1), (70, 0)], 4, 2, 64, 64, {"sinks": True, "window": 50}),
    "slopes and a window": ([(66, 1), (70, 0)], 4, 2, 64, 64, {"slopes": True, "window": 50}),
    "int8": ([(70, 0), (33, 31)], 2, 1, 64, 16, {"cache": "int8"}),
    "fp8, window and softcap": (
        [(40, 90)], 2, 1, 64, 64, {"cache": "float8_e4m3fn", "window": 50, "softcap": 5.0},
    ),
}  # fmt: skip


def paged(rng, lengths, K, H, S, dtype, longest=0, cache=None):
    """Pages in shuffled order, and NaN wherever nothing was written; scales of an eight-bit cache.

    Vectors are of very different lengths there, as their scales are to be.
    """
    width = max(*lengths, longest) // S + 2
    count = len(lengths) * width + 1
    table = 1 + rng.permutation(count - 1).reshape(len(lengths), width).astype(np.int32)
    written = np.zeros((count, S), bool)
    for b, length in enumerate(lengths):
        places = np.arange(length)
        written[table[b, places // S], places % S] = True
    pages = rng.standard_normal((2, count, K, S, H)).astype(np.float32)
    if cache is not None:
        pages *= np.exp2(rng.integers(-8, 2, pages.shape[:-1]))[..., None]
    pages.transpose(0, 1, 3, 2, 4)[:, ~written] = np.nan
    table = jnp.asarray(table)
    if cache is None:
        k, v = jnp.asarray(pages, dtype)
        return (k, v, table), {}
    (k, k_scales), (v, v_scales) = (quantise(jnp.asarray(x), cache) for x in pages)
    return (k, v, table), {"k_scales": k_scales, "v_scales": v_scales}


def compare(got, want, live):
    got, want = (np.asarray(x, np.float32) for x in (got, want))
    np.testing.assert_allclose(got[live], want[live], atol=0.02)


def options_of(N, H, given):
    options = {"scale": H**-0.5, "window": None, "softcap": None, **given}
    if options.pop("sinks", False):
        options["sinks"] = jnp.linspace(-1, 4, N)
    if options.pop("slopes", False):
        options["slopes"] = jnp.linspace(0, 1, N)
    return options


@pytest.mark.parametrize("name", DECODE)
def test_decode(name):
    N, K, H, S, splits, given = DECODE[name]
    dtype = given.get("dtype", jnp.bfloat16)
    options = options_of(N, H, {k: v for k, v in given.items() if k not in ("dtype", "cache")})
    rng = np.random.default_rng(0)
    positions = np.array([0, S - 1, S, -1, 200])
    pages, scales = paged(rng, positions + 1, K, H, S, dtype, cache=given.get("cache"))
    q = jnp.asarray(rng.standard_normal((5, N, H)), dtype)
    where = jnp.asarray(positions, jnp.int32)
    run = partial(triton_decode, splits=splits, interpret=True, **options)
    got = jax.jit(run)(q, *pages, where, **scales)
    right = jax.jit(partial(attention_reference, **options))
    want = right(q, *pages, jnp.arange(5), where, **scales)
    compare(got, want, positions >= 0)
    assert not np.asarray(got[3]).any()


def make_ragged(rows, N, K, H, S, dtype, padding, longest=0, cache=None):
    rng = np.random.default_rng(0)
    count, before = (np.array(part) for part in zip(*rows, strict=True))
    start = np.cumsum(count) - count
    pages, scales = paged(rng, count + before, K, H, S, dtype, longest, cache)
    row = np.repeat(np.arange(len(rows)), count)
    positions = before[row] + np.arange(len(row)) - start[row]
    row, positions = (jnp.asarray(np.pad(x, (0, padding)), jnp.int32) for x in (row, positions))
    start, count = jnp.asarray(start, jnp.int32), jnp.asarray(count, jnp.int32)
    q = jnp.asarray(rng.standard_normal((len(row), N, H)), dtype)
    return (q, *pages), scales, positions, row, start, count


def check_ragged(arrays, scales, positions, row, start, count, run, right, padding, least):
    got = run(*arrays, positions, start, count, **scales)
    want = right(*arrays, row, positions, **scales)
    live = np.pad(np.repeat(count >= least, count), (0, padding))
    compare(got, want, live)
    assert padding == 0 or not np.asarray(got[-padding:]).any()


@pytest.mark.parametrize("name", RAGGED)
def test_ragged(name):
    rows, N, K, H, S, given = RAGGED[name]
    given = {"dtype": jnp.bfloat16, "least": 2, **given}
    dtype, least, cache = given.pop("dtype"), given.pop("least"), given.pop("cache", None)
    options = options_of(N, H, given)
    run = jax.jit(partial(triton_ragged, least=least, interpret=True, **options))
    right = jax.jit(partial(attention_reference, **options))
    made = make_ragged(rows, N, K, H, S, dtype, padding=3, cache=cache)
    check_ragged(*made, run, right, padding=3, least=least)


ONCE = options_of(4, 64, {"window": 33})
RUN = jax.jit(partial(triton_ragged, least=2, interpret=True, **ONCE))
RIGHT = jax.jit(partial(attention_reference, **ONCE))


@settings(max_examples=8, deadline=None, derandomize=True)
@given(st.lists(st.tuples(st.integers(0, 50), st.integers(0, 70)), min_size=4, max_size=4))
def test_any_rows(rows):
    padding = 200 - sum(tokens for tokens, _ in rows)  # one shape, one compilation
    made = make_ragged(rows, 4, 1, 64, 16, jnp.bfloat16, padding, longest=120)
    check_ragged(*made, RUN, RIGHT, padding, least=2)


CUT = jax.jit(partial(cut, size=4, least=2))


@settings(max_examples=30, deadline=None, derandomize=True)
@given(st.lists(st.integers(0, 20), min_size=5, max_size=5))
def test_every_token_is_in_one_block(counts):
    count = np.array(counts)
    start = np.cumsum(count) - count
    blocks = jax.device_get(CUT(*(jnp.asarray(x, jnp.int32) for x in (start, count, range(103)))))
    taken = [
        first + i
        for first, left in zip(blocks.first, blocks.left, strict=True)
        for i in range(min(left, 4))
    ]
    assert sorted([*taken, *start[count == 1]]) == list(range(103))


def test_splits_fill_the_gpu_and_no_more():
    assert choose_splits(blocks=512, keys=4096, tile=32, num_cores=108) == 1
    assert choose_splits(blocks=64, keys=4096, tile=32, num_cores=108) == 4
    assert choose_splits(blocks=8, keys=4096, tile=32, num_cores=108) == 16
    assert choose_splits(blocks=8, keys=100, tile=32, num_cores=108) == 4
