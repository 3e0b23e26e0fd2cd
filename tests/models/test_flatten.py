"""Modules to flat tuples and back."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from models.decoder import Decoder
from models.flatten import layout
from models.registry import find_architecture
from tests.parity.cases import ARCHITECTURES, Case


class Layer(nnx.Module):
    def __init__(self, key: int, size: int = 3) -> None:
        values = jax.random.normal(jax.random.key(key), (size, size))
        self.kernel = nnx.Param(values, axes=("embed", "mlp"))
        self.bias = nnx.Param(values[0], axes=("mlp",))
        self.norm = nnx.Param(values[1], axes=("norm",))


class Stack(nnx.Module):
    def __init__(self, *sizes: int) -> None:
        self.layers = nnx.List([Layer(key, size) for key, size in enumerate(sizes)])
        self.norm = nnx.Param(jnp.ones(3), axes=("norm",))

    def __call__(self, x: jax.Array) -> jax.Array:
        for layer in self.layers:
            x = jnp.tanh(x @ layer.kernel + layer.bias) * layer.norm
        return x * self.norm


def test_equal_vectors_are_stacked_and_matrices_are_not() -> None:
    described = {leaf.paths: (leaf.shape, leaf.axes) for leaf in layout(Stack(3, 3)).leaves}
    assert described == {
        ("layers.0.kernel",): ((3, 3), ("embed", "mlp")),
        ("layers.1.kernel",): ((3, 3), ("embed", "mlp")),
        ("layers.0.bias", "layers.1.bias"): ((2, 3), (None, "mlp")),
        ("layers.0.norm", "layers.1.norm"): ((2, 3), (None, "norm")),
        ("norm",): ((3,), ("norm",)),
    }


def test_vectors_of_other_lengths_are_apart() -> None:
    paths = {leaf.paths for leaf in layout(Stack(3, 4, 3)).leaves}
    assert ("layers.0.bias", "layers.2.bias") in paths
    assert ("layers.1.bias",) in paths


def test_a_rebuilt_module_computes_the_same_in_a_jit() -> None:
    module, x = Stack(3, 3), jnp.arange(6.0).reshape(2, 3)
    abstract = layout(nnx.eval_shape(lambda: Stack(3, 3)))
    leaves = abstract.flatten(module)
    assert len(leaves) == 5
    result = jax.jit(lambda leaves, x: abstract.unflatten(leaves)(x))(leaves, x)
    np.testing.assert_allclose(result, module(x), rtol=1e-6)


def test_a_missing_axis_name_is_an_error() -> None:
    module = Stack(3)
    module.norm = nnx.Param(jnp.ones(3))
    with pytest.raises(AttributeError):
        layout(module)


@pytest.mark.parametrize("case", ARCHITECTURES.values(), ids=ARCHITECTURES)
def test_32_layers_of_any_family_are_at_most_300_leaves(case: Case) -> None:
    layers = "n_layer" if "n_layer" in case.config else "num_hidden_layers"
    raw = {**case.config, layers: 32}
    config = find_architecture(raw).config(raw)
    decoder = nnx.eval_shape(lambda: Decoder(config, dtype=jnp.bfloat16, shards=1))
    leaves = layout(decoder).leaves
    assert 128 < len(leaves) <= 300
    assert all(len(leaf.axes) == len(leaf.shape) for leaf in leaves)
