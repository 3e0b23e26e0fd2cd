"""Matrices of eight bits, e4m3 or int8, beside a tensor of their scales.

    weight  [C, A]      weight_scale      [], [1], [C], [C, 1] or [C / 128, A / 128]
                        weight_scale_inv  likewise: DeepSeek's name for the same

Owns which shapes of scales are understood. Scales of tokens that lie beside them are not read:
tokens are rounded by their own largest magnitude.
"""

from collections.abc import Mapping

import numpy as np

from models.checkpoints.safetensors import Tensor
from models.errors import CheckpointError
from models.quantised.tensors import QuantisedMatrix, Readable, Scales

_RECTANGLE = 128  # numbers with a scale in common, each way, where there are several
_UNREAD = (".input_scale", ".input_scale_ub", ".output_scale", ".k_scale", ".v_scale", ".q_scale")
_SUFFIXES = ("_scale_inv", "_scale")


def read_eight_bits(tensors: Mapping[str, Tensor]) -> dict[str, Readable]:
    """The checkpoint with its matrices of eight bits joined with their scales.

    Raises:
        CheckpointError: a scale is missing or has another shape than its weights call for.
    """
    found: dict[str, Readable] = {}
    for name, tensor in tensors.items():
        if _is_eight_bits(tensor):
            found[name] = _joined(tensor, _scale_of(tensors, name))
        elif not name.endswith(_UNREAD) and not _is_scale(tensors, name):
            found[name] = tensor
    return found


def _is_eight_bits(tensor: Tensor) -> bool:
    return tensor.dtype.name.startswith("float8") or tensor.dtype == np.int8


def _is_scale(tensors: Mapping[str, Tensor], name: str) -> bool:
    bare = (name.removesuffix(suffix) for suffix in _SUFFIXES if name.endswith(suffix))
    return any(one in tensors and _is_eight_bits(tensors[one]) for one in bare)


def _scale_of(tensors: Mapping[str, Tensor], name: str) -> Tensor:
    for suffix in _SUFFIXES:
        if f"{name}{suffix}" in tensors:
            return tensors[f"{name}{suffix}"]
    raise CheckpointError(
        f"Tensor {name!r} is quantised and {name + _SUFFIXES[0]!r}, its scale, is missing."
    )


def _joined(weight: Tensor, scale: Tensor) -> QuantisedMatrix:
    shape = weight.shape
    grid = (*scale.shape, 1, 1)[:2] if len(scale.shape) < 2 else scale.shape
    sides = [_side(*pair) for pair in zip(shape, grid, strict=False)]
    if len(shape) != 2 or len(grid) != 2 or not all(sides):
        raise CheckpointError(
            f"Tensor {scale.name!r} has the shape {list(scale.shape)}, which is none of scales "
            f"for {list(shape)}."
        )
    return QuantisedMatrix(weight.name, weight, Scales(scale, shape[0], sides[0]), sides[1])


def _side(size: int, count: int) -> int:
    """Of a scale's rectangle: numbers of an axis that it covers; 0 if none is known."""
    if count in (1, size):
        return size // count
    return _RECTANGLE if count == -(-size // _RECTANGLE) else 0
