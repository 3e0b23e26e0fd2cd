"""Weights of experts that stay in few bits; tokens stay as they are.

    words uint16 [E, C, _]    scale [E, g, C]    int8, fp8: 8 bits; int4, mxfp4: 4 bits

A device has whole experts. Owns how they are made from numbers, one expert after another; the
layouts and products are `pallas_kernels.moe`'s.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass

import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax.sharding import Mesh

from models.errors import UnsupportedError
from models.quantised.kernels import (
    Axes,
    ByColumn,
    Fp8Kernel,
    Int8Kernel,
    Packed,
    Parts,
    Quantised,
)
from pallas_kernels.moe import Fp8Experts, Int4Experts, Int8Experts, Mxfp4Experts, PackedExperts
from pallas_kernels.moe.checkpoints import pack
from pallas_kernels.moe.formats import FORMATS, LANES, MX_BIAS

_MX_ONE = 127  # the exponent of a scale of 1 in checkpoints
_MX_LARGEST = 128


@dataclass(frozen=True)
class Kind:
    """One way in which experts lie."""

    container: type[PackedExperts]
    deviation: float  # of random numbers
    online: type[ByColumn] | None = None  # that quantises alike


KINDS: Mapping[str, Kind] = {
    "int8": Kind(Int8Experts, 73.9, Int8Kernel),
    "fp8": Kind(Fp8Experts, 68.0, Fp8Kernel),
    "int4": Kind(Int4Experts, 4.6),
    "mxfp4": Kind(Mxfp4Experts, 2.9),
}


class ExpertsKernel(Packed):
    """Matrices [E, inputs, outputs] in few bits, in the place of a mixture's parameter.

    Raises:
        UnsupportedError: sizes or groups do not fit.
    """

    def __init__(
        self, shape: tuple[int, ...], axes: Axes, mesh: Mesh, *, kind: str, group: int | None = None
    ):
        super().__init__(shape, axes, mesh)
        self.kind = kind
        self.random_mask = 0xF7F7 if kind == "fp8" else None  # no e4m3 that is no number
        (E, inputs, outputs), form = shape, FORMATS[KINDS[kind].container]
        group, block = group or inputs, form.slots * LANES
        if inputs % block or inputs % group:
            raise UnsupportedError(
                f"Experts in {kind} with {inputs} inputs in groups of {group} are not supported: "
                f"inputs must be a multiple of {block} and of the group; use the checkpoint that "
                "is not quantised, without --quantization."
            )
        scale = jnp.uint8 if kind == "mxfp4" else jnp.float32
        words = jnp.zeros((E, outputs, inputs // form.slots), jnp.uint16)
        self.words = nnx.Param(words, axes=axes)
        self.scale = nnx.Param(jnp.zeros((E, inputs // group, outputs), scale), axes=axes)

    def container(self) -> PackedExperts:
        """What `pallas_kernels.experts` takes."""
        return KINDS[self.kind].container(self.words[...], self.scale[...])

    @property
    def parts(self) -> Mapping[str, int]:
        return {"words": 0, "scale": 1}

    def quantise(self, matrix: np.ndarray) -> Quantised:
        online = KINDS[self.kind].online
        return super().quantise(matrix) if online is None else online.nearest(matrix)

    def encode(self, weights: Quantised) -> Parts:
        words = pack(weights.numbers.view(np.uint8), FORMATS[KINDS[self.kind].container].bits)
        scale = weights.scale
        if self.kind == "mxfp4":
            if scale.max() > _MX_LARGEST:
                raise UnsupportedError(
                    f"An expert's scale is 2^{int(scale.max()) - _MX_ONE}, and MXFP4 scales up to "
                    f"2 are supported."
                )
            scale = (scale + (MX_BIAS - _MX_ONE)).astype(np.uint8)
        return {"words": words, "scale": np.ascontiguousarray(scale.T)}

    @property
    def random_constants(self) -> Mapping[str, float]:
        scale = self.shape[1] ** -0.5 / KINDS[self.kind].deviation
        exponent = MX_BIAS + round(math.log2(scale))
        return {"scale": float(exponent if self.kind == "mxfp4" else scale)}
