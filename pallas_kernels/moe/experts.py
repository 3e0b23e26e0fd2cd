"""The experts of a layer on the tokens that chose them."""

from functools import partial

import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float, Int32

from pallas_kernels.dispatch import Backend, resolve, traced_device
from pallas_kernels.moe.activations import ACTIVATIONS
from pallas_kernels.moe.tiles import Tiles, sort_into_tiles
from pallas_kernels.tuning import tuned

_CPU_TILE = 16
_TILES = (8, 16, 32, 64, 128)


def experts(
    x: Float[Array, "T D"],
    weights: Float[Array, "T k"],
    chosen: Int32[Array, "T k"],
    gate_up: Float[Array, "E D F2"],
    down: Float[Array, "E F D"],
    *,
    activation: str = "silu",
    gate_up_bias: Float[Array, "E F2"] | None = None,
    down_bias: Float[Array, "E D"] | None = None,
    tile: int | None = None,
    backend: Backend | None = None,
    interpret: bool = False,
) -> Float[Array, "T D"]:
    """Each token through its experts, weighted; an expert's weights are read once a tile.

    Specification: `reference.experts_reference`. `tile` is tokens of a tile.

    Raises:
        KernelError: the GPU's kernel does not take these sizes.
    """
    mosaic = interpret or resolve(backend) is Backend.MOSAIC
    E = down.shape[0]
    size = tile or (_tuned_tile(x, chosen, down) if mosaic else _CPU_TILE)
    tiles = sort_into_tiles(chosen, E, size)
    sorted_x = x.at[tiles.token].get(mode="fill", fill_value=0)  # [M, D]
    if mosaic:
        from pallas_kernels.moe.mosaic_grouped import mosaic_grouped

        multiply = partial(mosaic_grouped, tiles=tiles, size=size, interpret=interpret)
    else:
        multiply = partial(_multiply_tiles, tiles=tiles, size=size)
    hidden = multiply(sorted_x, gate_up, gate_up_bias, activation=activation)  # [M, F]
    out = multiply(hidden, down, down_bias, activation=None)  # [M, D]
    picked = out.at[tiles.place].get(mode="fill", fill_value=0)  # [T, k, D]
    return (picked.astype(jnp.float32) * weights[:, :, None]).sum(1).astype(x.dtype)


def _tuned_tile(x: Array, chosen: Array, down: Array) -> int:
    """Tokens of a tile on the GPU traced for: as measured, or by rule."""
    E, F = down.shape[:2]
    facts = {"choices": chosen.size, "E": E, "D": x.shape[1], "F": F}
    found = tuned("experts", facts, traced_device().kind)
    return found["tile"] if found else choose_tile(chosen.size, E)


def choose_tile(choices: int, E: int) -> int:
    """The rule: about as many as an expert gets."""
    return next((size for size in _TILES if size * E >= choices), _TILES[-1])


def _multiply_tiles(
    x: Float[Array, "M A"],
    weight: Float[Array, "E A C"],
    bias: Float[Array, "E C"] | None,
    *,
    activation: str | None,
    tiles: Tiles,
    size: int,
) -> Float[Array, "M _"]:
    """One tile after the other, with no copy of weights; tiles of no expert cost nothing."""
    columns = weight.shape[2] // (1 if activation is None else 2)

    def multiply(tile: tuple[Array, Array]) -> Array:
        rows, expert = tile
        out = jnp.dot(rows, weight[expert], preferred_element_type=jnp.float32)
        if bias is not None:
            out = out + bias[expert]
        if activation is not None:
            out = ACTIVATIONS[activation](out[:, :columns], out[:, columns:])
        return out.astype(x.dtype)

    def one(tile: tuple[Array, Array]) -> Array:
        nothing = jnp.zeros((size, columns), x.dtype)
        return lax.cond(tile[1] >= 0, multiply, lambda _: nothing, tile)

    out = lax.map(one, (x.reshape(-1, size, x.shape[1]), tiles.expert))
    return jnp.reshape(out, (-1, columns))
