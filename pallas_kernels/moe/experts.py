"""The experts of a layer on the tokens that chose them."""

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int32

from pallas_kernels.dispatch import Backend, resolve, traced_device
from pallas_kernels.moe.formats import PackedExperts, is_packed, num_bits, num_rows
from pallas_kernels.moe.tiles import Tiles, sort_into_tiles, whole_tiles
from pallas_kernels.moe.xla_experts import xla_experts
from pallas_kernels.tuning import tuned

_FEW = 32  # tokens that are not sorted
_TILES = (8, 16, 32, 64, 128)
_MOST = 64  # tokens of a tile where weights take registers, or a warpgroup is alone


def experts(
    x: Float[Array, "T D"],
    weights: Float[Array, "T k"],
    chosen: Int32[Array, "T k"],
    gate_up: Float[Array, "E D F2"] | PackedExperts,
    down: Float[Array, "E F D"] | PackedExperts,
    *,
    activation: str = "silu",
    gate_up_bias: Float[Array, "E F2"] | None = None,
    down_bias: Float[Array, "E D"] | None = None,
    tile: int | None = None,
    backend: Backend | None = None,
    interpret: bool = False,
) -> Float[Array, "T D"]:
    """Each token through its experts, weighted; an expert's weights are read once a tile.

    Specification: `reference.experts_reference`, of `formats.dequantize` of packed weights. `tile`
    is tokens of a tile; without it a few tokens are not sorted at all. Where F is divided among
    devices, one of them has `down_bias`.

    Raises:
        KernelError: the GPU's kernel does not take these sizes.
    """
    if not interpret and resolve(backend) is Backend.XLA:
        return xla_experts(
            x, weights, chosen, gate_up, down, activation=activation,
            gate_up_bias=gate_up_bias, down_bias=down_bias, tile=tile,
        )  # fmt: skip
    from pallas_kernels.moe.mosaic_grouped import mosaic_grouped
    from pallas_kernels.moe.mosaic_packed import mosaic_packed

    size, tiles, rows = _arrange(x, chosen, down, tile)

    def multiply(x: Array, weight: Any, bias: Array | None, activation: str | None) -> Array:
        kernel: Any = mosaic_packed if is_packed(weight) else mosaic_grouped
        arranged = {"expert": tiles.expert, "size": size, "interpret": interpret}
        return jnp.asarray(kernel(x, weight, bias, activation=activation, **arranged))

    hidden = multiply(rows, gate_up, gate_up_bias, activation)  # [M, F]
    out = multiply(hidden, down, down_bias, None)  # [M, D]
    picked = out.at[tiles.place].get(mode="fill", fill_value=0)  # [T, k, D]
    return (picked.astype(jnp.float32) * weights[:, :, None]).sum(1).astype(x.dtype)


def _arrange(x: Array, chosen: Array, down: Any, tile: int | None) -> tuple[int, Tiles, Array]:
    """Tokens of a tile, the tiles, and rows for each of them; or for one of them, if it is all."""
    T, E = len(x), jax.tree.leaves(down)[0].shape[0]
    if tile is None and T <= _FEW:
        size = next(size for size in _TILES if size >= T)
        return size, whole_tiles(chosen, E, size), jnp.pad(x, ((0, size - T), (0, 0)))
    facts = {"choices": chosen.size, "E": E, "D": x.shape[1], "F": num_rows(down)}
    size = tile or _tuned_tile(facts | {"bits": num_bits(down)})
    tiles = sort_into_tiles(chosen, E, size)
    return size, tiles, x.at[tiles.token].get(mode="clip")


def _tuned_tile(facts: Mapping[str, int]) -> int:
    """Tokens of a tile on the GPU traced for: as measured, or by rule."""
    paired = facts["D"] % 128 == 0 and facts["F"] % 128 == 0  # two warpgroups share a block
    most = _TILES[-1] if facts["bits"] == 16 and paired else _MOST
    found = tuned("experts", facts, traced_device().kind)
    return min(most, found["tile"] if found else choose_tile(facts["choices"], facts["E"]))


def choose_tile(choices: int, E: int) -> int:
    """The rule: about as many as an expert gets."""
    return next((size for size in _TILES if size * E >= choices), _TILES[-1])
