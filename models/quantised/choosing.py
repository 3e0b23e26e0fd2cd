"""How each of a decoder's matrices lies on the devices: plainly, or packed, and then in which way.

    neither                 plainly; large ones in float32 turned, where a CPU multiplies by them
    --quantization          int8, fp8: matrices become that while they are read
    a checkpoint's method   each matrix as the checkpoint has it, where a kernel multiplies by that

Owns this choice. Knows no parameter by name.
"""

import math
from collections.abc import Mapping
from functools import partial
from typing import NamedTuple

import numpy as np
from jax.sharding import Mesh

from models.errors import UnsupportedError
from models.quantised.experts import KINDS, ExpertsKernel
from models.quantised.kernels import ByColumn, Fp8Kernel, GroupKernel, Int8Kernel, TurnedKernel
from models.quantised.methods import Method
from models.quantised.mxfp4 import MxFp4Tensor
from models.quantised.packing import Choose, Kind
from models.quantised.tensors import QuantisedTensor, Readable
from models.sharding import is_cpu
from models.weights.sources import Source, Stack

_LINEAR: Mapping[str, type[ByColumn]] = {"int8": Int8Kernel, "fp8": Fp8Kernel}


_LARGE = 2**17  # entries: of half as many (512 x 128) products take as long either way


def online_kinds(
    quantization: str | None,
    method: Method | None,
    mesh: Mesh,
    dtype: np.dtype,
    platform: str | None = None,
) -> Choose | None:
    """How weights that come as plain numbers lie on these devices, quantised while they are read.

    Tokens are quantised too, but not those that go to experts.

    Args:
        quantization: what was asked for.
        method: how the checkpoint is quantised.
        dtype: of what is not quantised.
        platform: of the devices that the weights were converted for, if not of these.

    Raises:
        UnsupportedError: the checkpoint is quantised in another way, or the devices have no such
            numbers.
    """
    if quantization in (None, method and method.name):
        return _plain_kinds(dtype, mesh, platform or mesh.devices.flat[0].platform)
    if method is not None:
        raise UnsupportedError(
            f"The checkpoint is quantised already ({method.name}); leave --quantization "
            f"{quantization} out, or use the checkpoint it was made from."
        )
    if quantization not in _LINEAR:
        raise UnsupportedError(
            f"The checkpoint is not quantised, and --quantization {quantization} does not quantise "
            f"while it reads; {' and '.join(_LINEAR)} do."
        )
    if quantization == "fp8" and not has_fp8(mesh):
        raise UnsupportedError(
            "--quantization fp8 needs a GPU, for CPUs have no such numbers; use --quantization "
            "int8."
        )
    return by_column(quantization)


def _plain_kinds(dtype: np.dtype, mesh: Mesh, platform: str) -> Choose | None:
    if platform != "cpu" or dtype != np.float32 or mesh.size > 1:
        return None
    return lambda _, shape: TurnedKernel if len(shape) == 2 and math.prod(shape) >= _LARGE else None


def has_fp8(mesh: Mesh) -> bool:
    """Whether the devices multiply such numbers; CPUs would take 20 times as long as for int8."""
    return not is_cpu(mesh)


def by_column(kind: str) -> Choose:
    """Everything in eight bits, a scale a column: "int8" or "fp8"."""
    linear, experts = _LINEAR[kind], partial(ExpertsKernel, kind=kind)
    return lambda _, shape: linear if len(shape) == 2 else experts


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

    fp8 = has_fp8(mesh)

    def choose(path: str, shape: tuple[int, ...]) -> Kind | None:
        forms = {_form(tensors[name]) for name in sources[path].tensors}
        form = forms.pop() if len(forms) == 1 else None
        if form is None or (form.kind == "fp8" and not fp8):
            return None
        return _expert_kind(form) if len(shape) == 3 else _linear_kind(form, dtype)

    return choose


class _Form(NamedTuple):
    """How a checkpoint has a tensor."""

    kind: str  # "int8", "fp8", "mxfp4"; from 0 on "uint4", "uint8"
    group: int | None  # inputs that have a scale in common; None for all
    zeros: bool


def _form(tensor: Readable) -> _Form | None:
    if not isinstance(tensor, QuantisedTensor):
        return None
    if isinstance(tensor, MxFp4Tensor):
        return _Form("mxfp4", tensor.group, False)
    if tensor.numbers.dtype == np.uint8:
        return _Form(f"uint{tensor.bits}", tensor.group, tensor.zeros is not None)
    kind = {"int8": "int8", "float8_e4m3fn": "fp8"}.get(tensor.numbers.dtype.name)
    group = None if tensor.group == tensor.shape[1] else tensor.group
    return _Form(kind, group, False) if kind else None


def _linear_kind(form: _Form, dtype: np.dtype) -> Kind | None:
    kind, group, zeros = form
    if group is None:
        return _LINEAR.get(kind)
    if kind == "uint4" or (kind == "uint8" and not zeros):
        bits = 4 if kind == "uint4" else 8
        return partial(GroupKernel, bits=bits, group=group, zeros=zeros, dtype=dtype)
    return None


def _expert_kind(form: _Form) -> Kind | None:
    kind = {"uint4": "int4"}.get(form.kind, form.kind)
    if form.zeros or kind not in KINDS:
        return None
    return partial(ExpertsKernel, kind=kind, group=form.group)
