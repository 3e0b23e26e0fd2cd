"""Products with one scale a column, against float64."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from pallas_kernels.deviceless import compile_for_target, load_target, missing_plugin
from pallas_kernels.dispatch import Backend
from pallas_kernels.quantized import fp8_matmul, int8_matmul, quantize_tokens, scaled_matmul
from pallas_kernels.quantized.reference import (
    fp8_matmul_reference,
    int8_matmul_reference,
    scaled_matmul_reference,
)


def make(M, A, C, dtype):
    rng = np.random.default_rng(0)
    w = jnp.asarray(rng.integers(-127, 128, (C, A)), jnp.float32).astype(dtype)
    scale = jnp.asarray(rng.random(C), jnp.float32)
    return jnp.asarray(rng.standard_normal((M, A)), jnp.float32), w, scale


def distance(got, want):
    got, want = np.asarray(got, np.float64), np.asarray(want, np.float64)
    return np.linalg.norm(got - want) / np.linalg.norm(want)


def wide(x, w, scale):
    """Arguments of which a reference computes in float64."""
    return x.astype(jnp.float64), w, scale


@pytest.mark.parametrize("backend", Backend)
@pytest.mark.parametrize("dtype", [jnp.int8, jnp.float8_e4m3fn])
@pytest.mark.parametrize("M, C", [(1, 128), (9, 40)])
def test_scale_after_the_product(M, C, dtype, backend):
    arrays = make(M, 96, C, dtype)
    with jax.enable_x64(True):
        want = scaled_matmul_reference(*wide(*arrays))
    assert distance(scaled_matmul(*arrays, backend=backend), want) < 1e-6


@pytest.mark.parametrize("M", [1, 9])
def test_eight_bits_times_eight(M):
    arrays = make(M, 96, 40, jnp.int8)
    n, _ = quantize_tokens(arrays[0])
    assert n.dtype == jnp.int8 and int(jnp.abs(n).max()) == 127
    with jax.enable_x64(True):
        want, exact = (f(*wide(*arrays)) for f in (int8_matmul_reference, scaled_matmul_reference))
    found = int8_matmul(*arrays)
    assert distance(found, want) < 1e-6
    assert distance(found, exact) < 0.02


@pytest.mark.parametrize("M", [1, 9])
def test_e4m3_times_e4m3(M):
    arrays = make(M, 96, 40, jnp.float8_e4m3fn)
    with jax.enable_x64(True):
        want, exact = (f(*wide(*arrays)) for f in (fp8_matmul_reference, scaled_matmul_reference))
    found = fp8_matmul(*arrays)
    assert distance(found, want) < 1e-6
    assert 0.001 < distance(found, exact) < 0.05


@pytest.mark.parametrize("matmul", [int8_matmul, fp8_matmul])
def test_a_token_of_zeros_stays_zero(matmul):
    x, w, scale = make(2, 96, 40, jnp.int8 if matmul is int8_matmul else jnp.float8_e4m3fn)
    assert not matmul(x.at[0].set(0), w, scale)[0].any()


@pytest.mark.parametrize("matmul", [int8_matmul, fp8_matmul])
def test_the_result_can_be_wider_than_the_tokens(matmul):
    x, w, scale = make(2, 96, 40, jnp.int8 if matmul is int8_matmul else jnp.float8_e4m3fn)
    found = matmul(x.astype(jnp.bfloat16), w, scale, jnp.float32)
    assert found.dtype == jnp.float32
    assert (found != found.astype(jnp.bfloat16)).any()


@pytest.mark.parametrize("M, dtype", [(1, jnp.int8), (64, jnp.float8_e4m3fn), (256, jnp.int8)])
def test_hopper_reads_eight_bits_only(M, dtype):
    """No converted weights in memory: what is there besides arguments is the parts of the sum."""
    if missing_plugin() is not None:
        pytest.skip("no CUDA plugin")
    mesh = load_target("h200").mesh("x")
    everywhere = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec())
    x, w, scale = (
        jax.ShapeDtypeStruct(shape, kind, sharding=everywhere)
        for shape, kind in (
            ((M, 4096), jnp.bfloat16),
            ((8192, 4096), dtype),
            ((8192,), jnp.float32),
        )
    )
    jitted = jax.jit(lambda *arrays: scaled_matmul(*arrays, backend=Backend.MOSAIC))
    compiled = compile_for_target(lambda: jitted.lower(x, w, scale)).executable
    assert compiled.memory_analysis().temp_size_in_bytes < 8192 * 4096 / 2
