"""Quantised files: the model is the one whose weights are what the package gguf dequantises to."""

from pathlib import Path

import numpy as np
import pytest

from models.checkpoints.loading import load
from models.errors import CheckpointError
from models.gguf.container.reader import GGUFFile
from models.sharding import make_mesh
from tests.models.checkpoints.safetensors_files import write_checkpoint
from tests.models.gguf.files import add, converted, gguf, metadata, write_gguf
from tests.parity.cases import CASES
from tests.parity.paged import PagedRun

Q = gguf.GGMLQuantizationType
CONFIG = {
    **CASES["qwen3"].config,
    "hidden_size": 256,
    "intermediate_size": 256,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 64,
    "num_hidden_layers": 1,
}
LAYER = "model.layers.0."
MATRICES = {
    "model.embed_tokens": (67, Q.Q4_K),
    "lm_head": (67, Q.Q6_K),
    f"{LAYER}self_attn.q_proj": (256, Q.Q4_K),
    f"{LAYER}self_attn.k_proj": (128, Q.Q5_K),
    f"{LAYER}self_attn.v_proj": (128, Q.Q6_K),
    f"{LAYER}self_attn.o_proj": (256, Q.Q8_0),
    f"{LAYER}mlp.gate_proj": (256, Q.Q4_K),
    f"{LAYER}mlp.up_proj": (256, Q.Q4_0),
    f"{LAYER}mlp.down_proj": (256, Q.Q6_K),
}
NORMS = {"model.norm": 256, f"{LAYER}input_layernorm": 256, f"{LAYER}self_attn.q_norm": 64,
         f"{LAYER}self_attn.k_norm": 64, f"{LAYER}post_attention_layernorm": 256}  # fmt: skip
SCALES = {Q.Q4_K: (0, 2), Q.Q5_K: (0, 2), Q.Q6_K: (208,), Q.Q8_0: (0,), Q.Q4_0: (0,)}


def blocks(rows: int, kind: int) -> np.ndarray:
    """Any bits, with scales so small that the numbers are those of a model."""
    numbers, size = gguf.GGML_QUANT_SIZES[kind]
    packed = np.random.default_rng(kind).integers(0, 256, (rows * 256 // numbers, size), np.uint8)
    for at in SCALES[kind]:
        packed[:, at : at + 2] = np.array([1e-4], np.float16).view(np.uint8)
    return packed.reshape(rows, -1)


@pytest.mark.parametrize("quantization", [None, "int8"])
def test_a_mix_of_blocks_is_the_model_of_its_numbers(
    quantization: str | None, tmp_path: Path
) -> None:
    packed = {f"{name}.weight": (blocks(rows, k), k) for name, (rows, k) in MATRICES.items()}
    plain = {name: gguf.dequantize(array, kind) for name, (array, kind) in packed.items()}
    norms = {f"{name}.weight": np.linspace(0.5, 1.5, size, dtype=np.float32)
             for name, size in NORMS.items()}  # fmt: skip
    write_checkpoint(tmp_path / "folder", CONFIG, plain | norms)
    writer = gguf.GGUFWriter(tmp_path / "a.gguf", "qwen3")
    for key, value in metadata("qwen3", CONFIG).items():
        add(writer, key, value)
    for name, array in converted("qwen3", CONFIG, norms).items():
        writer.add_tensor(name, array)
    for name, (array, kind) in packed.items():
        (theirs,) = converted("qwen3", CONFIG, {name: array})
        writer.add_tensor(theirs, array, raw_dtype=kind)
    for step in (writer.write_header_to_file, writer.write_kv_data_to_file):
        step()
    writer.write_tensors_to_file()
    writer.close()
    logits = [
        PagedRun(load(path, make_mesh(1), dtype="float32", quantization=quantization)).follow(
            [3, 14, 15, 9, 26], 5
        )["one piece"]
        for path in (tmp_path / "a.gguf", tmp_path / "folder")
    ]
    assert np.ptp(logits[1]) > 0.01
    np.testing.assert_array_equal(*logits)


def test_a_quantised_llama_is_that_of_its_numbers(tmp_path: Path) -> None:
    """Rows of heads change places in blocks, too."""
    config = {**CASES["llama2"].config, "hidden_size": 64, "intermediate_size": 96}
    rng = np.random.default_rng(0)
    shapes = {"model.embed_tokens": (67, 64), "lm_head": (67, 64), "model.norm": (64,)}
    for layer in range(config["num_hidden_layers"]):
        at = f"model.layers.{layer}"
        shapes |= {f"{at}.self_attn.{x}_proj": (64, 64) for x in "qkvo"}
        shapes |= {f"{at}.{x}_layernorm": (64,) for x in ("input", "post_attention")}
        shapes |= {f"{at}.mlp.{x}_proj": (96, 64) for x in ("gate", "up")}
        shapes |= {f"{at}.mlp.down_proj": (64, 96)}
    tensors = {f"{n}.weight": rng.normal(size=s).astype(np.float32) for n, s in shapes.items()}

    def kind(name: str, array: np.ndarray) -> object:
        return None if array.ndim == 1 else Q.Q4_0 if "ffn" in name else Q.Q8_0

    def dequantised(array: np.ndarray, block: int) -> np.ndarray:
        return gguf.dequantize(gguf.quantize(array, block), block)

    rounded = {
        name: array if array.ndim == 1 else dequantised(array, Q.Q4_0 if "mlp" in name else Q.Q8_0)
        for name, array in tensors.items()
    }
    write_checkpoint(tmp_path / "folder", config, rounded)
    keys, theirs = metadata("llama", config), converted("llama", config, tensors)
    path = write_gguf(tmp_path / "a.gguf", "llama", keys, theirs, kind)
    found, expected = (
        load(one, make_mesh(2), dtype="float32") for one in (path, tmp_path / "folder")
    )
    for ours, other in zip(found.leaves, expected.leaves, strict=True):
        np.testing.assert_array_equal(np.asarray(ours), np.asarray(other))


@pytest.mark.parametrize("kind", [Q.Q8_0, Q.Q4_0])
def test_an_expert_is_an_entry_of_the_tensor_of_all(tmp_path: Path, kind: int) -> None:
    numbers = np.random.default_rng(0).standard_normal((3, 8, 64)).astype(np.float32)
    write_gguf(tmp_path / "a.gguf", "llama", {}, {"e": numbers}, lambda name, array: kind)
    expected = gguf.dequantize(gguf.quantize(numbers, kind), kind)
    with GGUFFile(tmp_path / "a.gguf") as file:
        experts = file.tensors["e"]
        np.testing.assert_array_equal(experts.read(1, 3), expected[1:3])
        np.testing.assert_array_equal(experts.entry(2).read(3, 7), expected[2, 3:7])
        with pytest.raises(CheckpointError, match="holds one matrix"):
            experts.entry(2).entry(0)
