"""Falcon, GPT-NeoX, Bloom, MPT and StarCoder, which have queries, keys and values in one tensor.

    the checkpoint   q0 q1 k0 v0 | q2 q3 k1 v1     by heads of keys (of Falcon, GPT-NeoX, Bloom)
    the file         q0 q1 q2 q3 | k0 k1 | v0 v1

Owns a row for each, and what files do not say of them. Refuses to know the file, and JAX.
Source: llama.cpp's `conversion/falcon.py`, `gptneox.py`, `bloom.py`, `mpt.py` and `starcoder.py`.
"""

from collections.abc import Mapping, Sequence

from models.config.fields import MAX_HEADS, Fields
from models.errors import CheckpointError, UnsupportedError
from models.gguf.families.stated import EPSILONS, Found, Stated, Tensors
from models.gguf.tensors.joining import ByGroup, Join
from models.gguf.tensors.names import CONVERTED, Converted
from models.quantised.tensors import Readable

GPT_2_KEYS: Mapping[str, str] = {
    "hidden_size": "n_embd",
    "intermediate_size": "n_inner",
    "num_hidden_layers": "n_layer",
    "num_attention_heads": "n_head",
    "max_position_embeddings": "n_positions",
    "rms_norm_eps": "layer_norm_epsilon",
}
_BLOCK, _NEOX_BLOCK, _MPT_BLOCK = "transformer.h.*", "gpt_neox.layers.*", "transformer.blocks.*"
_BLOOM = {
    "token_embd": "transformer.word_embeddings",
    "token_embd_norm": "transformer.word_embeddings_layernorm",
    "output_norm": "transformer.ln_f",
    "output": "lm_head",
    "blk.*.attn_norm": f"{_BLOCK}.input_layernorm",
    "blk.*.attn_qkv": f"{_BLOCK}.self_attention.query_key_value",
    "blk.*.attn_output": f"{_BLOCK}.self_attention.dense",
    "blk.*.ffn_norm": f"{_BLOCK}.post_attention_layernorm",
    "blk.*.ffn_up": f"{_BLOCK}.mlp.dense_h_to_4h",
    "blk.*.ffn_down": f"{_BLOCK}.mlp.dense_4h_to_h",
}
_FALCON = {**_BLOOM, "blk.*.attn_norm_2": f"{_BLOCK}.ln_attn"}
_NEOX = {
    "token_embd": "gpt_neox.embed_in",
    "output_norm": "gpt_neox.final_layer_norm",
    "output": "embed_out",
    "blk.*.attn_norm": f"{_NEOX_BLOCK}.input_layernorm",
    "blk.*.attn_qkv": f"{_NEOX_BLOCK}.attention.query_key_value",
    "blk.*.attn_output": f"{_NEOX_BLOCK}.attention.dense",
    "blk.*.ffn_norm": f"{_NEOX_BLOCK}.post_attention_layernorm",
    "blk.*.ffn_up": f"{_NEOX_BLOCK}.mlp.dense_h_to_4h",
    "blk.*.ffn_down": f"{_NEOX_BLOCK}.mlp.dense_4h_to_h",
}
_MPT = {
    "token_embd": "transformer.wte",
    "output_norm": "transformer.norm_f",
    "output": "lm_head",
    "blk.*.attn_norm": f"{_MPT_BLOCK}.norm_1",
    "blk.*.attn_qkv": f"{_MPT_BLOCK}.attn.Wqkv",
    "blk.*.attn_output": f"{_MPT_BLOCK}.attn.out_proj",
    "blk.*.ffn_norm": f"{_MPT_BLOCK}.norm_2",
    "blk.*.ffn_up": f"{_MPT_BLOCK}.ffn.up_proj",
    "blk.*.ffn_down": f"{_MPT_BLOCK}.ffn.down_proj",
}
_CLIP, _ALIBI = "attention.clamp_kqv", "attention.max_alibi_bias"
_BASE, _PARALLEL = "rope.freq_base", "use_parallel_residual"
_NEOX_20B = (44, 24576)  # layers, width of an MLP
_BIASES = (".attn_qkv.bias", ".attn_output.bias", ".ffn_up.bias", ".ffn_down.bias")


def _by_heads(tensor: Readable, fields: Fields) -> Readable:
    heads = fields.integer("attention.head_count", high=MAX_HEADS)
    groups = fields.integer("attention.head_count_kv", heads, high=MAX_HEADS)
    size = fields.integer("embedding_length") // heads
    rows = (heads + 2 * groups) * size
    if heads % groups or len(tensor.shape) > 2 or tensor.shape[0] != rows:
        raise CheckpointError(
            f"Tensor {tensor.name!r} has the shape {list(tensor.shape)}, and {heads} heads with "
            f"{groups} of keys call for {rows} rows; convert the model again."
        )
    return ByGroup(tensor.name, tensor, groups, (heads // groups * size, size, size))


def _same(name: str, tensors: Sequence[Readable], fields: Fields) -> Readable:
    return tensors[0]


_QKV = {f"blk.*.attn_qkv.{leaf}": _by_heads for leaf in ("weight", "bias")}
_TWO_NORMS = tuple(  # of which the first is the MLP's
    Join(
        f"{_BLOCK}.ln_mlp.{leaf}",
        (f"blk.*.attn_norm.{leaf}",),
        _same,
        beside=f"blk.*.attn_norm_2.{leaf}",
    )
    for leaf in ("weight", "bias")
)


def _falcon(fields: Fields, tensors: Tensors, found: Found) -> Found:
    _check_without(fields, tensors, (*_BIASES, ".ffn_norm.weight"))
    two, groups = "blk.0.attn_norm_2.weight" in tensors, found["num_key_value_heads"]
    if groups > 1 and not two and _BASE not in fields:
        raise UnsupportedError(
            f"{fields.where} is Falcon 2 (11B), whose {_BASE} its converter left out; use the "
            f"model's safetensors."
        )
    return {
        "new_decoder_architecture": two or groups > 1,
        "num_ln_in_parallel_attn": 2 if two else 1,
        "multi_query": groups == 1,
    }


def _neox(fields: Fields, tensors: Tensors, found: Found) -> Found:
    """The largest has an approximation of the function that the others have."""
    largest = (found["num_hidden_layers"], found["intermediate_size"]) == _NEOX_20B
    return {
        "use_parallel_residual": fields.flag(_PARALLEL, True),
        "partial_rotary_factor": found.get("partial_rotary_factor", 1.0),
        "hidden_act": "gelu_fast" if largest else "gelu",
    }


def _mpt(fields: Fields, tensors: Tensors, found: Found) -> Found:
    """Files say of every MLP that it is four times as wide as the model."""
    _check_without(
        fields, tensors, (".bias", ".scales", "position_embd.weight", ".attn_q_norm.weight")
    )
    fields.constant("attention.head_count_kv", float(found["num_attention_heads"]))
    if not fields.raw.get(_ALIBI):
        raise UnsupportedError(
            f"{fields.where} has no {_ALIBI}, and an MPT without ALiBi is not supported; use a "
            f"model with it."
        )
    up = tensors.get("blk.0.ffn_up.weight")
    width = up.shape[0] if up else found["intermediate_size"]
    return {
        "expansion_ratio": max(1, width // found["hidden_size"]),
        "attn_config": {
            "alibi": True,
            "alibi_bias_max": fields.number(_ALIBI),
            "clip_qkv": fields.optional_number(_CLIP),
        },
    }


def _starcoder(fields: Fields, tensors: Tensors, found: Found) -> Found:
    """Files say of every model that it has one head of keys."""
    qkv = tensors.get("blk.0.attn_qkv.weight")
    return {"multi_query": qkv is None or qkv.shape[0] != 3 * found["hidden_size"]}


def _check_without(fields: Fields, tensors: Tensors, ends: tuple[str, ...]) -> None:
    for name in tensors:
        if name.endswith(ends):
            raise UnsupportedError(
                f"{fields.where} has the tensor {name[:60]!r}, which is not read from a GGUF file "
                f"of its architecture; use the model's safetensors."
            )


FUSED: Mapping[str, Stated] = {
    "falcon": Stated(
        "FalconForCausalLM", Converted(_FALCON, undone=_QKV, joined=_TWO_NORMS), more=_falcon,
        epsilon=EPSILONS[1],
        renamed={
            "rms_norm_eps": "layer_norm_epsilon",
            "intermediate_size": "ffn_hidden_size",
            "num_key_value_heads": "num_kv_heads",
        },
    ),
    "gptneox": Stated(
        "GPTNeoXForCausalLM", Converted(_NEOX, undone=_QKV), more=_neox, epsilon=EPSILONS[1],
        present={"attention_bias": "blk.*.attn_qkv.bias"},
        renamed={
            "rms_norm_eps": "layer_norm_eps",
            "partial_rotary_factor": "rotary_pct",
            "rope_theta": "rotary_emb_base",
        },
    ),
    "bloom": Stated(
        "BloomForCausalLM", Converted(_BLOOM, undone=_QKV), epsilon=EPSILONS[1],
        renamed={"rms_norm_eps": "layer_norm_epsilon", "max_position_embeddings": "seq_length"},
    ),
    "mpt": Stated(
        "MPTForCausalLM", Converted(_MPT), more=_mpt, reads=(_CLIP, _ALIBI), epsilon=EPSILONS[1],
        said={"no_bias": True},
        renamed={
            "hidden_size": "d_model",
            "num_attention_heads": "n_heads",
            "num_hidden_layers": "n_layers",
            "max_position_embeddings": "max_seq_len",
            "rms_norm_eps": "layer_norm_epsilon",
        },
    ),
    "starcoder": Stated(
        "GPTBigCodeForCausalLM", Converted(CONVERTED["gpt2"].names), more=_starcoder,
        epsilon=EPSILONS[1], renamed=GPT_2_KEYS,
    ),
}  # fmt: skip
