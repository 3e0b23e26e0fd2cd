"""GGUF files: what is in them is read as the package gguf wrote it, and nothing hostile gets in."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from models.errors import CheckpointError, ModelError
from models.gguf.checkpoint import open_gguf_tensors, read_gguf_config
from models.gguf.container.reader import GGUFFile
from tests.models.gguf.files import gguf, metadata, write_gguf

Q = gguf.GGMLQuantizationType
LAST = "blk.0.attn_k.weight"
KEYS = {
    "general.name": "wörld", "a.number": 7, "a.flag": True, "a.small": 1e-5,
    "a.words": ["", "ab", "日本"], "a.numbers": [1.5, 2.5],
}  # fmt: skip


def some(*shape: int) -> np.ndarray:
    return np.random.default_rng(0).normal(size=shape).astype(np.float32)


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """Keys of one layer, and of its tensors a few."""
    config = {"hidden_size": 8, "intermediate_size": 9, "num_hidden_layers": 1, "rms_norm_eps": 0.1,
              "num_attention_heads": 2, "max_position_embeddings": 9}  # fmt: skip
    keys = {**metadata("llama", config), **KEYS, "general.alignment": 64}
    tensors = {"token_embd.weight": some(3, 5), "blk.0.attn_q.weight": some(8, 3), LAST: some(4)}
    path = write_gguf(tmp_path_factory.mktemp("sound") / "a.gguf", "llama", keys, tensors)
    read_all(path)
    return path.read_bytes()


def test_keys_and_tensors_are_read(tmp_path: Path) -> None:
    tensors = {"f32": some(3, 5), "f16": some(2, 3, 4).astype(np.float16), "f64": np.ones(3)}
    with GGUFFile(write_gguf(tmp_path / "a.gguf", "llama", KEYS, tensors)) as file:
        assert file.metadata["general.architecture"] == "llama"
        for key, value in KEYS.items():
            found = file.metadata[key]
            assert (found.tolist() if isinstance(found, np.ndarray) else found) == value
        for name, array in tensors.items():
            np.testing.assert_array_equal(file.tensors[name].read(), array)
        np.testing.assert_array_equal(file.tensors["f16"].read(1, 2), tensors["f16"][1:2])


@pytest.mark.parametrize("kind", ["BF16", "Q8_0", "Q4_0", "Q5_1"])
def test_rows_of_blocks_are_read_in_any_range(kind: str, tmp_path: Path) -> None:
    tensors = {"a": some(7, 96), "b": some(64)}
    path = write_gguf(tmp_path / "a.gguf", "llama", {}, tensors, lambda *_: Q[kind])
    with GGUFFile(path) as file:
        for name, array in tensors.items():
            expected = gguf.dequantize(gguf.quantize(array, Q[kind]), Q[kind])
            np.testing.assert_array_equal(file.tensors[name].read(), expected)
            np.testing.assert_array_equal(file.tensors[name].read(2, 5), expected[2:5])


def test_k_quants_of_a_file_are_those_of_gguf(tmp_path: Path) -> None:
    writer = gguf.GGUFWriter(tmp_path / "a.gguf", "llama")
    packed = {}
    for kind in (Q.Q2_K, Q.Q3_K, Q.Q4_K, Q.Q5_K, Q.Q6_K, Q.IQ4_XS):
        blocks = np.random.default_rng(kind).integers(
            0, 100, (3, 2 * gguf.GGML_QUANT_SIZES[kind][1]), np.uint8
        )
        packed[kind] = blocks
        writer.add_tensor(kind.name, blocks, raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    with GGUFFile(tmp_path / "a.gguf") as file:
        for kind, blocks in packed.items():
            assert file.tensors[kind.name].shape == (3, 512)
            expected = gguf.dequantize(blocks, kind)
            np.testing.assert_array_equal(file.tensors[kind.name].read(1, 3), expected[1:])


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        (b"GGUF\x03", b"GGUF\x01", "its version is 1"),
        (b"GGUF\x03\0\0\0", b"GGUF\0\0\0\x03", "its version is 50331648"),
        (b"GGUF", b"GGML", "begins with"),
        (b"GGUF", b"vers", "git lfs pull"),
        (b"a.words", b"a.small", "'a.small' appears twice"),
        (b"attn_k", b"attn_q", "'blk.0.attn_q.weight' appears twice"),
        (b"w\xc3\xb6rld", b"w\xffxrld", "not UTF-8"),
    ],
)
def test_what_is_wrong_is_said(sound: bytes, tmp_path: Path, old, new, message) -> None:
    assert old in sound
    (tmp_path / "a.gguf").write_bytes(sound.replace(old, new, 1))
    with pytest.raises(CheckpointError, match=message):
        GGUFFile(tmp_path / "a.gguf")


def test_a_file_that_ends_early_is_refused_wherever_it_ends(sound: bytes, tmp_path: Path) -> None:
    end = sound.rindex(some(4).tobytes()) + 16
    for size in range(0, end, 17):
        (tmp_path / "a.gguf").write_bytes(sound[:size])
        with pytest.raises(CheckpointError):
            GGUFFile(tmp_path / "a.gguf")


def test_types_that_are_not_read_are_named(tmp_path: Path) -> None:
    writer = gguf.GGUFWriter(tmp_path / "a.gguf", "llama")
    writer.add_tensor("a", np.zeros((1, 66), np.uint8), raw_dtype=Q.IQ2_XXS)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    with pytest.raises(CheckpointError, match=r"type 16, and those read are F32.*another quant"):
        GGUFFile(tmp_path / "a.gguf")


def read_all(path: Path) -> None:
    """Everything that loading asks of a file."""
    with GGUFFile(path) as file:
        for tensor in file.tensors.values():
            tensor.read()
    read_gguf_config(path)
    with open_gguf_tensors(path) as tensors:
        for tensor in tensors.values():
            tensor.read()


@settings(max_examples=150, deadline=None)
@given(st.data())
def test_no_bytes_do_anything_but_raise_typed_errors(
    tmp_path_factory: pytest.TempPathFactory, sound: bytes, data: st.DataObject
) -> None:
    header = sound.index(some(3, 5).tobytes())
    changed = bytearray(sound)
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, header - 1))
        new = data.draw(
            st.one_of(
                st.binary(min_size=1, max_size=9),
                st.sampled_from([b"\xff" * 8, b"\0" * 8, (2**40).to_bytes(8, "little")]),
            )
        )
        changed[at : at + len(new)] = new
    path = tmp_path_factory.getbasetemp() / "changed.gguf"
    path.write_bytes(changed)
    try:
        with GGUFFile(path):
            pass
    except CheckpointError:
        return
    try:
        with np.errstate(all="ignore"):
            read_all(path)
    except ModelError:
        return


@settings(max_examples=100, deadline=None)
@given(st.binary(max_size=300))
def test_noise_is_refused(tmp_path_factory: pytest.TempPathFactory, noise: bytes) -> None:
    path = tmp_path_factory.getbasetemp() / "noise.gguf"
    path.write_bytes(b"GGUF\x03\0\0\0" + noise)
    try:
        with GGUFFile(path) as file:
            assert not file.tensors
    except CheckpointError:
        return
