"""Llama 4: attention within chunks, and everywhere in layers without positions; experts that read
what the router scaled. Of checkpoints that take images, tensors of vision stay unread."""

from collections.abc import Mapping
from typing import Any

from models.architectures import llama, smollm3
from models.config.decoder import Mixture, ModelConfig, QKNorm, ScoreGrowth
from models.config.experts import MAX_EXPERTS, read_activation, read_chosen, routed_names
from models.config.fields import MAX_LAYERS, MAX_TOKENS, Fields
from models.config.heads import read_head_dim
from models.config.rope import read_rope
from models.weights.decoder import prefixed, weight_map
from models.weights.sources import Names, WeightMap

WITH_IMAGES = "Llama4ForConditionalGeneration"
ARCHITECTURES = ("Llama4ForCausalLM", WITH_IMAGES)
DEFAULTS = {
    "head_dim": 128,
    "num_key_value_heads": 8,
    "intermediate_size_mlp": 16384,
    "max_position_embeddings": 131072,
    "no_rope_layer_interval": 4,
    "num_local_experts": 16,
    "num_experts_per_tok": 1,
    "rms_norm_eps": 1e-5,
    "rope_theta": 5e5,
}
UNREAD = ("vision_model.*", "multi_modal_projector.*")
BLOCK = f"{llama.LAYER}.feed_forward"
NAMES: Names = {
    **llama.NAMES,
    **routed_names(BLOCK, "shared_expert"),
    "layers.*.mlp.gate_up": (f"{BLOCK}.gate_proj", f"{BLOCK}.up_proj"),
    "layers.*.mlp.down": f"{BLOCK}.down_proj",
    "layers.*.mlp.router": f"{BLOCK}.router",
    "layers.*.mlp.experts.gate_up": f"{BLOCK}.experts.gate_up_proj",
    "layers.*.mlp.experts.down": f"{BLOCK}.experts.down_proj",
}


def config(raw: Mapping[str, Any]) -> ModelConfig:
    text = Fields(raw)
    if WITH_IMAGES in text.texts("architectures"):
        text = text.section("text_config").replaced("architectures", [WITH_IMAGES])
    listed = text.raw.get("no_rope_layers") or None  # empty in early files
    fields = Fields({**DEFAULTS, **text.raw, "no_rope_layers": listed}, text.where)
    rotated, rope = smollm3.read_rotated(fields), read_rope(fields, read_head_dim(fields))
    chunk = fields.integer("attention_chunk_size", 8192, high=MAX_TOKENS)
    fields.refuse("attention_bias")
    normed = fields.flag("use_qk_norm", True)
    tuned = fields.raw.get("attn_temperature_tuning", True) not in (False, 0)  # 4 in early files
    scale, period = fields.number("attn_scale", 0.1), fields.integer("floor_scale", 8192)
    growth = ScoreGrowth(scale, period, offset=1, rotated=False)
    return llama.dense(
        fields.replaced("intermediate_size", fields.integer("intermediate_size_mlp")),
        ropes=[rope if one else None for one in rotated],
        chunks=[chunk if one else None for one in rotated],
        experts=_read_sparse(fields), mixture=_read_mixture(fields),
        qk_norm=QKNorm(weight=False, unrotated=False) if normed else None,
        score_growth=growth if tuned else None,
    )  # fmt: skip


def _read_sparse(fields: Fields) -> list[bool]:
    layers = fields.integer("num_hidden_layers", high=MAX_LAYERS)
    every = fields.integer("interleave_moe_layer_step", 1, high=MAX_LAYERS)
    listed = fields.integers("moe_layers", high=MAX_LAYERS)
    if "moe_layers" in fields:
        return [layer in listed for layer in range(layers)]
    return [(layer + 1) % every == 0 for layer in range(layers)]


def _read_mixture(fields: Fields) -> Mixture:
    experts = fields.integer("num_local_experts", high=MAX_EXPERTS)
    size = fields.integer("intermediate_size")
    return Mixture(
        num_experts=experts, per_token=read_chosen(fields, experts), intermediate_size=size,
        score="sigmoid", renormalize=False, weigh_inputs=True, shared_size=size,
        activation=read_activation(fields),
    )  # fmt: skip


def weights(config: ModelConfig) -> WeightMap:
    inner = "language_model." if config.architecture == WITH_IMAGES else ""
    return weight_map(
        config, prefixed(NAMES, inner), paired=True, expert_columns=True, ignored=UNREAD,
        optional_prefix="" if inner else "model.",
    )  # fmt: skip
