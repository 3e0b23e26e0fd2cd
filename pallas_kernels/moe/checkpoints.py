"""Experts' weights from the layouts of checkpoints, exactly.

    gpt-oss      *_blocks uint8 [E, C, A / 32, 16], the even number in the low bits
                 *_scales uint8 [E, C, A / 32], 2^(n - 127); gate and up in alternate columns
    DeepSeek-V3  weight e4m3 [C, A] an expert, weight_scale_inv [C / 128, A / 128], rounded up
    8 bits       weight e4m3 or int8 [C, A], a scale a column
    4 bits       `quantized.Int4Weight`, from GPTQ or AWQ

A matrix of experts is [A, C] and a checkpoint's is [C, A]. Owns arithmetic on whole NumPy arrays;
files are the loader's.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
from jaxtyping import Float, Int8, Shaped, UInt8

from pallas_kernels.errors import KernelError
from pallas_kernels.moe.formats import (
    LANES,
    MX_BIAS,
    Fp8Experts,
    Int4Experts,
    Int8Experts,
    Mxfp4Experts,
    PackedExperts,
)
from pallas_kernels.quantized.weights import Int4Weight, unpack

_BLOCK = 128  # rows and columns that share a scale in DeepSeek's checkpoints


def from_gpt_oss(
    blocks: UInt8[np.ndarray, "E C b 16"],
    scales: UInt8[np.ndarray, "E C b"],
    *,
    alternate: bool = False,
) -> Mxfp4Experts:
    """`alternate` is for gate-up: columns 0 2 4 .. are the gate's and 1 3 5 .. up's.

    Raises:
        KernelError: a scale is above 2, which is more than weights have.
    """
    if scales.max() > 127 + 1:
        raise KernelError(f"MXFP4 scales up to 2 are taken, not 2^{int(scales.max()) - 127}.")
    if alternate:
        blocks, scales = (np.concatenate([a[:, ::2], a[:, 1::2]], 1) for a in (blocks, scales))
    codes = np.stack([blocks & 15, blocks >> 4], -1).reshape(*blocks.shape[:2], -1)
    stored = (scales.astype(np.int32) - 127 + MX_BIAS).astype(np.uint8)
    return Mxfp4Experts(pack(codes, 4), _of_groups(stored))


def from_fp8_blocks(weight: Any, scale_inv: Float[np.ndarray, "E C128 A128"]) -> Fp8Experts:
    """From DeepSeek's layout; `weight` is e4m3 [E, C, A]."""
    _, C, A = weight.shape
    if A % _BLOCK:
        raise KernelError(f"Blocks of scales take rows in a multiple of {_BLOCK}, not {A}.")
    by_column = np.repeat(scale_inv.astype(np.float32), _BLOCK, 1)[:, :C]  # [E, C, A / 128]
    return Fp8Experts(pack(weight.view(np.uint8), 8), _of_groups(by_column))


def from_fp8(weight: Any, scale: Float[np.ndarray, "E C"]) -> Fp8Experts:
    """`weight` is e4m3 [E, C, A], with a scale a column."""
    return Fp8Experts(
        pack(weight.view(np.uint8), 8), _of_groups(scale.astype(np.float32)[..., None])
    )


def from_int8(weight: Int8[np.ndarray, "E C A"], scale: Float[np.ndarray, "E C"]) -> Int8Experts:
    """With a scale a column."""
    return Int8Experts(
        pack(weight.view(np.uint8), 8), _of_groups(scale.astype(np.float32)[..., None])
    )


def from_int4(weights: Sequence[Int4Weight]) -> Int4Experts:
    """One of each expert.

    Raises:
        KernelError: their zeros differ, as AWQ's may.
    """
    if any(weight.low is not None for weight in weights):
        raise KernelError("Experts of 4 bits are taken with zeros in the middle, not of their own.")
    codes = [np.asarray(unpack(weight.words, bits=4)) for weight in weights]
    scale: Any = np.stack([np.asarray(weight.scale) for weight in weights])
    return Int4Experts(pack(np.stack(codes).astype(np.uint8), 4), scale)


def side_by_side(gate: PackedExperts, up: PackedExperts) -> PackedExperts:
    """The columns of the gate, then those of up."""
    words: Any = np.concatenate([gate.words, up.words], axis=1)
    scale: Any = np.concatenate([gate.scale, up.scale], axis=2)
    return type(gate)(words, scale)


def pack(codes: UInt8[np.ndarray, "*n A"], bits: int) -> Any:
    """Numbers of `bits` bits into words uint16 [..., W], in the order of `formats`.

    Raises:
        KernelError: A is no multiple of the numbers in 16 words.
    """
    slots, A = 16 // bits, codes.shape[-1]
    if A % (slots * LANES):
        raise KernelError(f"Rows of {bits}-bit experts are a multiple of {slots * LANES}, not {A}.")
    apart = codes.reshape(*codes.shape[:-1], -1, slots, LANES).astype(np.uint16)
    shifts = np.arange(0, 16, bits, dtype=np.uint16)[:, None]
    return np.bitwise_or.reduce(apart << shifts, axis=-2).reshape(*codes.shape[:-1], -1)


def _of_groups(scale: Shaped[np.ndarray, "E C g"]) -> Any:
    """[E, C, g] as [E, g, C]; it stays on the host until somebody places it."""
    return np.ascontiguousarray(scale.swapaxes(1, 2))
