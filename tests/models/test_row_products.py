"""Products of few rows are done in parts where that is faster, with the same result."""

from collections.abc import Callable
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from models.layers import row_products
from models.layers.parts import Linear

LARGE = (1024, 512)
WIDE = (512, 2048)
MIB = 2**20


@pytest.fixture
def cache_of_a_core(monkeypatch: pytest.MonkeyPatch) -> Callable[[int], None]:
    """Says how many bytes it has, whatever runs the tests."""
    monkeypatch.setattr(row_products, "_SUMS_FAST", True)
    return lambda size: monkeypatch.setattr(row_products, "_own_cache", lambda: size)


def _linear(shape: tuple[int, int], dtype: str = "float32") -> Linear:
    linear = Linear(*shape, axes=("embed", "mlp"), bias=True, dtype=dtype)
    random = np.random.default_rng(0)
    linear.kernel[...] = jnp.asarray(random.standard_normal(shape), dtype)
    assert linear.bias is not None
    linear.bias[...] = jnp.asarray(random.standard_normal(shape[1]), dtype)
    return linear


@pytest.mark.parametrize("shape", [LARGE, (256, 128), WIDE, (1022, 512)])
@pytest.mark.parametrize("lead", [(1,), (1, 1), (), (3,), (2, 3), (64,)])
def test_few_rows_are_multiplied_as_many_are(
    shape: tuple[int, int], lead: tuple[int, ...], cache_of_a_core: Callable[[int], None]
) -> None:
    cache_of_a_core(2 * MIB)
    linear = _linear(shape)
    x = np.random.default_rng(1).standard_normal((*lead, shape[0])).astype(np.float32)
    exact = x.astype(np.float64) @ np.asarray(linear.kernel[...], np.float64)
    assert linear.bias is not None
    exact += np.asarray(linear.bias[...], np.float64)
    found = linear(jnp.asarray(x))
    assert found.shape == (*lead, shape[1])
    np.testing.assert_allclose(found, exact, atol=4e-4)


@pytest.mark.parametrize(
    ("shape", "rows", "dtype", "cache", "parts"),
    [
        (LARGE, 1, "float32", 0, 4),
        ((256, 128), 1, "float32", 0, 1),
        (WIDE, 1, "float32", 0, 1),
        (LARGE, 1, "bfloat16", 0, 1),  # sums of parts would be rounded
        (WIDE, 2, "float32", 2 * MIB, 8),
        (WIDE, 48, "float32", 2 * MIB, 8),
        ((512, 3000), 16, "float32", 2 * MIB, 8),
        ((512, 1024), 16, "float32", 2 * MIB, 4),  # of 64 inputs, parts would be too small
        ((1536, 1280), 16, "float32", 2 * MIB, 1),  # its rows do not meet in the cache
        ((509, 2048), 16, "float32", 2 * MIB, 1),  # a prime
        (WIDE, 49, "float32", 2 * MIB, 1),
        (WIDE, 16, "float32", MIB, 1),  # they are multiplied faster as XLA does it
        (WIDE, 16, "bfloat16", 2 * MIB, 1),
    ],
)
def test_only_few_rows_of_a_large_matrix_are_multiplied_in_parts(
    shape: tuple[int, int], rows: int, dtype: str, cache: int, parts: int,
    cache_of_a_core: Callable[[int], None],
) -> None:  # fmt: skip
    cache_of_a_core(cache)
    linear = _linear(shape, dtype)
    program = jax.make_jaxpr(linear.product)(jnp.ones((rows, shape[0]), dtype))
    products = [eqn for eqn in program.eqns if eqn.primitive.name == "dot_general"]
    whole, part = (rows, shape[0]), (parts, shape[0] // parts)
    expected = whole if parts == 1 else part if rows == 1 else (rows, *part)
    assert products[0].invars[0].aval.shape == expected


@pytest.mark.parametrize(("text", "size"), [("2048K\n", 2 * MIB), ("?", 0), (None, 0)])
def test_the_system_says_how_much_cache_a_core_has(
    text: str | None, size: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "size"
    if text is not None:
        file.write_text(text)
    monkeypatch.setattr(row_products, "_SECOND_CACHE", file)
    assert row_products._own_cache.__wrapped__() == size
