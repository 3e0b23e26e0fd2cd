"""Words of 32 bits to numbers in 16-bit floats, in registers: a few instructions for two weights.

    even spacing   w >> 4 i & 15 | bits of 128      128 + n: a bfloat16 of 128 counts in ones
                   - 128, or - 136                  n, or n - 8: exact
    8 bits         w & 127 | bits of 128, less w & 128 | bits of 128, which is 128 or 256
    NF4            `prmt` looks four numbers up at once: one byte of the first eight values, one of
                   the last, and picks by the highest bit; twice, for a value has two bytes

In float16 1024 counts in ones. A word's halves hold neighbours, so that its planes come out as the
tensor core wants them in its registers: no value moves between threads.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.experimental.mosaic import gpu as mgpu
from jax.experimental.mosaic.gpu import utils as _utils
from jax.experimental.mosaic.gpu.fragmented_array import Tiling
from jax.experimental.pallas import mosaic_gpu as plgpu
from jax.extend.mlir import ir
from jax.extend.mlir.dialects import vector

from pallas_kernels.quantized.weights import NF4, Int4Weight, Nf4Weight, QuantizedWeight

utils: Any = _utils  # JAX 0.10 has no inline_ptx, and does not run this file
_inline: Any = plgpu.inline_mgpu  # has no annotations

# One thread of a row's four holds four neighbouring words: one load of 16 bytes.
WORDS = plgpu.Layout.TILED(
    Tiling(((64, 16), (16, 16), (8, 16), (4,))),
    warp_dims=(-7,), lane_dims=(-3, -2), vector_dim=-1,
)  # fmt: skip


def planes(
    words: Any, kind: type[QuantizedWeight], has_low: bool, dtype: Any, interpret: bool
) -> list[Any]:
    """[64, 16] words as the numbers of [64, 32] weights each, in floats of type `dtype`."""
    floats = partial(_floats, dtype=dtype, interpret=interpret)
    if kind is Nf4Weight:
        return [floats(plane) for plane in _look_up(words, dtype, interpret)]
    ones = 128 if dtype == jnp.bfloat16 else 1024
    both = int(_bits((ones,), dtype)[0]) * 0x10001
    masked = partial(_masked, bits=both, interpret=interpret)
    if kind is Int4Weight:
        zero = jnp.asarray(ones if has_low else ones + 8, dtype)
        return [floats(masked(words >> 4 * i, 0x000F000F)) - zero for i in range(4)]
    shifted = [words >> 8 * i for i in range(2)]
    return [floats(masked(w, 0x007F007F)) - floats(masked(w, 0x00800080)) for w in shifted]


def _look_up(words: Any, dtype: Any, interpret: bool) -> list[Any]:
    """The four planes of NF4 values of the numbers in `words`, two values in a word."""
    permute = partial(_permute, interpret=interpret)
    table = _bits(NF4, dtype)
    words = permute(words, words, 0x3120)  # numbers 0 1 of both halves, then 2 3
    places = words & 0x77777777
    last_eight = words >> 1 & 0x44444444 | 0x32103210
    found = []
    for shift in (0, 16):
        low, high = (
            permute(
                permute(first, second, places >> shift),
                permute(third, fourth, places >> shift),
                last_eight >> shift,
            )
            for first, second, third, fourth in (
                _quadruples(table & 0xFF),
                _quadruples(table >> 8),
            )
        )
        found += [permute(low, high, 0x6240), permute(low, high, 0x7351)]
    return found


def _bits(values: tuple[float | int, ...], dtype: Any) -> Any:
    return np.asarray(values, np.float32).astype(dtype).view(np.uint16).astype(np.int64)


def _quadruples(table: Any) -> list[int]:
    """Bytes, four in a word."""
    return [int(word) for word in table.astype(np.uint8).view("<i4")]


def _masked(words: Any, mask: int, bits: int, interpret: bool) -> Any:
    """words & mask | bits."""
    if interpret:
        return words & mask | bits
    return _instruction("lop3.b32", words, mask, bits, 0xEA)


def _permute(low: Any, high: Any, places: Any, interpret: bool) -> Any:
    """`prmt`: byte i is that one of the eight in `low` and `high` that nibble i of `places` says.

    Each is an array of words or one word.
    """
    if interpret:
        return _interpreted_permute(low, high, places)
    return _instruction("prmt.b32", low, high, places)


def _instruction(name: str, *operands: Any) -> Any:
    """One instruction of PTX on each word of these arrays; numbers are operands as they are.

    Written out for the compiler keeps such numbers in registers; those of MLIR's it moves there for
    every use.
    """
    arrays = [operand for operand in operands if not isinstance(operand, int)]
    places = iter(range(1, len(arrays) + 1))
    written = [f"{o}" if isinstance(o, int) else f"${next(places)}" for o in operands]
    ptx = f"{name} $0, {', '.join(written)};"

    def run(*registers: Any) -> Any:
        found = np.empty_like(registers[0])
        for place in np.ndindex(found.shape):
            fours = [array[place] for array in registers]
            words = []
            for i in range(4):
                index = ir.DenseI64ArrayAttr.get([i])
                given = [vector.extract(four, [], index) for four in fours]
                words.append(utils.inline_ptx(ptx, *given, result_types=given[0].type))
            found[place] = vector.from_elements(fours[0].type, words)
        return found

    return _registers(run, arrays, WORDS, (64, 16), jnp.int32, WORDS)


def _interpreted_permute(low: Any, high: Any, places: Any) -> Any:
    low, high, places = (jnp.asarray(value, jnp.int32) for value in (low, high, places))
    found = jnp.zeros((), jnp.int32)
    for i in range(4):
        place = places >> 4 * i & 7
        byte = jnp.where(place < 4, low, high) >> 8 * (place & 3) & 0xFF
        found = found | byte << 8 * i
    return found


def _floats(words: Any, dtype: Any, interpret: bool) -> Any:
    """[64, 16] words as the [64, 32] floats that are their halves."""
    if interpret:
        pairs = lax.bitcast_convert_type(words.reshape(64, 4, 4), dtype)  # thread, word, half
        return pairs.transpose(0, 2, 1, 3).reshape(64, 32)

    def run(registers: Any) -> Any:
        kind = ir.VectorType.get((8,), utils.dtype_to_ir_type(dtype))
        found = np.empty(plgpu.Layout.WGMMA.to_mgpu().registers_shape((64, 32)), dtype=object)
        by_row = found.reshape(4, 2)  # eight columns, row of a thread's two
        for row, register in enumerate(registers.flat):
            halves = vector.bitcast(kind, register)
            for i in range(4):
                by_row[i, row] = utils.vector_slice(halves, slice(2 * i, 2 * i + 2))
        return found

    return _registers(run, [words], WORDS, (64, 32), dtype, plgpu.Layout.WGMMA)


def join(parts: list[Any], interpret: bool) -> Any:
    """[64, n] arrays side by side."""
    if interpret:
        return jnp.concatenate(parts, axis=1)
    shape, kind = (64, sum(part.shape[1] for part in parts)), plgpu.Layout.WGMMA

    def run(*registers: Any) -> Any:
        return np.concatenate(registers, axis=1)

    return _registers(run, parts, kind, shape, parts[0].dtype, kind)


def _registers(
    run: Callable[..., Any], arrays: list[Any], layout: Any, shape: Any, dtype: Any, into: Any
) -> Any:
    """The array in the registers that `run` makes from the registers of `arrays`."""

    def wrapped(_: Any, *fragments: Any) -> Any:
        signed = True if dtype == jnp.int32 else None
        found = run(*(fragment.registers for fragment in fragments))
        return mgpu.FragmentedArray(_registers=found, _layout=into.to_mgpu(), _is_signed=signed)

    made = plgpu.ShapeDtypeStruct(shape, dtype, layout=into)
    return _inline(arg_types=(layout,) * len(arrays), return_type=made)(wrapped)(*arrays)
