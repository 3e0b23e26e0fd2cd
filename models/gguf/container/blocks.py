"""The numbers of ggml's blocks: 32 or 256 of one row, with the scales they have in common.

    Q8_0   d (f16) | 32 x int8                                     w = d q
    Q4_K   d, dmin (f16) | 8 x 6-bit scale and min | 256 x 4 bits  w = d scale q - dmin min

Owns that arithmetic, in float32 and in ggml's order, so that results are the same bit for bit.
Refuses to know files and tensors. Source: ggml's `ggml-quants.c` and `ggml-common.h`, as the
package `gguf` restates them in NumPy.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float32, UInt8

Bytes = UInt8[np.ndarray, "blocks bytes"]
Floats = Float32[np.ndarray, "blocks numbers"]

NONLINEAR = np.array(
    [-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113], np.float32
)  # what the 4 bits of IQ4 mean
DOUBLED_FP4 = np.array([0, 1, 2, 3, 4, 6, 8, 12, 0, -1, -2, -3, -4, -6, -8, -12], np.float32)


@dataclass(frozen=True)
class BlockFormat:
    """One of ggml's types: how many numbers a block has, in how many bytes, and which they are."""

    name: str
    numbers: int
    bytes: int
    dequantise: Callable[[Bytes], Floats]


def _halves(blocks: np.ndarray) -> np.ndarray:
    """float16 values of each block, two bytes each, as float32."""
    values: np.ndarray = np.ascontiguousarray(blocks).view("<f2").astype(np.float32)
    return values


def _bits(packed: np.ndarray, run: int, bits: int) -> np.ndarray:
    """[n, bytes] -> [n, bytes * 8 / bits]: of each `run` bytes the lowest bits come first."""
    shifts = np.arange(0, 8, bits, dtype=np.uint8)[:, None]
    runs = packed.reshape(len(packed), -1, 1, run) >> shifts
    numbers: np.ndarray = (runs & np.uint8(2**bits - 1)).reshape(len(packed), -1)
    return numbers


def _scaled(numbers: np.ndarray, scale: np.ndarray, minimum: np.ndarray | None = None) -> Floats:
    """[n, numbers], each run of them with one of the scales [n, runs]."""
    runs = numbers.reshape(*scale.shape, -1).astype(np.float32) * scale[..., None]
    if minimum is not None:
        runs -= minimum[..., None]
    scaled: Floats = runs.reshape(len(numbers), -1)
    return scaled


def _fifth_bits(four: np.ndarray, packed: np.ndarray) -> np.ndarray:
    five: np.ndarray = four | np.unpackbits(packed, axis=1, bitorder="little") << np.uint8(4)
    return five


def _q4_0(blocks: Bytes) -> Floats:
    numbers = _bits(blocks[:, 2:], 16, 4).astype(np.int8) - np.int8(8)
    return _scaled(numbers, _halves(blocks[:, :2]))


def _q4_1(blocks: Bytes) -> Floats:
    numbers = _scaled(_bits(blocks[:, 4:], 16, 4), _halves(blocks[:, :2]))
    numbers += _halves(blocks[:, 2:4])
    return numbers


def _q5_0(blocks: Bytes) -> Floats:
    numbers = _fifth_bits(_bits(blocks[:, 6:], 16, 4), blocks[:, 2:6]).astype(np.int8)
    return _scaled(numbers - np.int8(16), _halves(blocks[:, :2]))


def _q5_1(blocks: Bytes) -> Floats:
    numbers = _fifth_bits(_bits(blocks[:, 8:], 16, 4), blocks[:, 4:8])
    scaled = _scaled(numbers, _halves(blocks[:, :2]))
    scaled += _halves(blocks[:, 2:4])
    return scaled


def _q8_0(blocks: Bytes) -> Floats:
    return _scaled(blocks[:, 2:].view(np.int8), _halves(blocks[:, :2]))


def _q2_k(blocks: Bytes) -> Floats:
    scales, d, least = blocks[:, :16], _halves(blocks[:, 80:82]), _halves(blocks[:, 82:84])
    return _scaled(
        _bits(blocks[:, 16:80], 32, 2),
        d * (scales & np.uint8(15)).astype(np.float32),
        least * (scales >> np.uint8(4)).astype(np.float32),
    )


def _q3_k(blocks: Bytes) -> Floats:
    packed, d = blocks[:, 96:108], _halves(blocks[:, 108:110])
    scales = _bits(packed[:, :8], 8, 4) | _bits(packed[:, 8:], 4, 2) << np.uint8(4)
    low, absent = _bits(blocks[:, 32:96], 32, 2), _bits(blocks[:, :32], 32, 1) ^ np.uint8(1)
    numbers = low.astype(np.int8) - (absent << np.uint8(2)).astype(np.int8)
    return _scaled(numbers, d * (scales.astype(np.int8) - np.int8(32)).astype(np.float32))


def _scales_and_minima(blocks: Bytes) -> tuple[np.ndarray, np.ndarray]:
    """The 8 of each that Q4_K and Q5_K have; 6 bits: four in 4 bytes, four torn into two parts."""
    first, second, mixed = (blocks[:, at : at + 4] for at in (4, 8, 12))
    low, torn = np.uint8(0x3F), np.uint8(0x30)
    scales = [first & low, mixed & np.uint8(15) | first >> np.uint8(2) & torn]
    minima = [second & low, mixed >> np.uint8(4) | second >> np.uint8(2) & torn]
    d, least = _halves(blocks[:, :2]), _halves(blocks[:, 2:4])
    return (
        d * np.concatenate(scales, axis=1).astype(np.float32),
        least * np.concatenate(minima, axis=1).astype(np.float32),
    )


def _q4_k(blocks: Bytes) -> Floats:
    return _scaled(_bits(blocks[:, 16:], 32, 4), *_scales_and_minima(blocks))


def _q5_k(blocks: Bytes) -> Floats:
    fifth = _bits(blocks[:, 16:48], 32, 1) << np.uint8(4)
    return _scaled(_bits(blocks[:, 48:], 32, 4) | fifth, *_scales_and_minima(blocks))


def _q6_k(blocks: Bytes) -> Floats:
    scales = np.ascontiguousarray(blocks[:, 192:208]).view(np.int8).astype(np.float32)
    high = _bits(blocks[:, 128:192], 32, 2) << np.uint8(4)
    numbers = (_bits(blocks[:, :128], 64, 4) | high).astype(np.int8) - np.int8(32)
    return _scaled(numbers, _halves(blocks[:, 208:210]) * scales)


def _iq4_nl(blocks: Bytes) -> Floats:
    return _scaled(NONLINEAR[_bits(blocks[:, 2:], 16, 4)], _halves(blocks[:, :2]))


def _iq4_xs(blocks: Bytes) -> Floats:
    shifts = np.arange(0, 16, 2, dtype=np.uint16)
    high = np.ascontiguousarray(blocks[:, 2:4]).view("<u2") >> shifts & np.uint16(3)
    packed = blocks[:, 4:8, None] >> np.array([0, 4], np.uint8) & np.uint8(15)
    scales = packed.reshape(len(blocks), 8) | high.astype(np.uint8) << np.uint8(4)
    d = _halves(blocks[:, :2]) * (scales.astype(np.int8) - np.int8(32)).astype(np.float32)
    return _scaled(NONLINEAR[_bits(blocks[:, 8:], 16, 4)], d)


def _mxfp4(blocks: Bytes) -> Floats:
    """Halves of powers of two, and twice the numbers of 4 bits; the two smallest are subnormal."""
    exponents = blocks[:, :1].astype(np.uint32)
    small, normal = np.uint32(1 << 21) << exponents % 2, (exponents - 1) << np.uint32(23)
    halves = np.where(exponents < 2, small, normal).view(np.float32)
    return _scaled(DOUBLED_FP4[_bits(blocks[:, 1:], 16, 4)], halves)


# by ggml's number of the type
BLOCK_FORMATS: Mapping[int, BlockFormat] = {
    2: BlockFormat("Q4_0", 32, 18, _q4_0),
    3: BlockFormat("Q4_1", 32, 20, _q4_1),
    6: BlockFormat("Q5_0", 32, 22, _q5_0),
    7: BlockFormat("Q5_1", 32, 24, _q5_1),
    8: BlockFormat("Q8_0", 32, 34, _q8_0),
    10: BlockFormat("Q2_K", 256, 84, _q2_k),
    11: BlockFormat("Q3_K", 256, 110, _q3_k),
    12: BlockFormat("Q4_K", 256, 144, _q4_k),
    13: BlockFormat("Q5_K", 256, 176, _q5_k),
    14: BlockFormat("Q6_K", 256, 210, _q6_k),
    20: BlockFormat("IQ4_NL", 32, 18, _iq4_nl),
    23: BlockFormat("IQ4_XS", 256, 136, _iq4_xs),
    39: BlockFormat("MXFP4", 32, 17, _mxfp4),
}
