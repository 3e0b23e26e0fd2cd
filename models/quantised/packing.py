"""Puts packed kernels into a decoder in the place of its linear maps' matrices.

Owns which linear maps those are: all but routers and gates of experts, which are small and choose.
Knows no checkpoint. Decoder and architectures know nothing of this.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from functools import partial

import numpy as np
from flax import nnx
from jax.sharding import Mesh

from models.config import ModelConfig
from models.decoder import Decoder
from models.errors import UnsupportedError
from models.flatten import Layout, layout
from models.layers import Linear
from models.quantised.kernels import ByColumn, Fp8Kernel, GroupKernel, Int8Kernel, PackedKernel
from models.quantised.methods import Method
from models.quantised.tensors import QuantisedTensor, Readable
from models.weights import Source, Stack

ONLINE: Mapping[str, type[ByColumn]] = {"int8": Int8Kernel, "fp8": Fp8Kernel}

Kind = Callable[[tuple[int, int], tuple[str, str], Mesh], PackedKernel]
Choose = Callable[[str], Kind | None]  # "layers.0.mlp.down.kernel" -> how it lies on devices


def online_kind(quantization: str | None, method: Method | None, mesh: Mesh) -> Kind | None:
    """How weights that are quantised while they are read lie on these devices.

    Args:
        quantization: what was asked for.
        method: how the checkpoint is quantised.

    Raises:
        UnsupportedError: the checkpoint is quantised in another way, or the devices have no such
            numbers.
    """
    if quantization in (None, method and method.name):
        return None
    if method is not None:
        raise UnsupportedError(
            f"The checkpoint is quantised already ({method.name}); leave --quantization "
            f"{quantization} out, or use the checkpoint it was made from."
        )
    if quantization not in ONLINE:
        raise UnsupportedError(
            f"The checkpoint is not quantised, and --quantization {quantization} does not quantise "
            f"while it reads; {' and '.join(ONLINE)} do."
        )
    if quantization == "fp8" and mesh.devices.flat[0].platform == "cpu":
        raise UnsupportedError(
            "--quantization fp8 needs a GPU, for CPUs have no such numbers; use --quantization "
            "int8."
        )
    return ONLINE[quantization]


def kinds_of(
    sources: Mapping[str, Source | Stack],
    tensors: Mapping[str, Readable],
    dtype: np.dtype,
    mesh: Mesh,
) -> Choose:
    """How the kernels of a quantised checkpoint lie on these devices: as it has them, if they can.

    Kernels whose tensors differ in kind, e4m3 with a scale a rectangle, and e4m3 on CPUs are
    dequantised while they are read.
    """

    on_cpu = mesh.devices.flat[0].platform == "cpu"

    def choose(path: str) -> Kind | None:
        tensors_of = [tensors[name] for name in sorted(sources[path].tensors)]
        forms = {_form(tensor) for tensor in tensors_of}
        form = forms.pop() if len(forms) == 1 else None
        if isinstance(form, _Groups):
            return partial(GroupKernel, **asdict(form), dtype=dtype)
        return None if form is Fp8Kernel and on_cpu else form

    return choose


@dataclass(frozen=True)
class _Groups:
    bits: int
    group: int
    zeros: bool


def _form(tensor: Readable) -> type[ByColumn] | _Groups | None:
    """How a tensor would lie; None where there is no kernel that multiplies by it."""
    if not isinstance(tensor, QuantisedTensor):
        return None
    if tensor.numbers.dtype == np.uint8:
        zeros = tensor.zeros is not None
        known = tensor.bits == 4 or not zeros
        return _Groups(tensor.bits, tensor.group, zeros) if known else None
    by_column = tensor.group == tensor.shape[1]
    kinds = {"int8": Int8Kernel, "float8_e4m3fn": Fp8Kernel}
    return kinds.get(tensor.numbers.dtype.name) if by_column else None


def decoder_layout(
    config: ModelConfig, dtype: np.dtype, mesh: Mesh, choose: Choose | None = None
) -> tuple[Layout[Decoder], dict[str, PackedKernel]]:
    """The layout of a decoder on `mesh` in which the chosen kernels are packed, and these by path.

    Raises:
        UnsupportedError: the decoder or a kernel does not divide among the devices.
    """

    def make() -> Decoder:
        decoder = Decoder(config, dtype=dtype, shards=mesh.size)
        for path, linear in _linears(decoder) if choose else ():
            kind = choose(path) if choose else None
            if kind is not None:
                kernel = linear.kernel
                linear.kernel = nnx.data(kind(kernel.shape, kernel.axes, mesh))
        return decoder

    decoder = nnx.eval_shape(make)
    return layout(decoder), dict(packed_kernels(decoder))


def num_parameters(plan: Layout[Decoder], kernels: Mapping[str, PackedKernel]) -> int:
    """Of a decoder, the scales of packed kernels not counted."""
    parts = {f"{path}.{name}" for path, kernel in kernels.items() for name in kernel.parts}
    plain = sum(math.prod(leaf.shape) for leaf in plan.leaves if leaf.paths[0] not in parts)
    return plain + sum(math.prod(kernel.shape) for kernel in kernels.values())


def _linears(decoder: Decoder) -> list[tuple[str, Linear]]:
    return [
        (f"{_dotted(path)}.kernel", module)
        for path, module in nnx.iter_modules(decoder)
        if isinstance(module, Linear) and module.kernel.axes[1] != "choice"
    ]


def packed_kernels(decoder: Decoder) -> list[tuple[str, PackedKernel]]:
    """The packed kernels of a decoder by path."""
    return [
        (_dotted(path), module)
        for path, module in nnx.iter_modules(decoder)
        if isinstance(module, PackedKernel)
    ]


def _dotted(path: tuple[object, ...]) -> str:
    return ".".join(map(str, path))
