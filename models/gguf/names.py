"""What llama.cpp's converter does to a checkpoint's tensors: other names, other rows, other norms.

    token_embd.weight         model.embed_tokens.weight
    blk.3.attn_q.weight       model.layers.3.self_attn.q_proj.weight
    blk.3.attn_norm.weight    model.layers.3.input_layernorm.weight

Owns the names of each family and undoing the rest. Refuses to know the file, and JAX.
Source: `MODEL_TENSORS` of the package gguf; llama.cpp's `convert_hf_to_gguf.py`.
"""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np

from models.errors import CheckpointError
from models.quantised.tensors import Computed, Readable

MAX_EXPERTS = 4096  # as in a config.json, whose reader imports JAX
FACTORS = ("rope_freqs.weight", "rope_factors_long.weight", "rope_factors_short.weight")

LAYER = "model.layers.*"
LLAMA = {
    "token_embd": "model.embed_tokens",
    "output_norm": "model.norm",
    "output": "lm_head",
    "blk.*.attn_norm": f"{LAYER}.input_layernorm",
    **{f"blk.*.attn_{x}": f"{LAYER}.self_attn.{x}_proj" for x in "qkv"},
    "blk.*.attn_q_norm": f"{LAYER}.self_attn.q_norm",
    "blk.*.attn_k_norm": f"{LAYER}.self_attn.k_norm",
    "blk.*.attn_output": f"{LAYER}.self_attn.o_proj",
    "blk.*.ffn_norm": f"{LAYER}.post_attention_layernorm",
    "blk.*.ffn_gate": f"{LAYER}.mlp.gate_proj",
    "blk.*.ffn_up": f"{LAYER}.mlp.up_proj",
    "blk.*.ffn_down": f"{LAYER}.mlp.down_proj",
}
_GEMMA_2 = {
    **LLAMA,
    "blk.*.post_attention_norm": f"{LAYER}.post_attention_layernorm",
    "blk.*.ffn_norm": f"{LAYER}.pre_feedforward_layernorm",
    "blk.*.post_ffw_norm": f"{LAYER}.post_feedforward_layernorm",
}
_PHI_3 = {
    **LLAMA,
    "blk.*.attn_qkv": f"{LAYER}.self_attn.qkv_proj",
    "blk.*.ffn_up": f"{LAYER}.mlp.gate_up_proj",
}
_GPT_2 = {
    "token_embd": "transformer.wte",
    "position_embd": "transformer.wpe",
    "output_norm": "transformer.ln_f",
    "output": "lm_head",
    "blk.*.attn_norm": "transformer.h.*.ln_1",
    "blk.*.attn_qkv": "transformer.h.*.attn.c_attn",
    "blk.*.attn_output": "transformer.h.*.attn.c_proj",
    "blk.*.ffn_norm": "transformer.h.*.ln_2",
    "blk.*.ffn_up": "transformer.h.*.mlp.c_fc",
    "blk.*.ffn_down": "transformer.h.*.mlp.c_proj",
}
_MIXTRAL = {  # # is the number of an expert: the file has one tensor of all
    **LLAMA,
    "blk.*.ffn_gate_inp": f"{LAYER}.block_sparse_moe.gate",
    "blk.*.ffn_gate_exps": f"{LAYER}.block_sparse_moe.experts.#.w1",
    "blk.*.ffn_down_exps": f"{LAYER}.block_sparse_moe.experts.#.w2",
    "blk.*.ffn_up_exps": f"{LAYER}.block_sparse_moe.experts.#.w3",
}
QWEN_3_MOE = {
    **LLAMA,
    "blk.*.ffn_gate_inp": f"{LAYER}.mlp.gate",
    **{f"blk.*.ffn_{x}_exps": f"{LAYER}.mlp.experts.#.{x}_proj" for x in ("gate", "up", "down")},
}
_GPT_OSS = {  # experts and sinks are `gpt_oss.py`'s
    **LLAMA,
    "blk.*.post_attention_norm": f"{LAYER}.post_attention_layernorm",
    "blk.*.ffn_gate_inp": f"{LAYER}.mlp.router",
}
_IN_LAYER = re.compile(r"(?:(?:enc|dec)\.)?blk\.([0-9]{1,4})\.")
_KERNELS = ("attn_qkv", "attn_output", "ffn_up", "ffn_down")


@dataclass(frozen=True)
class Converted:
    """What the converter did to a family."""

    names: Mapping[str, str]
    paired: bool = False  # pairs that are rotated together are neighbours, not half a head apart
    norm_offset: bool = False  # it added the 1 that the model would add
    turned: bool = False  # kernels, which the checkpoint has as [in, out]


CONVERTED: Mapping[str, Converted] = {
    "llama": Converted(_MIXTRAL, paired=True),
    "qwen2": Converted(LLAMA),
    "qwen3": Converted(LLAMA),
    "qwen3moe": Converted(QWEN_3_MOE),
    "gpt-oss": Converted(_GPT_OSS),
    "gemma": Converted(LLAMA, norm_offset=True),
    "gemma2": Converted(_GEMMA_2, norm_offset=True),
    "gemma3": Converted(_GEMMA_2, norm_offset=True),
    "phi3": Converted(_PHI_3),
    "gpt2": Converted(_GPT_2, turned=True),
}


def restored(
    tensors: Mapping[str, Readable], converted: Converted, heads: int, kv_heads: int
) -> dict[str, Readable]:
    """The tensors as the Hugging Face checkpoint had them; names not known stay as they are.

    Raises CheckpointError if two tensors have one name, or rows do not divide into heads.
    """
    found: dict[str, Readable] = {}
    for name, tensor in tensors.items():
        if name in FACTORS:  # which the configuration has
            continue
        module, _, leaf = name.rpartition(".")
        layer = match[1] if (match := _IN_LAYER.match(name)) else ""
        pattern = module.replace(f"blk.{layer}.", "blk.*.", 1)
        known = converted.names.get(pattern)
        ours = name if known is None else f"{known.replace('*', layer)}.{leaf}"
        whole = _undone(tensor, pattern.rpartition(".")[2], converted, heads, kv_heads)
        for one, part in _parts(ours, whole):
            if one in found:
                raise CheckpointError(
                    f"Two tensors of the GGUF file stand for {one!r}; convert again."
                )
            found[one] = part
    return found


def _parts(name: str, tensor: Readable) -> Iterator[tuple[str, Readable]]:
    """The tensor, or those of the experts that it holds."""
    if "#" not in name:
        yield name, tensor
        return
    if len(tensor.shape) != 3 or tensor.shape[0] > MAX_EXPERTS:
        raise CheckpointError(
            f"Tensor {tensor.name!r} has the shape {list(tensor.shape)}, which is not that of "
            f"experts; convert the model again."
        )
    for expert in range(tensor.shape[0]):
        yield name.replace("#", str(expert)), tensor.entry(expert)


def _undone(
    tensor: Readable, module: str, converted: Converted, heads: int, kv_heads: int
) -> Readable:
    if converted.paired and module in ("attn_q", "attn_k"):
        count = heads if module == "attn_q" else kv_heads
        if tensor.shape[0] % (2 * count):
            raise CheckpointError(
                f"Tensor {tensor.name!r} has {tensor.shape[0]} rows, which are no {count} heads of "
                f"an even size; convert the model again."
            )
        return HalvedHeads(tensor, count)
    if converted.norm_offset and module.endswith("norm") and not tensor.name.endswith(".bias"):
        return LessOne(tensor)
    if converted.turned and module in _KERNELS and len(tensor.shape) == 2:
        return Turned(tensor)
    return tensor


@dataclass(frozen=True)
class _Wrapped(Computed):
    tensor: Readable

    @property
    def name(self) -> str:  # type: ignore[override]
        return self.tensor.name

    @property
    def dtype(self) -> np.dtype:  # type: ignore[override]
        return self.tensor.dtype

    @property
    def shape(self) -> tuple[int, ...]:  # type: ignore[override]
        return self.tensor.shape


@dataclass(frozen=True)
class HalvedHeads(_Wrapped):
    """Rows 0, 2, 4 .. of each head first, then 1, 3, 5 .. ."""

    heads: int

    def read(self, start: int = 0, stop: int | None = None) -> np.ndarray:
        """Rows `start` to `stop`, of heads that are read whole."""
        stop = self.shape[0] if stop is None else stop
        size = self.shape[0] // self.heads
        first, last = start // size, -(-stop // size)
        rows = self.tensor.read(first * size, last * size)
        pairs = rows.reshape(last - first, size // 2, 2, *self.shape[1:])
        halves = pairs.swapaxes(1, 2).reshape(rows.shape)
        return halves[start - first * size : stop - first * size]


@dataclass(frozen=True)
class LessOne(_Wrapped):
    """w - 1, so that what the model adds gives w again."""

    dtype = np.dtype(np.float32)

    def read(self, start: int = 0, stop: int | None = None) -> np.ndarray:
        """Indices `start` to `stop`, in float32."""
        less: np.ndarray = self.tensor.read(start, stop).astype(np.float32) - np.float32(1)
        return less


@dataclass(frozen=True)
class Turned(_Wrapped):
    """[out, in] as [in, out]."""

    @property
    def shape(self) -> tuple[int, ...]:  # type: ignore[override]
        return self.tensor.shape[::-1]

    def read(self, start: int = 0, stop: int | None = None) -> np.ndarray:
        """Rows `start` to `stop`, for which the whole tensor is read."""
        return self.tensor.read().T[start:stop]


@dataclass(frozen=True)
class Row(_Wrapped):
    """[D] as [1, D]: ggml's tools leave out a last axis of one."""

    @property
    def shape(self) -> tuple[int, ...]:  # type: ignore[override]
        return 1, *self.tensor.shape

    def read(self, start: int = 0, stop: int | None = None) -> np.ndarray:
        """Rows `start` to `stop`."""
        return self.tensor.read()[None][start:stop]
