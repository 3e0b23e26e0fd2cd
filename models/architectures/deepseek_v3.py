"""DeepSeek V3 and R1, Kimi K2: latent attention, and many experts chosen by groups and a bias.

The layer behind the last, which predicts a further token, is read by `models/layers/mtp.py` only.
"""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from models.architectures import llama
from models.config.decoder import Latent, LatentIndex, LayerKind, Mixture, ModelConfig
from models.config.experts import read_biased_mixture, read_first_dense, routed_names
from models.config.fields import MAX_HEADS, Fields
from models.config.rope import read_rope, yarn_score_scale
from models.weights.decoder import weight_map
from models.weights.mtp import behind_last_layer, layers_behind
from models.weights.sources import Names, WeightMap

ARCHITECTURES = ("DeepseekV3ForCausalLM",)
DEFAULTS = {
    "n_routed_experts": 256,
    "num_experts_per_tok": 8,
    "n_shared_experts": 1,
    "first_k_dense_replace": 3,
    "norm_topk_prob": True,
    "routed_scaling_factor": 2.5,
    "n_group": 8,
    "topk_group": 4,
}
ATTENTION, MLP = f"{llama.LAYER}.self_attn", f"{llama.LAYER}.mlp"
NAMES: Names = {
    **llama.NAMES,
    "layers.*.attention.q_down": f"{ATTENTION}.q_a_proj",
    "layers.*.attention.q_norm": f"{ATTENTION}.q_a_layernorm",
    "layers.*.attention.q_up": f"{ATTENTION}.q_b_proj",
    "layers.*.attention.kv_down": f"{ATTENTION}.kv_a_proj_with_mqa",
    "layers.*.attention.kv_norm": f"{ATTENTION}.kv_a_layernorm",
    "layers.*.attention.kv_up": f"{ATTENTION}.kv_b_proj",
    "layers.*.mlp.choice_bias": f"{MLP}.gate.e_score_correction_bias",
    **routed_names(MLP, "shared_experts"),
}

mtp = behind_last_layer


def config(raw: Mapping[str, Any]) -> ModelConfig:
    fields = Fields({**DEFAULTS, **raw})
    return latent_model(fields, read_biased_mixture(fields))


def latent_model(
    fields: Fields, mixture: Mixture | None, index: LatentIndex | None = None
) -> ModelConfig:
    """The keys that all with latent attention write alike."""
    latent = Latent(
        query_rank=fields.integer("q_lora_rank") if "q_lora_rank" in fields else None,
        rank=fields.integer("kv_lora_rank", 512),
        key_dim=fields.integer("qk_nope_head_dim", 128, high=MAX_HEADS),
        rope_dim=fields.integer("qk_rope_head_dim", 64, high=MAX_HEADS),
        value_dim=fields.integer("v_head_dim", 128, high=MAX_HEADS),
        index=index,
        paired=fields.flag("rope_interleave", True),
    )
    bias = fields.flag("attention_bias", False)
    base = llama.dense(
        fields.replaced("num_key_value_heads", 1).replaced("head_dim", latent.rope_dim),
        mixture=mixture,
        latent=latent,
        qkv_bias=bias,
        o_bias=bias,
    )
    rope = read_rope(fields, latent.rope_dim)
    sparse = read_first_dense(fields) if mixture else [False] * base.num_layers
    kinds = tuple(LayerKind(rope=rope, experts=experts) for experts in sparse)
    scale = (latent.key_dim + latent.rope_dim) ** -0.5 * yarn_score_scale(fields)
    width = latent.rank + latent.rope_dim
    return replace(base, head_dim=width, layer_kinds=kinds, attention_scale=scale)


def weights(config: ModelConfig) -> WeightMap:
    latent = config.latent
    whole = latent is not None and latent.query_rank is None
    names = {**NAMES, "layers.*.attention.q_up": f"{ATTENTION}.q_proj"} if whole else NAMES
    return weight_map(config, names, ignored=layers_behind(config))
