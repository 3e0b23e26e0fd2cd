"""Products with matrices [C, A] are exact, and begin with the matrix where rows are few."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from pallas_kernels.across import product_across


@pytest.mark.parametrize("outputs", [96, 6, 7])
@pytest.mark.parametrize("rows", [1, 2, 16, 32, 33])
def test_float32(rows: int, outputs: int) -> None:
    draw = np.random.default_rng(rows).standard_normal
    x, w = draw((rows, 80), np.float32), draw((outputs, 80), np.float32)
    found = product_across(jnp.asarray(x), jnp.asarray(w), jnp.float32)
    np.testing.assert_allclose(found, x.astype(np.float64) @ w.T.astype(np.float64), atol=2e-5)


@pytest.mark.parametrize("rows", [1, 2, 16, 17])
def test_whole_numbers_are_exact(rows: int) -> None:
    draw = np.random.default_rng(rows).integers
    x, w = draw(-128, 128, (rows, 300), np.int8), draw(-128, 128, (24, 300), np.int8)
    found = product_across(jnp.asarray(x), jnp.asarray(w), jnp.int32)
    assert (np.asarray(found) == x.astype(np.int32) @ w.T.astype(np.int32)).all()


@pytest.mark.parametrize(
    ("rows", "dtype", "left"),
    [
        (1, "float32", "f32[4,24,1]"),
        (2, "float32", "f32[96,2]"),
        (32, "float32", "f32[96,32]"),
        (33, "float32", "f32[33,96]"),
        (2, "int8", "s32[2,96]"),  # which XLA would copy
        (8, "bfloat16", "[8,96]"),  # for which a CPU has no such product
    ],
)
def test_what_a_cpu_computes(rows: int, dtype: str, left: str) -> None:
    """Not only what is asked for: XLA turns a product around whose result is transposed."""
    shapes = jax.ShapeDtypeStruct((rows, 80), dtype), jax.ShapeDtypeStruct((96, 80), dtype)
    summed = jnp.int32 if dtype == "int8" else jnp.float32
    program = jax.jit(lambda x, w: product_across(x, w, summed)).lower(*shapes).compile().as_text()
    products = [line for line in program.splitlines() if " dot(" in line]
    assert products and all(left in line.split(" dot(")[0] for line in products), products
