"""Mixtures whose layers slide or differ: Trinity, Ling and Ring 2, Command A+, Hy3 and Mellum 2.

Owns a row for each, and which layers of them slide. Refuses to know the file, and JAX.
Source: llama.cpp's `conversion/afmoe.py`, `bailingmoe.py`, `command_r.py`, `hunyuan.py` and
`mellum.py`, and the files of these names in its `src/models/`.
"""

from collections.abc import Mapping

from models.config.fields import MAX_TOKENS, Fields
from models.config.windows import FULL, SLIDING
from models.errors import CheckpointError, UnsupportedError
from models.gguf.by_layer import pattern
from models.gguf.families.mixtures import OF_ALL, routed
from models.gguf.families.stated import (
    ATTENTION_BIAS,
    BIASES,
    EPSILONS,
    SIGMOID,
    SOFTMAX,
    Found,
    Stated,
    Tensors,
    mlp_types,
)
from models.gguf.tensors.names import LAYER, LLAMA, QWEN_3_MOE, Converted

_MLP, _WINDOW = f"{LAYER}.mlp", "attention.sliding_window"
_SHARED_SIZE, _SIZE = "expert_shared_feed_forward_length", "expert_feed_forward_length"
_GATING = "expert_gating_func"
_AFMOE = {
    **LLAMA,
    **routed(_MLP, "shared_experts", "router.gate"),
    "blk.*.exp_probs_b.bias": f"{_MLP}.expert_bias",
    "blk.*.attn_gate": f"{LAYER}.self_attn.gate_proj",
    "blk.*.post_attention_norm": f"{LAYER}.post_attention_layernorm",
    "blk.*.ffn_norm": f"{LAYER}.pre_mlp_layernorm",
    "blk.*.post_ffw_norm": f"{LAYER}.post_mlp_layernorm",
}
_BAILING = {
    **LLAMA,
    **routed(_MLP, "shared_experts"),
    "token_embd": "model.word_embeddings",
    "blk.*.exp_probs_b.bias": f"{_MLP}.gate.expert_bias",
    "blk.*.attn_qkv": f"{LAYER}.attention.query_key_value",
    "blk.*.attn_q_norm": f"{LAYER}.attention.query_layernorm",
    "blk.*.attn_k_norm": f"{LAYER}.attention.key_layernorm",
    "blk.*.attn_output": f"{LAYER}.attention.dense",
}
_COMMAND = {**LLAMA, **routed(_MLP, "shared_experts")}
_HY = {
    **LLAMA,
    **routed(_MLP, "shared_mlp", "router.gate"),
    "blk.*.exp_probs_b": f"{_MLP}.expert_bias",
    "blk.*.exp_probs_b.bias": f"{_MLP}.expert_bias",
}
_EXPERTS = {
    **OF_ALL,
    "expert_shared_count": "num_shared_experts",
    _SIZE: "moe_intermediate_size",
}


def _types(fields: Fields, found: Found, every: int) -> list[str]:
    """Of layers: what the file lists, or all but every so many slide."""
    layers, said = found["num_hidden_layers"], pattern(fields, every)
    listed = said.get("layer_types")
    period = said.get("sliding_window_pattern", every)
    usual = [FULL if (layer + 1) % period == 0 else SLIDING for layer in range(layers)]
    types = usual if listed is None else listed[:layers]
    if len(types) < layers:
        raise CheckpointError(
            f"{fields.where} lists {len(types)} layers that slide or do not, of {layers}; convert "
            "the model again."
        )
    return types if fields.raw.get(_WINDOW) else [FULL] * layers


def _window(fields: Fields) -> Found:
    size = fields.integer(_WINDOW, 0, low=0, high=MAX_TOKENS)
    return {"sliding_window": size} if size else {}


def _afmoe(fields: Fields, tensors: Tensors, found: Found) -> Found:
    return {"layer_types": _types(fields, found, 4), **_window(fields)}


def _command(fields: Fields, tensors: Tensors, found: Found) -> Found:
    """Of layers that see everything those rotate that have no experts."""
    rms = EPSILONS[0] in fields
    epsilon = fields.number(EPSILONS[0]) if rms else None
    softmax = fields.integer(_GATING, int(SIGMOID), low=1, high=int(SIGMOID)) == SOFTMAX
    return {
        "rms_norm_eps": epsilon,
        "layer_norm_eps": None if rms else found["rms_norm_eps"],
        **_window(fields),
        "layer_types": _types(fields, found, 4),
        "prefix_dense_intermediate_size": found["intermediate_size"],
        "intermediate_size": fields.integer(_SIZE),
        "expert_selection_fn": "softmax" if softmax else "sigmoid",
    }


def _hy(fields: Fields, tensors: Tensors, found: Found) -> Found:
    """Whose experts of all tokens are said by their size."""
    size = fields.integer(_SIZE)
    whole = fields.integer(_SHARED_SIZE, size, low=0)
    if whole % size:
        raise UnsupportedError(
            f"{fields.where}: {_SHARED_SIZE} is {whole}, which is no multiple of {size}, an "
            "expert's; use the model's safetensors."
        )
    layers = found["num_hidden_layers"]
    return {"mlp_layer_types": mlp_types(tensors, layers), "num_shared_experts": whole // size}


def _mellum(fields: Fields, tensors: Tensors, found: Found) -> Found:
    """Whose layers with a window have a base of their own, and do not stretch positions."""
    base, scaling = found["rope_theta"], found["rope_scaling"] or {"type": "default"}
    own = {key: one for key, one in scaling.items() if key != "type"}
    full = {**own, "rope_type": scaling["type"], "rope_theta": base}
    if "original_max_position_embeddings" in found:
        full["original_max_position_embeddings"] = found["original_max_position_embeddings"]
    sliding = {"rope_type": "default", "rope_theta": fields.number("rope.freq_base_swa", base)}
    return {
        **_window(fields),
        "layer_types": _types(fields, found, 4),
        "mlp_layer_types": mlp_types(tensors, found["num_hidden_layers"]),
        "rope_scaling": None,
        "rope_parameters": {FULL: full, SLIDING: sliding},
    }


WINDOWED: Mapping[str, Stated] = {
    "afmoe": Stated(
        "AfmoeForCausalLM", Converted(_AFMOE),
        {
            **_EXPERTS,
            "expert_weights_norm": "route_norm",
            "expert_weights_scale": "route_scale",
            "leading_dense_block_count": "num_dense_layers",
        },
        said={"mup_enabled": True}, more=_afmoe, gating=SIGMOID, reads=(_WINDOW,),
    ),
    "bailingmoe2": Stated(
        "BailingMoeV2ForCausalLM", Converted(_BAILING),
        {
            **_EXPERTS,
            "expert_weights_norm": "norm_topk_prob",
            "expert_weights_scale": "routed_scaling_factor",
            "expert_group_count": "n_group",
            "expert_group_used_count": "topk_group",
            "leading_dense_block_count": "first_k_dense_replace",
        },
        present={"use_qkv_bias": "blk.*.attn_qkv.bias", "use_bias": "blk.*.attn_output.bias"},
        gating=SIGMOID,
    ),
    "cohere2moe": Stated(
        "Cohere2MoeForCausalLM", Converted(_COMMAND),
        {
            **OF_ALL,
            "expert_shared_count": "num_shared_experts",
            "expert_weights_norm": "norm_topk_prob",
            "leading_dense_block_count": "first_k_dense_replace",
            "logit_scale": "logit_scale",
        },
        said={
            "prefix_dense_sliding_window_pattern": 1,
            "shared_expert_combination_strategy": "average",
        },
        more=_command, gating=None, epsilon=EPSILONS[1], reads=(_WINDOW,),
    ),
    "hy_v3": Stated(
        "HYV3ForCausalLM", Converted(_HY),
        {
            **OF_ALL,
            _SIZE: "moe_intermediate_size",
            "expert_weights_norm": "norm_topk_prob",
            "expert_weights_scale": "router_scaling_factor",
        },
        present=BIASES, more=_hy, gating=SIGMOID,
    ),
    "mellum": Stated(
        "MellumForCausalLM", Converted(QWEN_3_MOE), {**OF_ALL, _SIZE: "moe_intermediate_size"},
        present=ATTENTION_BIAS, said={"norm_topk_prob": True}, more=_mellum, reads=(_WINDOW,),
    ),
}  # fmt: skip
