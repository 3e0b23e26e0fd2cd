"""Matrices of whole numbers of 4 or 8 bits, packed in words of 32, as three tools write them.

    GPTQ        qweight        [A / 8, C]   qzeros             [g, C / 8]   scales        [g, C]
                g_idx [A]: the group of each input
    AWQ         qweight        [A, C / 8]   qzeros             [g, C / 8]   scales        [g, C]
                columns of a word in the order 0 2 4 6 1 3 5 7
    compressed  weight_packed  [C, A / 8]   weight_zero_point  [C / 8, g]   weight_scale  [C, g]
    tensors     weight_shape, weight_g_idx

With eight bits read 4 for 8. Owns where each tool puts what. Sources: GPTQ, arXiv 2210.17323; AWQ,
arXiv 2306.00978; and the files of AutoGPTQ, AutoAWQ and llm-compressor.
"""

from collections.abc import Callable, Mapping

import numpy as np

from models.checkpoints.safetensors import Tensor
from models.config.fields import Fields
from models.errors import CheckpointError, UnsupportedError
from models.quantised.tensors import PackedInts, QuantisedMatrix, Readable, Scales

_AWQ_ORDER = (0, 2, 4, 6, 1, 3, 5, 7)
Tensors = Mapping[str, Tensor]
Join = Callable[[str], QuantisedMatrix]


def read_gptq(fields: Fields, tensors: Tensors) -> dict[str, Readable]:
    """A checkpoint by AutoGPTQ or GPTQModel.

    Raises:
        UnsupportedError: other than 4 or 8 bits, or inputs in the order of their importance.
        CheckpointError: tensors are missing or do not fit each other.
    """
    bits = _bits(fields, (4, 8))
    # the first format has zeros less one
    offset = int(fields.option("checkpoint_format", ("gptq", "gptq_v2"), "gptq") == "gptq")
    symmetric = fields.flag("sym", True)

    def join(base: str) -> QuantisedMatrix:
        numbers = PackedInts(tensors[f"{base}.qweight"], 0, bits)
        scale = _partner(tensors, base, "scales")
        group = _group(numbers.shape[0], scale.shape[0], scale.name)
        _check_order(tensors.get(f"{base}.g_idx"), group)
        zeros = PackedInts(_partner(tensors, base, "qzeros"), 1, bits, offset=offset)
        kept = None if symmetric else zeros
        if symmetric and (zeros.read() != 2 ** (bits - 1)).any():
            raise CheckpointError(f"Tensor {zeros.name!r} is not as config.json's sym calls for.")
        return QuantisedMatrix(f"{base}.weight", numbers, scale, group, kept, True, bits)

    return _read(tensors, "qweight", ("qzeros", "scales", "g_idx"), join)


def read_awq(fields: Fields, tensors: Tensors) -> dict[str, Readable]:
    """A checkpoint by AutoAWQ.

    Raises:
        UnsupportedError: other than 4 bits, or another version than "gemm".
        CheckpointError: tensors are missing or do not fit each other.
    """
    bits = _bits(fields, (4,))
    version = fields.raw.get("version", "gemm")
    if str(version).lower() != "gemm":
        raise UnsupportedError(f"AWQ checkpoints of version 'gemm' are read, not {version!r}.")

    def join(base: str) -> QuantisedMatrix:
        numbers = PackedInts(tensors[f"{base}.qweight"], 1, bits, _AWQ_ORDER)
        scale = _partner(tensors, base, "scales")
        group = _group(numbers.shape[0], scale.shape[0], scale.name)
        zeros = PackedInts(_partner(tensors, base, "qzeros"), 1, bits, _AWQ_ORDER)
        return QuantisedMatrix(f"{base}.weight", numbers, scale, group, zeros, True, bits)

    return _read(tensors, "qweight", ("qzeros", "scales"), join)


def read_packed(bits: int, tensors: Tensors) -> dict[str, Readable]:
    """A checkpoint of compressed-tensors' "pack-quantized".

    Raises:
        UnsupportedError: inputs in the order of their importance.
        CheckpointError: tensors are missing or do not fit each other.
    """

    def join(base: str) -> QuantisedMatrix:
        numbers = PackedInts(tensors[f"{base}.weight_packed"], 1, bits)
        scale = Scales(_partner(tensors, base, "weight_scale"), numbers.shape[0], 1)
        group = _group(numbers.shape[1], scale.shape[1], scale.name)
        _check_order(tensors.get(f"{base}.weight_g_idx"), group)
        point = tensors.get(f"{base}.weight_zero_point")
        zeros = None if point is None else PackedInts(point, 0, bits)
        return QuantisedMatrix(f"{base}.weight", numbers, scale, group, zeros, False, bits)

    beside = ("weight_scale", "weight_zero_point", "weight_g_idx", "weight_shape")
    return _read(tensors, "weight_packed", beside, join)


def _read(
    tensors: Tensors, packed: str, beside: tuple[str, ...], join: Join
) -> dict[str, Readable]:
    found: dict[str, Readable] = {}
    for name, tensor in tensors.items():
        base, _, last = name.rpartition(".")
        if last == packed:
            joined = join(base)
            _check_parts(joined)
            found[joined.name] = joined
        elif not (last in beside and f"{base}.{packed}" in tensors):
            found[name] = tensor
    return found


def _bits(fields: Fields, known: tuple[int, ...]) -> int:
    bits = fields.integer("bits", 4)
    if bits not in known:
        raise UnsupportedError(
            f"The checkpoint's weights have {bits} bits; {' and '.join(map(str, known))} are read."
        )
    return bits


def _partner(tensors: Tensors, base: str, last: str) -> Tensor:
    if f"{base}.{last}" not in tensors:
        raise CheckpointError(f"The weights of {base!r} are quantised and have no tensor {last!r}.")
    return tensors[f"{base}.{last}"]


def _group(inputs: int, groups: int, name: str) -> int:
    if groups < 1 or inputs % groups:
        raise CheckpointError(f"Tensor {name!r} has {groups} groups for {inputs} inputs.")
    return inputs // groups


def _check_order(index: Tensor | None, group: int) -> None:
    if index is None:
        return
    order = index.read()
    if (order != np.arange(len(order)) // group).any():
        raise UnsupportedError(
            f"Tensor {index.name!r} puts inputs into groups by their importance (desc_act, "
            "actorder 'group'), which is not supported; use a checkpoint made without it."
        )


def _check_parts(tensor: QuantisedMatrix) -> None:
    outputs, inputs = tensor.shape
    expected = (inputs // tensor.group, outputs)
    for part in (tensor.scale, tensor.zeros):
        shape = part.shape if part is not None else ()
        if part is not None and (shape if tensor.turned else shape[::-1]) != expected:
            raise CheckpointError(
                f"Tensor {part.name!r} has the shape {list(shape)}, which does not fit the "
                f"{outputs} outputs and {inputs} inputs of {tensor.name!r}."
            )
