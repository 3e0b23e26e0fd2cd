"""GLM-5: the index of DeepSeek V3.2, which rotates pairs of neighbours as the latents do."""

from collections.abc import Mapping
from typing import Any

from models.architectures import deepseek_v32
from models.config import ModelConfig
from models.fields import MAX_LAYERS, Fields
from models.weight_map import weight_map
from models.weights import WeightMap

ARCHITECTURES = ("GlmMoeDsaForCausalLM",)
DEFAULTS = {
    "n_routed_experts": 256,
    "num_experts_per_tok": 8,
    "n_shared_experts": 1,
    "moe_intermediate_size": 2048,
    "first_k_dense_replace": 3,
    "routed_scaling_factor": 2.5,
    "q_lora_rank": 2048,
    "qk_nope_head_dim": 192,
    "v_head_dim": 256,
    "rms_norm_eps": 1e-5,
}

mtp = deepseek_v32.mtp


def config(raw: Mapping[str, Any]) -> ModelConfig:
    fields = Fields({**DEFAULTS, **raw})
    fields.required("rope_interleave")
    fields.required("indexer_rope_interleave")
    _refuse_shared(fields)
    return deepseek_v32.indexed_model(fields, heads=32)


def _refuse_shared(fields: Fields) -> None:
    """Layers that see what the layer before them chose are not known."""
    layers = fields.integer("num_hidden_layers", high=MAX_LAYERS)
    fields.constant("index_topk_freq", 1.0)
    for key in ("indexer_types", "index_topk_pattern"):
        value = fields.raw.get(key)
        if isinstance(value, str):  # a letter a layer
            fields = fields.replaced(key, ["full" if one == "F" else one for one in value])
        if key in fields:
            fields.options(key, layers, ("full",))


def weights(config: ModelConfig) -> WeightMap:
    last = config.num_layers
    return weight_map(config, deepseek_v32.NAMES, paired=True, ignored=(f"model.layers.{last}.*",))
