"""Numbers of blocks: the same bits as the package gguf computes."""

import numpy as np
import pytest

from models.gguf.container.blocks import BLOCK_FORMATS

gguf = pytest.importorskip("gguf")


@pytest.mark.parametrize("kind", BLOCK_FORMATS, ids=lambda kind: BLOCK_FORMATS[kind].name)
def test_any_bytes_mean_what_gguf_says(kind: int) -> None:
    block = BLOCK_FORMATS[kind]
    reference = gguf.GGMLQuantizationType(kind)
    assert (block.name, gguf.GGML_QUANT_SIZES[reference]) == (
        reference.name,
        (block.numbers, block.bytes),
    )
    packed = np.random.default_rng(kind).integers(0, 256, (300, block.bytes), np.uint8)
    with np.errstate(all="ignore"):  # random scales are infinite and NaN, too
        expected = gguf.dequantize(packed, reference)
        found = block.dequantise(packed)
    assert found.dtype == np.float32
    np.testing.assert_array_equal(found.view(np.uint32), expected.view(np.uint32))
