"""What llama.cpp's converter does to a checkpoint's tensors: other names, other rows, other norms.

    token_embd.weight         model.embed_tokens.weight
    blk.3.attn_q.weight       model.layers.3.self_attn.q_proj.weight
    blk.3.attn_norm.weight    model.layers.3.input_layernorm.weight

Owns the names of each family and undoing the rest. Refuses to know the file, and JAX.
Source: `MODEL_TENSORS` of the package gguf; llama.cpp's `convert_hf_to_gguf.py`.
"""

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field

from models.config.fields import MAX_HEADS, Fields
from models.errors import CheckpointError
from models.gguf.by_layer import heads_of, num_layers
from models.gguf.tensors.joining import Join
from models.gguf.tensors.undoing import HalfOfEach, HalvedHeads, LessOne, Turned
from models.quantised.tensors import Readable

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
GEMMA_2 = {
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
_GPT_OSS = {  # experts and sinks are `families/gpt_oss.py`'s
    **LLAMA,
    "blk.*.post_attention_norm": f"{LAYER}.post_attention_layernorm",
    "blk.*.ffn_gate_inp": f"{LAYER}.mlp.router",
}
_IN_LAYER = re.compile(r"(?:(?:enc|dec)\.)?blk\.([0-9]{1,4})\.")
_KERNELS = ("attn_qkv", "attn_output", "ffn_up", "ffn_down")


Undo = Callable[[Readable, Fields], Readable]


def plain(undo: Callable[[Readable], Readable]) -> Undo:
    """One that reads no key of the architecture."""
    return lambda tensor, fields: undo(tensor)


@dataclass(frozen=True)
class Converted:
    """What the converter did to a family.

    names: of the file's tensors without ".weight" and ".bias", or whole where the checkpoint's end
        otherwise -> the checkpoint's.
    undone: whole names, * the layer -> what gives the checkpoint's tensor.
    behind: layers that predict further tokens have names here; else they are not read.
    written: gives tensors of the checkpoint that are keys of the file.
    """

    names: Mapping[str, str]
    paired: bool = False  # pairs that are rotated together are neighbours, not half a head apart
    norm_offset: bool = False  # it added the 1 that the model would add
    turned: bool = False  # kernels, which the checkpoint has as [in, out]
    undone: Mapping[str, Undo] = field(default_factory=dict)
    joined: tuple[Join, ...] = ()
    behind: bool = False
    written: Callable[[Fields], Mapping[str, Readable]] | None = None


CONVERTED: Mapping[str, Converted] = {
    "llama": Converted(_MIXTRAL, paired=True),
    "qwen2": Converted(LLAMA),
    "qwen3": Converted(LLAMA),
    "qwen3moe": Converted(QWEN_3_MOE),
    "gpt-oss": Converted(_GPT_OSS),
    "gemma": Converted(LLAMA, norm_offset=True),
    "gemma2": Converted(GEMMA_2, norm_offset=True),
    "gemma3": Converted(GEMMA_2, norm_offset=True),
    "phi3": Converted(_PHI_3),
    "gpt2": Converted(_GPT_2, turned=True),
}


def restored(
    tensors: Mapping[str, Readable], converted: Converted, fields: Fields
) -> dict[str, Readable]:
    """The tensors as the Hugging Face checkpoint had them; names not known stay as they are.

    `fields` are the architecture's keys. Raises CheckpointError if two tensors have one name, or
    rows do not divide into heads.
    """
    unread = "nextn_predict_layers" in fields and not converted.behind
    whole = _without_factors(tensors, num_layers(fields) if unread else None)
    found: dict[str, Readable] = {}
    for name, tensor in (*_joined(whole, converted, fields), *_renamed(whole, converted, fields)):
        for one, part in _parts(name, tensor):
            if one in found:
                raise _twice(one)
            found[one] = part
    return found | dict(converted.written(fields) if converted.written else {})


def _without_factors(
    tensors: Mapping[str, Readable], layers: int | None
) -> dict[str, tuple[str, str, Readable]]:
    """Name -> name with * for the layer, the layer or "", and the tensor."""
    found: dict[str, tuple[str, str, Readable]] = {}
    for name, tensor in tensors.items():
        layer = match[1] if (match := _IN_LAYER.match(name)) else ""
        behind = layers is not None and layer != "" and int(layer) >= layers
        if name in FACTORS or behind:  # which the configuration has
            continue
        for one, part in _halves(name, tensor):
            if one in found:
                raise _twice(one)
            found[one] = one.replace(f"blk.{layer}.", "blk.*.", 1), layer, part
    return found


def _twice(name: str) -> CheckpointError:
    return CheckpointError(f"Two tensors of the GGUF file stand for {name!r}; convert again.")


def _halves(name: str, tensor: Readable) -> Iterator[tuple[str, Readable]]:
    """Gate and up of experts, which the converter can write as one; the tensor else."""
    fits = len(tensor.shape) == 3 and tensor.shape[1] % 2 == 0
    if not name.endswith("ffn_gate_up_exps.weight") or not fits:
        yield name, tensor
        return
    for which in ("gate", "up"):
        yield name.replace("gate_up", which), HalfOfEach(tensor, which == "up")


def _joined(
    whole: dict[str, tuple[str, str, Readable]], converted: Converted, fields: Fields
) -> Iterator[tuple[str, Readable]]:
    """What is made of several tensors, which are taken out of `whole`."""
    for join in converted.joined:
        layers = {layer for one, layer, _ in whole.values() if layer and one in join.parts}
        for layer in sorted(layers, key=int):
            names = [part.replace("*", layer) for part in join.parts]
            if join.beside and join.beside.replace("*", layer) not in whole:
                continue
            parts = [whole.pop(name)[2] for name in names if name in whole]
            if join.unless.replace("*", layer) in whole:
                continue
            name = join.name.replace("*", layer)
            if len(parts) < len(names):
                raise CheckpointError(
                    f"{fields.where} has {parts[0].name!r} and not all of {', '.join(names)}, "
                    f"which are one tensor {name!r}; convert the model again."
                )
            yield name, join.made(name, parts, fields)


def _renamed(
    whole: Mapping[str, tuple[str, str, Readable]], converted: Converted, fields: Fields
) -> Iterator[tuple[str, Readable]]:
    for name, (pattern, layer, tensor) in whole.items():
        module, _, leaf = pattern.rpartition(".")
        if pattern in converted.names:
            ours = converted.names[pattern].replace("*", layer)
        elif module in converted.names:
            ours = f"{converted.names[module].replace('*', layer)}.{leaf}"
        else:
            ours = name
        undo = converted.undone.get(pattern)
        module = module.rpartition(".")[2]
        yield ours, undo(tensor, fields) if undo else _undone(tensor, module, converted, fields)


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


def _undone(tensor: Readable, module: str, converted: Converted, fields: Fields) -> Readable:
    if converted.paired and module in ("attn_q", "attn_k"):
        count = heads_of(fields, module)
        if not 0 < count <= MAX_HEADS or tensor.shape[0] % (2 * count):
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
