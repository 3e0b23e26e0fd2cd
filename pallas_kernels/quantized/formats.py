"""Checkpoint formats of 4 and 8 bits, repacked: their values stay what they were, to the last bit.

    GPTQ         qweight int32 [A / 8, C], first of 8 lowest; qzeros [g, C / 8]; scales [g, C]
    AWQ          qweight int32 [A, C / 8], columns 0 2 4 6 1 3 5 7 from the lowest; qzeros likewise
    compressed   weight_packed int32 [C, A / 8], first lowest; weight_zero_point [C / 8, g];
    tensors      weight_scale [C, g]
    bnb NF4      two in a byte, first highest; a largest magnitude for every 64, 8 bits or float32
    GGUF Q4_0    32 in 18 bytes:   d f16, 16 bytes: places 0 .. 15 low, 16 .. 31 high
         Q8_0    32 in 34 bytes:   d f16, 32 bytes
         Q4_K    256 in 144 bytes: d f16, dmin f16, 8 scales and 8 minima of 6 bits in 12 bytes,
                 4 times 32 bytes: 32 places low, the next 32 high

Owns arithmetic on whole arrays; files, and what to do with the order of channels that GPTQ's
`g_idx` may ask for, are the loader's.
"""

import json
from collections.abc import Mapping

import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, Int, Int32, UInt8

from pallas_kernels.quantized.weights import Int4Weight, Int8Weight, Nf4Weight, pack

_AWQ_ORDER = (0, 2, 4, 6, 1, 3, 5, 7)


def from_gptq(
    qweight: Int32[np.ndarray, "A8 C"],
    qzeros: Int32[np.ndarray, "g C8"],
    scales: Float[np.ndarray, "g C"],
    *,
    zero_offset: int = 1,
) -> Int4Weight:
    """`zero_offset` is 1 where zeros were stored less one, as AutoGPTQ's first format has them."""
    zeros = _eights(qzeros).reshape(len(qzeros), -1) + zero_offset  # [g, C]
    return _affine(_eights(qweight.T).reshape(qweight.shape[1], -1), zeros, scales)


def from_awq(
    qweight: Int32[np.ndarray, "A C8"],
    qzeros: Int32[np.ndarray, "g C8"],
    scales: Float[np.ndarray, "g C"],
) -> Int4Weight:
    """From AutoAWQ's GEMM format."""
    back = np.argsort(_AWQ_ORDER)
    numbers, zeros = (
        _eights(words)[..., back].reshape(len(words), -1) for words in (qweight, qzeros)
    )
    return _affine(numbers.T, zeros, scales)


def from_compressed_tensors(
    weight_packed: Int32[np.ndarray, "C A8"],
    weight_scale: Float[np.ndarray, "C g"],
    weight_zero_point: Int32[np.ndarray, "C8 g"] | None = None,
) -> Int4Weight:
    """From "pack-quantized" with 4 bits; one group where there is one scale a column."""
    numbers = _eights(weight_packed).reshape(len(weight_packed), -1)
    if weight_zero_point is None:
        zeros = np.full(weight_scale.T.shape, 8)
    else:  # eight columns in a word
        zeros = _eights(weight_zero_point.T).reshape(weight_scale.T.shape)
    return _affine(numbers, zeros, weight_scale.T)


def from_nf4(
    packed: UInt8[np.ndarray, "..."],
    absmax: Float[np.ndarray, " blocks"],
    shape: tuple[int, int],
) -> Nf4Weight:
    """From bitsandbytes; `shape` is (C, A), its blocks run along A.

    What was quantised twice, `nested_absmax` gives as numbers.
    """
    numbers = np.stack([packed.reshape(-1) >> 4, packed.reshape(-1) & 15], axis=1).reshape(shape)
    scale = absmax.astype(np.float32).reshape(shape[0], -1).T
    return Nf4Weight(pack(numbers), jnp.asarray(np.ascontiguousarray(scale)))


def nested_absmax(
    absmax: UInt8[np.ndarray, " blocks"],
    nested: Float[np.ndarray, " few"],
    nested_map: Float[np.ndarray, "256"],
    state: UInt8[np.ndarray, " json"],
) -> Float[np.ndarray, " blocks"]:
    """bitsandbytes' doubly quantised magnitudes; `state` is its JSON, stored as bytes."""
    facts: Mapping[str, float] = json.loads(state.tobytes())
    size = int(facts.get("nested_blocksize", 256))
    found: Float[np.ndarray, " blocks"] = (
        nested_map[absmax] * np.repeat(nested, size)[: len(absmax)]
    )
    return found + np.float32(facts["nested_offset"])


def from_q4_0(rows: UInt8[np.ndarray, "C bytes"]) -> Int4Weight:
    """From GGUF."""
    blocks = rows.reshape(len(rows), -1, 18)
    numbers = np.concatenate([blocks[..., 2:] & 15, blocks[..., 2:] >> 4], axis=-1)
    scale = _halves(blocks[..., :2])[..., 0]
    return Int4Weight(pack(numbers.reshape(len(rows), -1)), _by_group(scale))


def from_q8_0(rows: UInt8[np.ndarray, "C bytes"]) -> Int8Weight:
    """From GGUF."""
    blocks = rows.reshape(len(rows), -1, 34)
    scale = _halves(blocks[..., :2])[..., 0]
    return Int8Weight(pack(blocks[..., 2:].reshape(len(rows), -1), 8), _by_group(scale))


def from_q4_k(rows: UInt8[np.ndarray, "C bytes"]) -> Int4Weight:
    """From GGUF."""
    blocks = rows.reshape(len(rows), -1, 144)
    halves, small, quarters = (
        _halves(blocks[..., :4]),
        blocks[..., 4:16],
        blocks[..., 16:].reshape(*blocks.shape[:2], 4, 1, 32),
    )
    numbers = np.concatenate([quarters & 15, quarters >> 4], axis=3)
    # bytes 0 .. 3 and 4 .. 7: four scales, four minima, and two high bits of the other four, of
    # which bytes 8 .. 11 have the low bits
    first, second, third = small[..., :4], small[..., 4:8], small[..., 8:]
    scales = np.concatenate([first & 63, third & 15 | first >> 6 << 4], axis=-1)
    minima = np.concatenate([second & 63, third >> 4 | second >> 6 << 4], axis=-1)
    return Int4Weight(
        pack(numbers.reshape(len(rows), -1)),
        _by_group(halves[..., :1] * scales.astype(np.float32)),
        _by_group(-halves[..., 1:] * minima.astype(np.float32)),
    )


def _halves(blocks: UInt8[np.ndarray, "... bytes"]) -> Float[np.ndarray, "... halves"]:
    """Pairs of bytes as float16, in float32."""
    return np.ascontiguousarray(blocks).view(np.float16).astype(np.float32)


def _by_group(values: Float[np.ndarray, "C ..."]) -> Float[jnp.ndarray, "g C"]:
    return jnp.asarray(np.ascontiguousarray(values.reshape(len(values), -1).T))


def _eights(words: Int32[np.ndarray, "rows columns"]) -> Int[np.ndarray, "rows columns 8"]:
    """The eight numbers of 4 bits in each of 32, the lowest first."""
    shifts = np.arange(0, 32, 4, dtype=np.uint32)
    numbers: Int[np.ndarray, "rows columns 8"] = words.astype(np.uint32)[..., None] >> shifts & 15
    return numbers.astype(np.int32)


def _affine(
    numbers: Int[np.ndarray, "C A"],
    zeros: Int[np.ndarray, "g C"],
    scales: Float[np.ndarray, "g C"],
) -> Int4Weight:
    """scale * (number - zero)."""
    scale = scales.astype(np.float32)
    low = None if (zeros == 8).all() else jnp.asarray(-scale * zeros.astype(np.float32))
    return Int4Weight(pack(numbers), jnp.asarray(scale), low)
