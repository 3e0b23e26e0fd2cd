"""Words of 16 bits into bfloat16 numbers, in registers: masks, shifts and one product or difference
for two numbers.

A thread of the tensor core's left operand holds two numbers of a row that lie side by side, in 32
bits. It loads words as if they were such numbers; the same bits of two words are then two numbers
side by side, a few columns on.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax.numpy as jnp
import numpy as np
from jax.experimental.mosaic.gpu import fragmented_array as fa
from jax.experimental.mosaic.gpu import utils
from jax.experimental.pallas import mosaic_gpu as plgpu
from jaxlib.mlir import ir
from jaxlib.mlir.dialects import arith, llvm

from pallas_kernels.moe.formats import (
    FORMATS,
    LANES,
    MX_BIAS,
    MX_GROUP,
    Fp8Experts,
    Int4Experts,
    Int8Experts,
    Mxfp4Experts,
    numbers,
)

_TILE = 8  # columns of a register in the tensor core's layout
_HALF = 2  # of a register's place, after its columns: whether it has row 0 .. 7 or 8 .. 15
Bits = Any  # 32 of them: what has & | << >> with itself and integers


def both(half: int) -> int:
    """16 bits, twice."""
    return half << 16 | half


def shift(word: Bits, left: int) -> Bits:
    return word << left if left > 0 else word >> -left if left < 0 else word


def fp8_bits(word: Bits, slot: int) -> tuple[str, Bits, Bits]:
    """seeeemmm as s0000eeeemmm0000, which is 2^-120 of it."""
    sign = shift(word, 8 - 8 * slot) & both(0x8000)
    return "mul", sign | shift(word, 4 - 8 * slot) & both(0x07F0), both(0x7B80)


def int8_bits(word: Bits, slot: int) -> tuple[str, Bits, Bits]:
    """128 + its low 7 bits, less 128 or, by its sign, 256."""
    low = shift(word, -8 * slot) & both(0x00FF) | both(0x4300)
    return "sub", low & both(0xFF7F), low & both(0xFF80)


def int4_bits(word: Bits, slot: int) -> tuple[str, Bits, Bits]:
    """128 + the number + 8, less 136."""
    return "sub", shift(word, -4 * slot) & both(0x000F) | both(0x4300), both(0x4308)


def mxfp4_bits(word: Bits, slot: int) -> tuple[str, Bits, None]:
    """seem as s000000eem000000, which is 2^-126 of it; the factor comes with the group's scale."""
    sign = shift(word, 12 - 4 * slot) & both(0x8000)
    return "mul", sign | shift(word, 6 - 4 * slot) & both(0x01C0), None


BITS: Mapping[type[Any], Callable[[Bits, int], tuple[str, Bits, Any]]] = {
    Fp8Experts: fp8_bits,
    Int8Experts: int8_bits,
    Int4Experts: int4_bits,
    Mxfp4Experts: mxfp4_bits,
}


def to_numbers(words: Any, exponents: Sequence[Any], kind: Any, interpret: bool) -> Any:
    """[64, W] words as [64, K] numbers; `exponents` [64] of each group of 32, in MXFP4."""
    if interpret:
        return _interpreted(words, exponents, kind)
    slots = FORMATS[kind].slots
    shape = words.shape[0], words.shape[1] * slots

    inline: Any = plgpu.inline_mgpu(
        arg_types=(plgpu.Layout.WGMMA, *[plgpu.Layout.WGMMA.reduce(1)] * len(exponents)),
        return_type=plgpu.ShapeDtypeStruct(shape, jnp.bfloat16, layout=plgpu.Layout.WGMMA),
    )

    def convert(_: Any, words: Any, *exponents: Any) -> Any:
        factors = [_factors(vector) for vector in exponents]
        found = np.empty(fa.WGMMA_LAYOUT.registers_shape(shape), dtype=object)
        for place, register in np.ndenumerate(words.registers):
            word, (across, tile, *rest) = _Word(utils.bitcast(register, _i32())), place
            for slot in range(slots):
                target = numbers_tile(tile, slot, slots)
                row = rest[_HALF]
                factor = factors[target * _TILE // MX_GROUP][row] if factors else None
                found[(across, target, *rest)] = _finish(*BITS[kind](word, slot), factor)
        return fa.FragmentedArray(_registers=found, _layout=fa.WGMMA_LAYOUT, _is_signed=None)

    return inline(convert)(words, *exponents)


def numbers_tile(tile: int, slot: int, slots: int) -> int:
    """Which eight columns of numbers the words of a tile of eight columns hold in a slot."""
    block, within = divmod(tile, LANES // _TILE)
    return (block * slots + slot) * (LANES // _TILE) + within


class _Word:
    """32 bits in a register."""

    def __init__(self, value: Any):
        self.value = value

    def _with(self, operation: Any, other: Any) -> "_Word":
        right = other.value if isinstance(other, _Word) else _constant(other)
        return _Word(operation(self.value, right))

    def __and__(self, other: Any) -> "_Word":
        return self._with(arith.andi, other)

    def __or__(self, other: Any) -> "_Word":
        return self._with(arith.ori, other)

    def __lshift__(self, other: Any) -> "_Word":
        return self._with(arith.shli, other)

    def __rshift__(self, other: Any) -> "_Word":
        return self._with(arith.shrui, other)


def _constant(value: int) -> Any:
    return utils.c(value - (value >> 31 << 32), _i32())


def _i32() -> Any:
    return ir.IntegerType.get_signless(32)


def _finish(operation: str, left: _Word, right: Any, factor: Any) -> Any:
    """left * right or left - right in bfloat16, of two numbers."""
    other = (
        factor if right is None else right.value if isinstance(right, _Word) else _constant(right)
    )
    found: Any = llvm.inline_asm(
        _i32(), [left.value, other], f"{operation}.bf16x2 $0, $1, $2;", "=r,r,r"
    )
    return utils.bitcast(found, ir.VectorType.get((2,), ir.BF16Type.get()))


def _factors(exponents: Any) -> list[Any]:
    """2^n as two bfloat16, for each row that this thread has numbers of."""
    found = []
    for register in exponents.registers.flat:
        byte = register
        if isinstance(byte.type, ir.VectorType):
            byte = utils.bitcast(byte, ir.IntegerType.get_signless(8))
        wide = _Word(arith.extui(_i32(), byte)) << 7
        found.append((wide | wide << 16).value)
    return found


def _interpreted(words: Any, exponents: Sequence[Any], kind: Any) -> Any:
    found = numbers(words, FORMATS[kind])
    if exponents:
        scale = jnp.stack(exponents, axis=1).astype(jnp.int32) - MX_BIAS
        found = found * jnp.repeat(jnp.ldexp(jnp.float32(1), scale), MX_GROUP, axis=1)
    return found.astype(jnp.bfloat16)
