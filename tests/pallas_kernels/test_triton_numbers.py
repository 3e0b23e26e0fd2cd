"""What the Triton kernels do in place of instructions that Ampere has not."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from pallas_kernels.triton import parts, to_e4m3, to_int8


@pytest.mark.parametrize("dtype, convert", [("int8", to_int8), ("float8_e4m3fn", to_e4m3)])
def test_numbers_are_rounded_as_xla_rounds_them(dtype, convert):
    """All numbers of eight bits, what lies half-way between two, and some around it."""
    every = np.arange(256, dtype=np.uint8).view(dtype).astype(np.float64)
    every = np.unique(every[np.isfinite(every)])
    half = (every[1:] + every[:-1]) / 2
    x = np.concatenate([every, half, half * (1 + 1e-6), half * (1 - 1e-6)]).astype(np.float32)
    wanted = np.asarray(jnp.round(x) if dtype == "int8" else x).astype(dtype)
    got = np.asarray(jax.jit(convert)(x))
    assert got.dtype == wanted.dtype
    np.testing.assert_array_equal(got.view(np.uint8), wanted.view(np.uint8))


def test_any_size_is_made_of_powers_of_two():
    for size, first in ((192, 0), (80, 7), (1, 0), (0, 3)):
        numbers = [np.asarray(part)[0] for part in parts(size, first)]
        assert all(part.size & (part.size - 1) == 0 for part in numbers)
        np.testing.assert_array_equal(np.concatenate([[], *numbers]), first + np.arange(size))
