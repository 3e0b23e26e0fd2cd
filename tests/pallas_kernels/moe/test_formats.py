"""Experts' weights of checkpoints are repacked exactly, and their bits mean what they should."""

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest

from pallas_kernels.errors import KernelError
from pallas_kernels.moe import (
    dequantize,
    from_fp8,
    from_fp8_blocks,
    from_gpt_oss,
    from_int4,
    from_int8,
    side_by_side,
)
from pallas_kernels.moe.checkpoints import pack
from pallas_kernels.moe.formats import FORMATS, MX_BIAS, Mxfp4Experts, scales
from pallas_kernels.quantized.weights import Int4Weight
from pallas_kernels.quantized.weights import dequantize as dequantize_one
from pallas_kernels.quantized.weights import pack as pack_words

E2M1 = np.array([0, 0.5, 1, 1.5, 2, 3, 4, 6])
E2M1 = np.concatenate([E2M1, -E2M1])


def exactly(packed, matrices):
    """`matrices` [E, C, A] as a checkpoint means them, in float64."""
    got = dequantize(jax.tree.map(jnp.asarray, packed))
    np.testing.assert_array_equal(np.asarray(got, np.float64), matrices.swapaxes(1, 2))


def fp8(rng, *shape):
    """Every number of e4m3."""
    codes = np.where(np.arange(256) & 0x7F == 0x7F, 0, np.arange(256)).astype(np.uint8)
    return rng.choice(codes, shape).view(ml_dtypes.float8_e4m3fn)


def powers(rng, *shape):
    return (2.0 ** rng.integers(-9, 3, shape)).astype(np.float32)


@pytest.mark.parametrize("alternate", [False, True])
def test_gpt_oss(alternate):
    rng = np.random.default_rng(0)
    blocks = rng.integers(0, 256, (3, 10, 4, 16)).astype(np.uint8)
    scales = rng.integers(60, 129, (3, 10, 4)).astype(np.uint8)
    values = np.empty((3, 10, 4, 32))
    values[..., ::2], values[..., 1::2] = E2M1[blocks & 15], E2M1[blocks >> 4]
    matrices = (values * 2.0 ** (scales[..., None] - 127.0)).reshape(3, 10, 128)
    if alternate:
        matrices = np.concatenate([matrices[:, ::2], matrices[:, 1::2]], axis=1)
    exactly(from_gpt_oss(blocks, scales, alternate=alternate), matrices)


def test_deepseek():
    rng = np.random.default_rng(0)
    weight, scale = fp8(rng, 2, 200, 256), powers(rng, 2, 2, 2)
    wide = np.repeat(np.repeat(scale, 128, 1)[:, :200], 128, 2)
    exactly(from_fp8_blocks(weight, scale), weight.astype(np.float64) * wide)


def test_scales_of_columns():
    rng = np.random.default_rng(0)
    scale = powers(rng, 2, 24)
    weight, whole = fp8(rng, 2, 24, 64), rng.integers(-128, 128, (2, 24, 64)).astype(np.int8)
    exactly(from_fp8(weight, scale), weight.astype(np.float64) * scale[..., None])
    exactly(from_int8(whole, scale), whole.astype(np.float64) * scale[..., None])
    both = side_by_side(from_int8(whole, scale), from_int8(-1 - whole, scale))
    exactly(both, np.concatenate([whole, -1.0 - whole], 1) * np.tile(scale, 2)[..., None])


def test_gptq_and_awq():
    rng = np.random.default_rng(0)
    experts = [
        Int4Weight(pack_words(rng.integers(0, 16, (24, 128))), powers(rng, 2, 24)) for _ in range(3)
    ]
    exactly(from_int4(experts), np.stack([np.asarray(dequantize_one(w)).T for w in experts]))
    with pytest.raises(KernelError, match="zeros in the middle"):
        from_int4([experts[0]._replace(low=experts[0].scale)])


def test_refuses_by_name():
    ones = np.ones((1, 2, 1, 16), np.uint8)
    with pytest.raises(KernelError, match=r"up to 2 are taken, not 2\^2"):
        from_gpt_oss(ones, np.full((1, 2, 1), 129, np.uint8))
    with pytest.raises(KernelError, match="a multiple of 64, not 32"):
        from_gpt_oss(ones, np.full((1, 2, 1), 100, np.uint8))
    with pytest.raises(KernelError, match="multiple of 128, not 64"):
        from_fp8_blocks(fp8(np.random.default_rng(0), 1, 8, 64), np.ones((1, 1, 1), np.float32))


@pytest.fixture
def mosaic_numbers():
    pytest.importorskip("absl")
    from pallas_kernels.moe import mosaic_numbers

    return mosaic_numbers


@pytest.mark.parametrize("kind", FORMATS, ids=lambda kind: kind.__name__)
def test_bits_become_numbers(mosaic_numbers, kind):
    """What the kernel does with two words, done in NumPy: exact for every code."""
    form = FORMATS[kind]
    words = np.arange(2**16, dtype=np.uint32)
    pairs = words | np.roll(words, 7) << np.uint32(16)
    for slot in range(form.slots):
        operation, left, right = mosaic_numbers.BITS[kind](pairs, slot)
        if right is None:
            right = np.uint32(mosaic_numbers.both(MX_BIAS << 7))  # a scale of 1
        right = np.broadcast_to(np.asarray(right, np.uint32), left.shape)
        for half in (0, 16):
            a, b = (
                (bits >> np.uint32(half)).astype(np.uint16).view(ml_dtypes.bfloat16)
                for bits in (left, right)
            )
            a, b = a.astype(np.float64), b.astype(np.float64)
            got = a * b if operation == "mul" else a - b
            codes = (pairs >> np.uint32(half + form.bits * slot)) & np.uint32(2**form.bits - 1)
            want = np.asarray(form.number(jnp.asarray(codes)), np.float64)
            real = ~np.isnan(want)
            assert real.sum() >= 0.99 * len(want)
            np.testing.assert_array_equal(got[real], want[real])


@pytest.mark.parametrize("bits", [4, 8])
def test_words_lie_where_numbers_go(mosaic_numbers, bits):
    A, slots = 128, 16 // bits
    for row in range(A):
        codes = np.zeros(A, np.uint8)
        codes[row] = 1
        words = pack(codes, bits)
        place = int(words.nonzero()[0][0])
        slot = int(words[place]).bit_length() // bits
        assert mosaic_numbers.numbers_tile(place // 8, slot, slots) * 8 + place % 8 == row


def test_a_scale_is_a_power_of_two():
    bytes_ = jnp.array([[[MX_BIAS - 3], [MX_BIAS]]], jnp.uint8)
    weight = Mxfp4Experts(jnp.zeros((1, 1, 16), jnp.uint16), bytes_)
    assert scales(weight).ravel().tolist() == [0.125, 1.0]
