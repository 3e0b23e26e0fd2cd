"""GLM-5: the index of DeepSeek V3.2, which rotates pairs of neighbours as the latents do.

Some layers may see what the layer before them has chosen. Source: arXiv 2603.12201.
"""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from models.architectures import deepseek_v32
from models.config.decoder import ModelConfig
from models.config.fields import MAX_LAYERS, Fields
from models.weights.decoder import weight_map
from models.weights.mtp import layers_behind
from models.weights.sources import WeightMap

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
_LETTERS = {"F": "full", "S": "shared"}


def config(raw: Mapping[str, Any]) -> ModelConfig:
    fields = Fields({**DEFAULTS, **raw})
    fields.required("rope_interleave")
    fields.required("indexer_rope_interleave")
    model = deepseek_v32.indexed_model(fields, heads=32)
    kinds = zip(model.layer_kinds, _chosen_before(fields, model.num_layers), strict=True)
    return replace(
        model, layer_kinds=tuple(replace(kind, chosen_before=before) for kind, before in kinds)
    )


def _chosen_before(fields: Fields, layers: int) -> tuple[bool, ...]:
    """Which layers see what the layer before them does: by list, by letters, or all but a few."""
    for key in ("indexer_types", "index_topk_pattern"):
        value = fields.raw.get(key)
        if isinstance(value, str):
            fields = fields.replaced(key, [_LETTERS.get(letter, letter) for letter in value])
        if key in fields:
            types = fields.options(key, layers, tuple(_LETTERS.values()))
            return tuple(one == "shared" for one in types)
    every = fields.integer("index_topk_freq", 1, high=MAX_LAYERS)
    first = fields.integer("index_skip_topk_offset", 2, low=0, high=MAX_LAYERS)
    return tuple(max(layer - first + 1, 0) % every != 0 for layer in range(layers))


def weights(config: ModelConfig) -> WeightMap:
    return weight_map(config, deepseek_v32.NAMES, paired=True, ignored=layers_behind(config))
