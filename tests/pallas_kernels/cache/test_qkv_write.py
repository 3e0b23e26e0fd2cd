"""From the fused projection to queries and pages: the specification, and the kernels for GPUs.

Hopper's runs in Mosaic's interpreter, without races, Ampere's in Pallas's. Registers and layouts
only compiling for the GPU tells.
"""

import importlib.util
import sys
import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pallas_kernels import Backend, HeadNorms, Pages, qkv_write, rms_norm, rotate
from pallas_kernels.cache.qkv_write import WriteShape, check_qkv_write
from pallas_kernels.cache.quantise import dequantise, is_quantised
from pallas_kernels.cache.reference import qkv_write_reference
from pallas_kernels.errors import KernelError

interpreted = pytest.mark.skipif(
    jax.__version_info__ < (0, 11) or importlib.util.find_spec("absl") is None,
    reason="Mosaic's interpreter needs JAX 0.11 and absl-py",
)
P, S = 5, 16


def arguments(T, N, K, H, R, norms=False, cache="bfloat16", dtype="bfloat16", seed=0):
    """Pages full of numbers that must stay; every third token is padding."""
    rng = np.random.default_rng(seed)
    normal = lambda *shape: jnp.asarray(rng.standard_normal(shape), jnp.float32)  # noqa: E731
    shape = (P, K, S, -(-H // 64) * 64)
    pages = [(8 * normal(*shape)).astype(cache) for _ in range(2)]
    scales = [normal(P, K, S) for _ in range(2)] if is_quantised(cache) else []
    places = rng.permutation(P * S)[:T]
    page = np.where(np.arange(T) % 3 == 1, P + np.arange(T), places // S)
    angles = normal(T, R // 2)
    return (
        normal(T, (N + 2 * K) * H).astype(dtype),
        Pages(*pages, *scales),
        jnp.asarray(page, jnp.int32),
        jnp.asarray(places % S, jnp.int32),
    ), {
        "head_dim": H,
        "turn": (jnp.cos(angles), jnp.sin(angles)) if R else None,
        "norms": HeadNorms(normal(H), normal(H), 1e-5, 1.0) if norms else None,
    }


def by_hand(qkv, page, slot, *, head_dim, turn, norms, K):
    """Queries, keys and values of each token and head, one at a time, in float64."""
    rows = np.asarray(qkv, np.float64).reshape(qkv.shape[0], -1, head_dim)
    out = rows.copy()
    for t, h in np.ndindex(rows.shape[:2]):
        if h >= rows.shape[1] - K:
            continue
        x = rows[t, h]
        if norms is not None:
            weight = np.asarray(norms.q if h < rows.shape[1] - 2 * K else norms.k, np.float64)
            x = x / np.sqrt(np.mean(x**2) + norms.eps) * (weight + norms.offset)
        if turn is not None:
            angle = np.asarray(turn[0], np.float64)[t] + 1j * np.asarray(turn[1], np.float64)[t]
            pairs = len(angle)
            turned = (x[:pairs] + 1j * x[pairs : 2 * pairs]) * angle
            x = np.concatenate([turned.real, turned.imag, x[2 * pairs :]])
        out[t, h] = x
    return np.split(out, (rows.shape[1] - 2 * K, rows.shape[1] - K), axis=1)


@pytest.mark.parametrize(
    ("N", "K", "H", "R", "norms"), [(4, 2, 24, 16, True), (3, 1, 16, 16, False), (2, 2, 8, 0, True)]
)
def test_specification_is_the_textbook_and_touches_nothing_else(N, K, H, R, norms):
    (qkv, pages, page, slot), options = arguments(7, N, K, H, R, norms, "float32", "float32")
    q, written = qkv_write(qkv, pages, page, slot, **options, backend=Backend.XLA)
    want_q, *want = by_hand(qkv, page, slot, **options, K=K)
    np.testing.assert_allclose(q[..., :H], want_q, atol=1e-5)
    assert not np.asarray(q[..., H:]).any()
    for before, after, new in zip(pages[:2], written[:2], want, strict=True):
        expected = np.array(before)
        for t in np.flatnonzero(np.asarray(page) < P):
            expected[page[t], :, slot[t], :H], expected[page[t], :, slot[t], H:] = new[t], 0
        np.testing.assert_allclose(after, expected, atol=1e-5)


def test_specification_in_float64_is_more_exact():
    with jax.enable_x64(True):
        (qkv, pages, page, slot), options = arguments(3, 2, 1, 16, 16, True, dtype="float64")
        options = jax.tree.map(lambda x: jnp.asarray(x, jnp.float64), options) | {"head_dim": 16}
        q, _ = qkv_write_reference(qkv, pages, page, slot, **options)
        want = by_hand(qkv, page, slot, **options, K=1)[0]
        assert q.dtype == jnp.float64
        np.testing.assert_allclose(q[..., :16], want, atol=1e-12)


@pytest.mark.parametrize("cache", ["int8", "float8_e4m3fn"])
def test_eight_bits_come_with_the_scale_of_their_token_and_head(cache):
    (qkv, pages, page, slot), options = arguments(4, 2, 2, 64, 64, cache=cache)
    (_, plain, _, _), _ = arguments(4, 2, 2, 64, 64, cache="float32")
    _, exact = qkv_write(qkv, plain, page, slot, **options)
    _, got = qkv_write(qkv, pages, page, slot, **options)
    for t in (0, 2, 3):
        at = page[t], slice(None), slot[t]
        back = dequantise(got.k[at], got.k_scales[at])
        np.testing.assert_allclose(back, exact.k[at], atol=0.07 * float(jnp.abs(exact.k[at]).max()))
        np.testing.assert_array_equal(
            jnp.abs(got.v[at].astype(jnp.float32)).max(axis=-1), 127 if cache == "int8" else 448
        )
    kept = jnp.ones((P, S), bool).at[page, slot].set(False, mode="drop")
    np.testing.assert_array_equal(
        jnp.where(kept[:, None], got.v_scales, 0), jnp.where(kept[:, None], pages.v_scales, 0)
    )


def test_parts_are_those_of_a_model():
    x = jnp.array([[[3.0, 4.0]]])
    np.testing.assert_allclose(rms_norm(x, jnp.ones(2), 0.0), x / np.sqrt(12.5), rtol=1e-6)
    quarter = jnp.zeros((1, 1)), jnp.ones((1, 1))
    np.testing.assert_allclose(rotate(x, quarter), [[[-4.0, 3.0]]])


def same(got, want):
    """Up to the last place of 16 bits, or the next of the numbers of 8."""
    for run, right in zip(jax.tree.leaves(got), jax.tree.leaves(want), strict=True):
        assert run.dtype == right.dtype
        place = {"bfloat16": 2**-8, "float16": 2**-11, "float8_e4m3fn": 2**-3}
        np.testing.assert_allclose(
            run.astype(jnp.float32), right.astype(jnp.float32),
            rtol=place.get(run.dtype.name, 1e-6), atol=1 if run.dtype == jnp.int8 else 1e-6,
        )  # fmt: skip


KERNELS = {  # name: (N, K, H, R, norms, dtype of pages)
    "nothing to do but the write": (3, 3, 64, 0, False, "bfloat16"),
    "rotated whole": (4, 1, 64, 64, False, "bfloat16"),
    "heads wider in pages": (2, 1, 96, 96, False, "bfloat16"),
    "rotated in part, norms": (9, 2, 80, 32, True, "bfloat16"),
    "norms without rotation": (2, 1, 64, 0, True, "bfloat16"),
    "head dim 256, norms": (4, 1, 256, 256, True, "bfloat16"),
    "head dim 512, norms": (4, 1, 512, 512, True, "bfloat16"),
    "int8, wider in pages": (2, 2, 96, 96, False, "int8"),
    "fp8, norms": (2, 1, 128, 64, True, "float8_e4m3fn"),
}


@interpreted
@pytest.mark.parametrize("name", KERNELS)
def test_kernel_equals_specification(name):
    from pallas_kernels.cache.mosaic_qkv_write import mosaic_qkv_write

    *sizes, norms, cache = KERNELS[name]
    arrays, options = arguments(4, *sizes, norms, cache)
    got = mosaic_qkv_write(*arrays, **options, interpret=True)
    same(got, qkv_write_reference(*arrays, **options))


TRITON = {  # name: (N, K, H, R, norms, dtype of pages)
    "nothing to do but the write": (3, 3, 64, 0, False, "bfloat16"),
    "rotated in part, norms, wider in pages": (5, 1, 24, 16, True, "bfloat16"),
    "int8, more heads than a block has": (17, 2, 192, 192, False, "int8"),
    "fp8, norms": (2, 2, 64, 64, True, "float8_e4m3fn"),
}


@pytest.mark.parametrize("name", TRITON)
def test_kernel_for_ampere_equals_specification(name):
    from pallas_kernels.cache.triton_qkv_write import triton_qkv_write

    *sizes, norms, cache = TRITON[name]
    arrays, options = arguments(4, *sizes, norms, cache)
    got = triton_qkv_write(*arrays, **options, interpret=True)
    same(got, qkv_write_reference(*arrays, **options))


@interpreted
@settings(max_examples=3, deadline=None)
@given(
    T=st.integers(1, 3), K=st.integers(1, 3), G=st.integers(1, 4), H=st.integers(1, 9),
    part=st.floats(0, 1), norms=st.booleans(), seed=st.integers(0, 99),
)  # fmt: skip
def test_kernel_equals_specification_at_any_size(T, K, G, H, part, norms, seed):
    from pallas_kernels.cache.mosaic_qkv_write import mosaic_qkv_write

    R = int(part * H / 2) * 16
    arrays, options = arguments(
        T, G * K, K, 8 * H, R, norms, dtype="float16", cache="float16", seed=seed
    )
    got = mosaic_qkv_write(*arrays, **options, interpret=True)
    same(got, qkv_write_reference(*arrays, **options))


@pytest.mark.parametrize(
    ("change", "limit"),
    [
        ({"head_dim": 60}, "a head dim that 8 divides, not 60"),
        ({"head_dim": 72, "pages": "int8"}, "a head dim that 16 divides, not 72"),
        ({"pages": "float32"}, "of the dtype of queries, bfloat16, or of eight bits"),
        ({"dtype": "float32", "pages": "float32"}, "16-bit queries"),
        ({"heads": 257}, "up to 256 query heads, not 257"),
    ],
)
def test_what_the_kernel_does_not_take_is_said(change, limit):
    shape = WriteShape(32, 128, "bfloat16", "bfloat16")
    check_qkv_write(shape, Backend.MOSAIC)
    with pytest.raises(KernelError, match=limit):
        check_qkv_write(shape._replace(**change), Backend.MOSAIC)
    check_qkv_write(shape._replace(**change), Backend.TRITON)


def test_the_kernel_asks_for_its_limits():
    arrays, options = arguments(1, 4, 2, 60, 32)
    with pytest.raises(KernelError, match="a head dim that 8 divides, not 60"):
        qkv_write(*arrays, **options, backend=Backend.MOSAIC)


@pytest.mark.parametrize("sizes", [(4, 2, 80, 20), (2, 1, 64, 16, True, "int8")])
def test_a_rotation_that_the_kernel_cannot_take_is_done_before(sizes, monkeypatch):
    """By XLA: what is left to the kernel is to write."""
    given, options = arguments(6, *sizes)
    asked = []

    def kernel(*args, **rest):
        asked.append((rest["turn"], rest["norms"]))
        return qkv_write_reference(*args, **rest)

    module = "pallas_kernels.cache.mosaic_qkv_write"
    monkeypatch.setitem(sys.modules, module, types.SimpleNamespace(mosaic_qkv_write=kernel))
    q, pages = qkv_write(*given, **options, backend=Backend.MOSAIC)
    expected_q, expected = qkv_write_reference(*given, **options)
    np.testing.assert_array_equal(q, expected_q)
    np.testing.assert_allclose(
        np.asarray(pages.k, np.float32), np.asarray(expected.k, np.float32), atol=1
    )
    assert asked == [(None, None)]
