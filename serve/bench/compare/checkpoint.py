"""A model that nobody trained, in the formats of every engine: the same weights for all.

Owns the shape, the names of the tensors in safetensors and GGUF, and a tokenizer whose token i is
" " and i in hexadecimal. Knows no engine.
"""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tokenizers import Tokenizer, decoders, models, pre_tokenizers

Floats = NDArray[np.float32]

_STD = 0.02
_EOS = 2


@dataclass(frozen=True)
class Shape:
    """A Llama; by default of 125 million parameters, of which a step reads 100."""

    V: int = 32000
    D: int = 768
    F: int = 2048
    L: int = 12
    N: int = 12
    K: int = 4
    positions: int = 2048

    @property
    def H(self) -> int:
        return self.D // self.N


# GGUF's name, safetensors' name, rows and columns
_LAYER = (
    ("attn_norm", "input_layernorm", "D", ""),
    ("attn_q", "self_attn.q_proj", "NH", "D"),
    ("attn_k", "self_attn.k_proj", "KH", "D"),
    ("attn_v", "self_attn.v_proj", "KH", "D"),
    ("attn_output", "self_attn.o_proj", "D", "NH"),
    ("ffn_norm", "post_attention_layernorm", "D", ""),
    ("ffn_gate", "mlp.gate_proj", "F", "D"),
    ("ffn_up", "mlp.up_proj", "F", "D"),
    ("ffn_down", "mlp.down_proj", "D", "F"),
)


@dataclass(frozen=True)
class Tensor:
    """One matrix [out, in] or norm, under both names."""

    gguf: str
    name: str
    value: Floats


def tensors(shape: Shape, seed: int = 0) -> Iterator[Tensor]:
    """Normal matrices and norms of ones; the same seed gives the same bytes."""
    rng = np.random.default_rng(seed)
    sizes = {
        "V": shape.V, "D": shape.D, "F": shape.F, "NH": shape.N * shape.H, "KH": shape.K * shape.H,
    }  # fmt: skip

    def make(gguf: str, name: str, rows: str, columns: str) -> Tensor:
        if not columns:
            return Tensor(gguf, name, np.ones(sizes[rows], np.float32))
        value = rng.standard_normal((sizes[rows], sizes[columns]), np.float32)
        return Tensor(gguf, name, value * np.float32(_STD))

    yield make("token_embd.weight", "model.embed_tokens.weight", "V", "D")
    for index in range(shape.L):
        for gguf, name, rows, columns in _LAYER:
            yield make(
                f"blk.{index}.{gguf}.weight", f"model.layers.{index}.{name}.weight", rows, columns
            )
    yield make("output_norm.weight", "model.norm.weight", "D", "")
    yield make("output.weight", "lm_head.weight", "V", "D")


def write_folder(folder: Path, shape: Shape, seed: int = 0) -> Path:
    """The model as Hugging Face lays it out; returns the folder."""
    folder.mkdir(parents=True, exist_ok=True)
    _write_safetensors(folder / "model.safetensors", list(tensors(shape, seed)))
    save_tokenizer(folder, shape.V)
    files = {"config.json": _config(shape), "generation_config.json": {"eos_token_id": _EOS}}
    for name, content in files.items():
        (folder / name).write_text(json.dumps(content, indent=2))
    return folder


def save_tokenizer(folder: Path, V: int) -> None:
    """The files of a tokenizer of V tokens."""
    _tokenizer(V).save(str(folder / "tokenizer.json"))
    content = {"tokenizer_class": "PreTrainedTokenizerFast"}
    (folder / "tokenizer_config.json").write_text(json.dumps(content))


def write_gguf(path: Path, shape: Shape, seed: int = 0, *, int8: bool = False) -> Path:
    """The model as llama.cpp reads it, in float32 or with matrices in Q8_0.

    Raises ImportError without the package gguf.
    """
    gguf = import_module("gguf")
    kinds, file_types = gguf.GGMLQuantizationType, gguf.LlamaFileType
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_context_length(shape.positions)
    writer.add_embedding_length(shape.D)
    writer.add_block_count(shape.L)
    writer.add_feed_forward_length(shape.F)
    writer.add_head_count(shape.N)
    writer.add_head_count_kv(shape.K)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_rope_freq_base(10000.0)
    writer.add_rope_dimension_count(shape.H)
    writer.add_vocab_size(shape.V)
    writer.add_file_type(file_types.MOSTLY_Q8_0 if int8 else file_types.ALL_F32)
    writer.add_tokenizer_model("llama")
    writer.add_token_list(_words(shape.V))
    writer.add_token_scores([-float(i) for i in range(shape.V)])
    writer.add_token_types([2, 3, 3] + [1] * (shape.V - 3))  # unknown, control, normal
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(_EOS)
    writer.add_add_bos_token(False)
    for tensor in tensors(shape, seed):
        value = _in_pairs(tensor, shape)
        kind = kinds.Q8_0 if int8 and value.ndim == 2 else kinds.F32
        writer.add_tensor(tensor.gguf, gguf.quants.quantize(value, kind), raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def _in_pairs(tensor: Tensor, shape: Shape) -> Floats:
    """llama.cpp turns neighbours, (0, 1) (2, 3) ..., where others turn (0, H/2) (1, H/2+1) ..."""
    heads = {"attn_q": shape.N, "attn_k": shape.K}.get(tensor.gguf.split(".")[-2])
    if heads is None:
        return tensor.value
    halves = tensor.value.reshape(heads, 2, shape.H // 2, shape.D)
    return np.ascontiguousarray(halves.swapaxes(1, 2)).reshape(tensor.value.shape)


def _words(V: int) -> list[str]:
    return ["<unk>", "<s>", "</s>", *(f"▁{i:x}" for i in range(3, V))]


def _tokenizer(V: int) -> Tokenizer:
    vocabulary = {word: i for i, word in enumerate(_words(V))}
    made = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    made.add_special_tokens(["<unk>", "<s>", "</s>"])
    made.pre_tokenizer = pre_tokenizers.Metaspace()
    made.decoder = decoders.Metaspace()
    return made


def _config(shape: Shape) -> dict[str, Any]:
    return {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "vocab_size": shape.V,
        "hidden_size": shape.D,
        "intermediate_size": shape.F,
        "num_hidden_layers": shape.L,
        "num_attention_heads": shape.N,
        "num_key_value_heads": shape.K,
        "head_dim": shape.H,
        "hidden_act": "silu",
        "max_position_embeddings": shape.positions,
        "rms_norm_eps": 1e-5,
        "rope_theta": 10000.0,
        "tie_word_embeddings": False,
        "bos_token_id": 1,
        "eos_token_id": _EOS,
        "torch_dtype": "float32",
    }


def _write_safetensors(path: Path, found: list[Tensor]) -> None:
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    place = 0
    for tensor in found:
        end = place + tensor.value.nbytes
        header[tensor.name] = {
            "dtype": "F32", "shape": list(tensor.value.shape), "data_offsets": [place, end],
        }  # fmt: skip
        place = end
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    with path.open("wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        for tensor in found:
            file.write(tensor.value.tobytes())
