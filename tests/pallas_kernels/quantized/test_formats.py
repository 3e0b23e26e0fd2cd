"""Checkpoint formats: repacked to the last bit, against each format's own rule in plain numpy."""

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pallas_kernels.errors import KernelError
from pallas_kernels.quantized import formats
from pallas_kernels.quantized.weights import NF4, dequantize, group_size, pack, unpack


def eights(numbers, order=range(8)):
    """[..., 8 n] numbers of 4 bits as [..., n] int32; place i takes number order[i]."""
    split = numbers.reshape(*numbers.shape[:-1], -1, 8).astype(np.uint32)
    words = sum(split[..., number] << np.uint32(4 * place) for place, number in enumerate(order))
    return words.astype(np.uint32).view(np.int32)


def drawn(seed, A, C, group):
    rng = np.random.default_rng(seed)
    numbers, zeros = rng.integers(0, 16, (A, C)), rng.integers(1, 16, (A // group, C))
    scales = rng.random((A // group, C)).astype(np.float16)
    wide = np.repeat(scales.astype(np.float64), group, 0)
    return numbers, zeros, scales, wide * (numbers - np.repeat(zeros, group, 0))


def rows(seed, C, blocks, size, halves):
    """[C, blocks * size] random bytes, the first of each block being so many sane float16."""
    rng = np.random.default_rng(seed)
    found = rng.integers(0, 256, (C, blocks, size)).astype(np.uint8)
    scales = rng.standard_normal((C, blocks, halves)).astype(np.float16)
    found[..., : 2 * halves] = scales.view(np.uint8)
    return found.reshape(C, -1)


few = settings(max_examples=3, deadline=None)
seeds = st.integers(0, 99)
sizes = st.sampled_from([(128, 8, 32), (256, 24, 64)])


@few
@given(seeds, st.sampled_from([4, 8]))
def test_numbers_survive_packing(seed, bits):
    numbers = np.random.default_rng(seed).integers(0, 2**bits, (3, 256))
    np.testing.assert_array_equal(unpack(pack(numbers, bits), bits), numbers)


def test_a_word_holds_what_a_thread_multiplies():
    words = np.asarray(pack((np.arange(128) == 32 * 2 + 8 * 3 + 2 * 1 + 1)[None].astype(int)))
    assert np.flatnonzero(words).tolist() == [4 * 1 + 3] and words.max() == 1 << (16 + 4 * 2)


def test_rows_that_fill_no_block_are_refused():
    with pytest.raises(KernelError, match="multiple of 128, not 96"):
        pack(np.zeros((2, 96), int))


@few
@given(seeds, sizes)
def test_gptq(seed, sizes):
    numbers, zeros, scales, matrix = drawn(seed, *sizes)
    weight = formats.from_gptq(eights(numbers.T).T.copy(), eights(zeros - 1), scales)
    assert group_size(weight) == sizes[2]
    np.testing.assert_array_equal(dequantize(weight), matrix)


@few
@given(seeds, sizes)
def test_awq(seed, sizes):
    numbers, zeros, scales, matrix = drawn(seed, *sizes)
    order = (0, 2, 4, 6, 1, 3, 5, 7)
    weight = formats.from_awq(eights(numbers, order), eights(zeros, order), scales)
    np.testing.assert_array_equal(dequantize(weight), matrix)


@few
@given(seeds, sizes)
def test_compressed_tensors(seed, sizes):
    numbers, zeros, scales, matrix = drawn(seed, *sizes)
    weight = formats.from_compressed_tensors(
        eights(numbers.T), scales.T.copy(), eights(zeros.T.T).reshape(len(zeros), -1).T.copy()
    )
    np.testing.assert_array_equal(dequantize(weight), matrix)


def test_compressed_tensors_without_zeros_and_with_one_scale_a_column():
    numbers, _, scales, _ = drawn(0, 256, 8, 256)
    weight = formats.from_compressed_tensors(eights(numbers.T), scales.T.copy())
    assert weight.low is None and group_size(weight) == 256
    np.testing.assert_array_equal(dequantize(weight), (numbers - 8) * scales.astype(np.float64))


def test_zeros_in_the_middle_cost_nothing():
    numbers, _, scales, _ = drawn(0, 128, 8, 64)
    weight = formats.from_gptq(eights(numbers.T).T.copy(), eights(np.full((2, 8), 7)), scales)
    assert weight.low is None


@few
@given(seeds)
def test_nf4(seed):
    rng = np.random.default_rng(seed)
    numbers, absmax = rng.integers(0, 16, (3, 128)), rng.random(6).astype(np.float32)
    flat = numbers.reshape(-1, 2).astype(np.uint8)
    weight = formats.from_nf4(flat[:, :1] << 4 | flat[:, 1:], absmax, (3, 128))
    values = np.asarray(NF4, np.float32)[numbers.reshape(6, 64)] * absmax[:, None]
    np.testing.assert_array_equal(dequantize(weight).T, values.reshape(3, 128))


def test_nf4_magnitudes_quantised_twice():
    state = np.frombuffer(
        json.dumps({"nested_blocksize": 2, "nested_offset": 0.5}).encode(), np.uint8
    )
    codes, levels = np.array([0, 1, 255], np.uint8), np.linspace(-1, 1, 256, dtype=np.float32)
    found = formats.nested_absmax(codes, np.array([2.0, 3.0], np.float32), levels, state)
    np.testing.assert_allclose(found, [2 * levels[0] + 0.5, 2 * levels[1] + 0.5, 3.5])


@few
@given(seeds)
def test_q4_0(seed):
    stored = rows(seed, 2, 8, 18, 1)
    blocks = stored.reshape(-1, 18)
    d = blocks[:, :2].copy().view(np.float16).astype(np.float32)
    values = [d[:, 0] * ((blocks[:, 2 + i % 16] >> 4 * (i // 16) & 15) - 8.0) for i in range(32)]
    np.testing.assert_array_equal(
        dequantize(formats.from_q4_0(stored)).T, np.stack(values, 1).reshape(2, -1)
    )


@few
@given(seeds)
def test_q8_0(seed):
    stored = rows(seed, 2, 8, 34, 1)
    blocks = stored.reshape(-1, 34)
    d = blocks[:, :2].copy().view(np.float16).astype(np.float32)
    np.testing.assert_array_equal(
        dequantize(formats.from_q8_0(stored)).T, (d * blocks[:, 2:].view(np.int8)).reshape(2, -1)
    )


def q4_k(block):
    """One block of 144 bytes, a number at a time."""
    d, dmin = block[:4].view(np.float16).astype(np.float32)
    small, values = block[4:16].astype(int), []
    for i in range(256):
        j = i // 32
        if j < 4:
            scale, least = small[j] & 63, small[j + 4] & 63
        else:
            scale = small[j + 4] & 15 | (small[j - 4] >> 6) << 4
            least = small[j + 4] >> 4 | (small[j] >> 6) << 4
        n = block[16 + 32 * (j // 2) + i % 32] >> 4 * (j % 2) & 15
        values.append(d * np.float32(scale) * np.float32(n) - dmin * np.float32(least))
    return values


@few
@given(seeds)
def test_q4_k(seed):
    stored = rows(seed, 2, 2, 144, 2)
    want = np.array([q4_k(block.copy()) for block in stored.reshape(-1, 144)])
    np.testing.assert_array_equal(dequantize(formats.from_q4_k(stored)).T, want.reshape(2, -1))


@pytest.mark.parametrize("name, size, halves", [("Q4_0", 18, 1), ("Q8_0", 34, 1), ("Q4_K", 144, 2)])
def test_as_the_package_gguf_reads_them(name, size, halves):
    gguf = pytest.importorskip("gguf")
    stored = rows(0, 4, 8, size, halves)
    want = gguf.quants.dequantize(stored, gguf.GGMLQuantizationType[name])
    found = getattr(formats, f"from_{name.lower()}")(stored)
    np.testing.assert_array_equal(dequantize(found).T, want)
