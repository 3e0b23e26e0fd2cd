"""Linear maps: one row is multiplied in another way than many, with the same result."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from models.layers.parts import Linear

LARGE = (1024, 512)


def _linear(shape: tuple[int, int], dtype: str = "float32") -> Linear:
    linear = Linear(*shape, axes=("embed", "mlp"), bias=True, dtype=dtype)
    random = np.random.default_rng(0)
    linear.kernel[...] = jnp.asarray(random.standard_normal(shape), dtype)
    assert linear.bias is not None
    linear.bias[...] = jnp.asarray(random.standard_normal(shape[1]), dtype)
    return linear


@pytest.mark.parametrize("shape", [LARGE, (256, 128), (512, 2048), (1022, 512)])
@pytest.mark.parametrize("lead", [(1,), (1, 1), (), (3,)])
def test_a_row_is_multiplied_as_many_are(shape: tuple[int, int], lead: tuple[int, ...]) -> None:
    linear = _linear(shape)
    x = np.random.default_rng(1).standard_normal((*lead, shape[0])).astype(np.float32)
    exact = x.astype(np.float64) @ np.asarray(linear.kernel[...], np.float64)
    assert linear.bias is not None
    exact += np.asarray(linear.bias[...], np.float64)
    found = linear(jnp.asarray(x))
    assert found.shape == (*lead, shape[1])
    np.testing.assert_allclose(found, exact, atol=4e-4)


@pytest.mark.parametrize(
    ("shape", "rows", "dtype", "parts"),
    [
        (LARGE, 1, "float32", True),
        (LARGE, 2, "float32", False),  # they are multiplied faster as XLA does it
        ((256, 128), 1, "float32", False),
        ((512, 2048), 1, "float32", False),
        (LARGE, 1, "bfloat16", False),  # sums of parts would be rounded
    ],
)
def test_only_a_row_of_a_large_matrix_is_multiplied_in_parts(
    shape: tuple[int, int], rows: int, dtype: str, parts: bool
) -> None:
    linear = _linear(shape, dtype)
    program = jax.make_jaxpr(linear.product)(jnp.ones((rows, shape[0]), dtype))
    products = [eqn for eqn in program.eqns if eqn.primitive.name == "dot_general"]
    (operand, _) = products[0].invars
    assert operand.aval.shape == ((4, shape[0] // 4) if parts else (rows, shape[0]))
