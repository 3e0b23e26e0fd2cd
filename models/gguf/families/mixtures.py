"""Families of mixtures of experts: DeepSeek and what copies it, GLM, Granite, Hunyuan and others.

Owns a row for each, and what few of them have besides rows: latent attention, nested keys.
Refuses to know the file, and JAX.
Source: `MODEL_TENSORS` of the package gguf; llama.cpp's `conversion/` and `src/models/`.
"""

import math
from collections.abc import Mapping
from functools import partial

from models.config.fields import MAX_HEADS, Fields
from models.errors import UnsupportedError
from models.gguf.by_layer import pattern
from models.gguf.families.stated import (
    ATTENTION_BIAS,
    SIGMOID,
    SOFTMAX,
    Found,
    Stated,
    Tensors,
    mlp_types,
    value,
)
from models.gguf.tensors.joining import Join, Made, concatenated, keys_and_values
from models.gguf.tensors.names import LAYER, LLAMA, Converted, plain
from models.gguf.tensors.undoing import EachTurned, Reshaped
from models.quantised.tensors import Readable

_MATRICES = ("gate", "up", "down")


def routed(mlp: str, shared: str, router: str = "gate") -> dict[str, str]:
    """Router, experts and what all tokens go through, as DeepSeek's checkpoints name them."""
    return {
        "blk.*.ffn_gate_inp": f"{mlp}.{router}",
        "blk.*.exp_probs_b.bias": f"{mlp}.gate.e_score_correction_bias",
        **{f"blk.*.ffn_{x}_exps": f"{mlp}.experts.#.{x}_proj" for x in _MATRICES},
        **{f"blk.*.ffn_{x}_shexp": f"{mlp}.{shared}.{x}_proj" for x in _MATRICES},
    }


_ROUTED = {**LLAMA, **routed(f"{LAYER}.mlp", "shared_experts")}
_BEHIND = {  # of layers that predict further tokens
    f"blk.*.nextn.{theirs}": f"{LAYER}.{ours}"
    for theirs, ours in {
        "eh_proj": "eh_proj", "enorm": "enorm", "hnorm": "hnorm", "embed_tokens": "embed_tokens",
        "shared_head_norm": "shared_head.norm", "shared_head_head": "shared_head.head",
    }.items()
}  # fmt: skip
_ATTENTION = f"{LAYER}.self_attn"
_LATENT = {
    **_ROUTED,
    **_BEHIND,
    "blk.*.attn_q_a": f"{_ATTENTION}.q_a_proj",
    "blk.*.attn_q_a_norm": f"{_ATTENTION}.q_a_layernorm",
    "blk.*.attn_q_b": f"{_ATTENTION}.q_b_proj",
    "blk.*.attn_kv_a_mqa": f"{_ATTENTION}.kv_a_proj_with_mqa",
    "blk.*.attn_kv_a_norm": f"{_ATTENTION}.kv_a_layernorm",
    "blk.*.attn_kv_b": f"{_ATTENTION}.kv_b_proj",
}
_GLM_4 = {
    **{key: name for key, name in _ROUTED.items() if key != "blk.*.ffn_norm"},
    **_BEHIND,
    "blk.*.post_attention_norm": f"{LAYER}.post_attention_layernorm",
}
_HUNYUAN = {
    **LLAMA,
    **routed(f"{LAYER}.mlp", "shared_mlp", "gate.wg"),
    "blk.*.attn_q_norm": f"{_ATTENTION}.query_layernorm",
    "blk.*.attn_k_norm": f"{_ATTENTION}.key_layernorm",
}
_ERNIE_BIAS = "blk.*.exp_probs_b.bias"
_ERNIE = {**_ROUTED, _ERNIE_BIAS: f"{LAYER}.mlp.moe_statics.e_score_correction_bias"}
_MOE = f"{LAYER}.block_sparse_moe"
MIXTRAL_EXPERTS = {
    "blk.*.ffn_gate_inp": f"{_MOE}.gate",
    "blk.*.ffn_gate_exps": f"{_MOE}.experts.#.w1",
    "blk.*.ffn_down_exps": f"{_MOE}.experts.#.w2",
    "blk.*.ffn_up_exps": f"{_MOE}.experts.#.w3",
}
_MIXTRAL = {
    **LLAMA,
    **MIXTRAL_EXPERTS,
    "blk.*.exp_probs_b.bias": f"{_MOE}.e_score_correction_bias",
}
_EXAONE = {**_ROUTED, "blk.*.exp_probs_b.bias": f"{LAYER}.mlp.e_score_correction_bias"}
_OLMOE = {**LLAMA, **routed(f"{LAYER}.mlp", "")}
GRANITE = {
    **LLAMA,
    "blk.*.ffn_gate_inp": f"{_MOE}.router.layer",
    "blk.*.ffn_down_exps": f"{_MOE}.output_linear",
    "blk.*.ffn_down_shexp": f"{LAYER}.shared_mlp.output_linear",
}
_DBRX_BLOCK = "transformer.blocks.*"
_DBRX = {
    "token_embd": "transformer.wte",
    "output_norm": "transformer.norm_f",
    "output": "lm_head",
    "blk.*.attn_norm": f"{_DBRX_BLOCK}.norm_attn_norm.norm_1",
    "blk.*.attn_qkv": f"{_DBRX_BLOCK}.norm_attn_norm.attn.Wqkv",
    "blk.*.attn_output": f"{_DBRX_BLOCK}.norm_attn_norm.attn.out_proj",
    "blk.*.attn_output_norm": f"{_DBRX_BLOCK}.norm_attn_norm.norm_2",
    "blk.*.ffn_gate_inp": f"{_DBRX_BLOCK}.ffn.router.layer",
    "blk.*.ffn_gate_exps.weight": f"{_DBRX_BLOCK}.ffn.experts.mlp.w1",
    "blk.*.ffn_up_exps.weight": f"{_DBRX_BLOCK}.ffn.experts.mlp.v1",
    "blk.*.ffn_down_exps.weight": f"{_DBRX_BLOCK}.ffn.experts.mlp.w2",
}


def gate_up(name: str, which: str = "_exps", made: Made = concatenated) -> Join:
    """What the checkpoint calls `name`, of gate and up of the experts, or of other MLPs."""
    return Join(name, tuple(f"blk.*.ffn_{one}{which}.weight" for one in ("gate", "up")), made)


GRANITE_SHARED = f"{LAYER}.shared_mlp.input_linear.weight"
GRANITE_JOINS = gate_up(f"{_MOE}.input_linear.weight"), gate_up(GRANITE_SHARED, "_shexp")
_KV_B = Join(
    f"{_ATTENTION}.kv_b_proj.weight",
    ("blk.*.attn_k_b.weight", "blk.*.attn_v_b.weight"),
    keys_and_values,
    unless="blk.*.attn_kv_b.weight",
)


def _in_front(tensor: Readable) -> Readable:
    """[experts] as [1, experts]."""
    return Reshaped(tensor, (1, *tensor.shape)) if len(tensor.shape) == 1 else tensor


def _stacked(tensor: Readable) -> Readable:
    """[experts, outputs, inputs] as [experts outputs, inputs]."""
    if len(tensor.shape) != 3:
        return tensor
    experts, outputs, inputs = tensor.shape
    return Reshaped(tensor, (experts * outputs, inputs))


def _turned_and_stacked(tensor: Readable) -> Readable:
    return _stacked(EachTurned(tensor)) if len(tensor.shape) == 3 else tensor


DEEPSEEK = {
    "expert_count": "n_routed_experts",
    "expert_used_count": "num_experts_per_tok",
    "expert_shared_count": "n_shared_experts",
    "expert_feed_forward_length": "moe_intermediate_size",
    "expert_weights_scale": "routed_scaling_factor",
    "leading_dense_block_count": "first_k_dense_replace",
}
_GROUPED = {
    **DEEPSEEK,
    "expert_weights_norm": "norm_topk_prob",
    "expert_group_count": "n_group",
    "expert_group_used_count": "topk_group",
}
LATENT = {
    **_GROUPED,
    "attention.q_lora_rank": "q_lora_rank",
    "attention.kv_lora_rank": "kv_lora_rank",
    "rope.dimension_count": "qk_rope_head_dim",
}
OF_LOCAL = {"expert_count": "num_local_experts", "expert_used_count": "num_experts_per_tok"}
OF_ALL = {"expert_count": "num_experts", "expert_used_count": "num_experts_per_tok"}
GRANITE_KEYS = {
    **OF_LOCAL,
    "expert_shared_feed_forward_length": "shared_intermediate_size",
    "embedding_scale": "embedding_multiplier",
    "residual_scale": "residual_multiplier",
    "logit_scale": "logits_scaling",
}
# Files made before there was a key for it do not have DeepSeek V3's groups, of 256 experts
_V3_EXPERTS, _V3_GROUPS = 256, {"n_group": 8, "topk_group": 4}
YARN = "rope.scaling.yarn_log_multiplier"


def latent(fields: Fields, tensors: Tensors, found: Found) -> Found:
    """What no row says of latent attention; V2 and V3 are told apart by how experts are scored."""
    biased = any(name.endswith("exp_probs_b.bias") for name in tensors)
    sigmoid = fields.number("expert_gating_func", SIGMOID if biased else SOFTMAX) == SIGMOID
    if not sigmoid:
        fields.constant("expert_gating_func", SOFTMAX)
    own = "_mla" if "attention.key_length_mla" in fields else ""
    rope = fields.integer("rope.dimension_count", high=MAX_HEADS)
    key = fields.integer(f"attention.key_length{own}", low=rope + 1, high=2 * MAX_HEADS)
    squeezed = any(name.endswith("attn_q_a.weight") for name in tensors)
    said: Found = {
        "q_lora_rank": found["q_lora_rank"] if squeezed else None,
        "qk_nope_head_dim": key - rope,
        "v_head_dim": fields.integer(f"attention.value_length{own}", high=MAX_HEADS),
        "mlp_layer_types": mlp_types(tensors, found["num_hidden_layers"]),
        "head_dim": None,
        "partial_rotary_factor": None,
        "rope_scaling": _with_magnitude(fields, found["rope_scaling"]),
    }
    if not sigmoid:
        grouped = found.get("n_group", 1) > 1
        method = "group_limited_greedy" if grouped else "greedy"
        return said | {"architectures": ["DeepseekV2ForCausalLM"], "topk_method": method}
    return said


def _deepseek_2(fields: Fields, tensors: Tensors, found: Found) -> Found:
    said = latent(fields, tensors, found)
    older = "architectures" not in said and "expert_group_count" not in fields
    if older and found["n_routed_experts"] == _V3_EXPERTS:
        said |= _V3_GROUPS
    return said


def _with_magnitude(fields: Fields, scaling: Found | None) -> Found | None:
    """With what scores are multiplied by, of which files say a tenth."""
    if YARN not in fields:
        return scaling
    if scaling is None or scaling["type"] != "yarn":
        raise UnsupportedError(
            f"{fields.where}: {YARN} is {fields.raw[YARN]!r:.60} without rope.scaling.type yarn, "
            "which is not supported; use the model's safetensors."
        )
    magnitude = round(10 * fields.number(YARN), 6)
    return {**scaling, "mscale": magnitude, "mscale_all_dim": magnitude}


def granite_scores(fields: Fields, tensors: Tensors, found: Found) -> Found:
    """What scores are multiplied by: the usual where no key says it."""
    usual = 1 / math.sqrt(found["head_dim"])
    return {"attention_multiplier": fields.number("attention.scale", usual)}


def _exaone(fields: Fields, tensors: Tensors, found: Found) -> Found:
    return pattern(fields, 4) if found["sliding_window"] else {}


def _dbrx(fields: Fields, tensors: Tensors, found: Found) -> Found:
    fields.constant("attention.layer_norm_epsilon", 1e-5)  # which config.json does not say
    return {
        "attn_config": {
            "clip_qkv": fields.optional_number("attention.clamp_kqv"),
            "kv_n_heads": found["num_key_value_heads"],
            "rope_theta": found["rope_theta"],
        },
        "ffn_config": {
            "ffn_hidden_size": fields.integer("feed_forward_length"),
            "moe_num_experts": value(fields, "expert_count"),
            "moe_top_k": value(fields, "expert_used_count"),
        },
        "head_dim": None,
    }


LATENT_CONVERTED = Converted(_LATENT, joined=(_KV_B,), behind=True)
LATENT_FLAGS = {"attention_bias": "blk.*.attn_output.bias"}
_GRANITE = partial(
    Stated,
    keys=GRANITE_KEYS,
    present=ATTENTION_BIAS,
    more=granite_scores,
    reads=("attention.scale",),
)
MIXTURES: Mapping[str, Stated] = {
    "deepseek": Stated(
        "DeepseekForCausalLM", Converted(_ROUTED, paired=True), DEEPSEEK, ATTENTION_BIAS,
        said={"norm_topk_prob": False},
    ),
    "deepseek2": Stated(
        "DeepseekV3ForCausalLM", LATENT_CONVERTED, LATENT, LATENT_FLAGS, more=_deepseek_2,
        reads=(YARN,), gating=None,
    ),
    "glm4moe": Stated(
        "Glm4MoeForCausalLM", Converted(_GLM_4, behind=True), _GROUPED,
        {**ATTENTION_BIAS, "use_qk_norm": "blk.*.attn_q_norm.weight"}, gating=SIGMOID,
    ),
    "dots1": Stated(
        "Dots1ForCausalLM", Converted(_ROUTED), _GROUPED, ATTENTION_BIAS, gating=SIGMOID
    ),
    "ernie4_5-moe": Stated(
        "Ernie4_5_MoeForCausalLM", Converted(_ERNIE, undone={_ERNIE_BIAS: plain(_in_front)}),
        {
            "expert_count": "moe_num_experts",
            "expert_used_count": "moe_k",
            "expert_shared_count": "moe_num_shared_experts",
            "expert_feed_forward_length": "moe_intermediate_size",
            "leading_dense_block_count": "moe_layer_start_index",
            "interleave_moe_layer_step": "moe_layer_interval",
        },
        {"use_bias": "blk.*.attn_q.bias"},
    ),
    "hunyuan-dense": Stated("HunYuanDenseV1ForCausalLM", Converted(_HUNYUAN), {}, ATTENTION_BIAS),
    "hunyuan-moe": Stated(
        "HunYuanMoEV1ForCausalLM", Converted(_HUNYUAN),
        {
            "expert_count": "num_experts",
            "expert_used_count": "moe_topk",
            "expert_shared_count": "num_shared_expert",
            "expert_feed_forward_length": "moe_intermediate_size",
        },
        ATTENTION_BIAS,
    ),
    "minimax-m2": Stated(
        "MiniMaxM2ForCausalLM", Converted(_MIXTRAL), OF_LOCAL, gating=SIGMOID
    ),
    "olmoe": Stated(
        "OlmoeForCausalLM", Converted(_OLMOE), OF_ALL, ATTENTION_BIAS, {"norm_topk_prob": False}
    ),
    "phimoe": Stated(
        "PhiMoEForCausalLM", Converted(_MIXTRAL),
        {**OF_LOCAL, "attention.sliding_window": "sliding_window"},
        {**ATTENTION_BIAS, "lm_head_bias": "output.bias"},
    ),
    "exaone-moe": Stated(
        "ExaoneMoeForCausalLM", Converted(_EXAONE),
        {
            **_GROUPED,
            "expert_count": "num_experts",
            "expert_shared_count": "num_shared_experts",
            "attention.sliding_window": "sliding_window",
        },
        more=_exaone, gating=SIGMOID,
    ),
    "granitemoe": _GRANITE(
        "GraniteMoeForCausalLM", Converted(GRANITE, paired=True, joined=GRANITE_JOINS)
    ),
    "dbrx": Stated(
        "DbrxForCausalLM",
        Converted(
            _DBRX,
            undone={
                "blk.*.ffn_gate_exps.weight": plain(_stacked),
                "blk.*.ffn_up_exps.weight": plain(_stacked),
                "blk.*.ffn_down_exps.weight": plain(_turned_and_stacked),
            },
        ),
        renamed={
            "hidden_size": "d_model", "num_attention_heads": "n_heads",
            "num_hidden_layers": "n_layers", "max_position_embeddings": "max_seq_len",
        },
        more=_dbrx, reads=("attention.clamp_kqv",), epsilon="attention.layer_norm_epsilon",
    ),
}  # fmt: skip
