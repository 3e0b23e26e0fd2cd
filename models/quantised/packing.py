"""Puts packed parameters into a decoder in the place of its linear maps' and experts' matrices.

Owns which those are: all but routers and gates of experts, which are small and choose. Decoder and
architectures know nothing of this.
"""

import math
from collections.abc import Callable, Mapping
from typing import Any

from flax import nnx
from jax.sharding import Mesh
from jax.typing import DTypeLike

from models.config.decoder import ModelConfig
from models.decoder import Decoder
from models.encoder_decoder import make_decoder
from models.flatten import Layout, dotted, layout
from models.layers.mixture import MixtureOfExperts
from models.layers.parts import Linear
from models.quantised.kernels import Axes, Packed

Kind = Callable[[Any, Axes, Mesh], Packed]  # of a shape and the names of its axes, on devices
Choose = Callable[[str, tuple[int, ...]], Kind | None]  # "layers.0.mlp.down.kernel", (F, D)


def decoder_layout(
    config: ModelConfig, dtype: DTypeLike, mesh: Mesh, choose: Choose | None = None
) -> tuple[Layout[Decoder], dict[str, Packed]]:
    """The layout of a decoder on `mesh` in which the chosen kernels are packed, and these by path.

    Raises:
        UnsupportedError: the decoder or a kernel does not divide among the devices.
    """

    def make() -> Decoder:
        decoder = make_decoder(config, dtype=dtype, shards=mesh.size)
        for path, module, name in _candidates(decoder) if choose else ():
            plain = getattr(module, name)
            kind = choose(path, plain.shape) if choose else None
            if kind is not None:
                setattr(module, name, nnx.data(kind(plain.shape, plain.axes, mesh)))
        return decoder

    decoder = nnx.eval_shape(make)
    packed = {
        dotted(path): module
        for path, module in nnx.iter_modules(decoder)
        if isinstance(module, Packed)
    }
    return layout(decoder), packed


def num_parameters(plan: Layout[Decoder], kernels: Mapping[str, Packed]) -> int:
    """Of a decoder, the scales of packed kernels not counted."""
    parts = {f"{path}.{name}" for path, kernel in kernels.items() for name in kernel.parts}
    plain = sum(math.prod(leaf.shape) for leaf in plan.leaves if leaf.paths[0] not in parts)
    return plain + sum(math.prod(kernel.shape) for kernel in kernels.values())


def _candidates(decoder: Decoder) -> list[tuple[str, nnx.Module, str]]:
    """Path, module and name of each parameter that may be packed."""
    found: list[tuple[tuple[object, ...], nnx.Module, str]] = []
    for path, module in nnx.iter_modules(decoder):
        if isinstance(module, Linear) and module.kernel.axes[1] != "choice":
            found.append((path, module, "kernel"))
        elif isinstance(module, MixtureOfExperts):
            found += [(path, module, name) for name in ("gate_up", "down")]
    return [(f"{dotted(path)}.{name}", module, name) for path, module, name in found]
