"""Arcee's Trinity (AFMoE): heads normed and gated, full layers without positions, norms on both
sides of attention and MLP, and the experts of DeepSeek V3."""

import math
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from models.architectures import gemma2, llama
from models.config.decoder import ModelConfig, QKNorm
from models.config.experts import read_biased_mixture, read_first_dense, routed_names
from models.config.fields import MAX_LAYERS, Fields
from models.config.heads import read_head_dim
from models.config.rope import read_rope
from models.config.windows import read_windows
from models.weights.decoder import weight_map
from models.weights.sources import Names, Part, Source, WeightMap

ARCHITECTURES = ("AfmoeForCausalLM",)
KEYS = {
    "n_routed_experts": "num_experts",
    "n_shared_experts": "num_shared_experts",
    "first_k_dense_replace": "num_dense_layers",
    "routed_scaling_factor": "route_scale",
    "scoring_func": "score_func",
    "norm_topk_prob": "route_norm",
}
DEFAULTS = {
    "head_dim": 128,
    "rms_norm_eps": 1e-5,
    "sliding_window": 1024,
    "global_attn_every_n_layers": 4,
    "moe_intermediate_size": 1408,
    "num_experts": 64,
    "num_experts_per_tok": 6,
    "num_shared_experts": 2,
    "num_dense_layers": 1,
}
MLP = f"{llama.LAYER}.mlp"
NAMES: Names = {
    **gemma2.NAMES,
    "layers.*.mlp_norm": f"{llama.LAYER}.pre_mlp_layernorm",
    "layers.*.mlp_post_norm": f"{llama.LAYER}.post_mlp_layernorm",
    **routed_names(MLP, "shared_experts"),
    "layers.*.mlp.router": f"{MLP}.router.gate",
    "layers.*.mlp.choice_bias": f"{MLP}.expert_bias",
}


def config(raw: Mapping[str, Any]) -> ModelConfig:
    fields = Fields({**DEFAULTS, **raw}, names=KEYS)
    fields.refuse("attention_bias")
    every = fields.integer("global_attn_every_n_layers", high=MAX_LAYERS)
    windows = read_windows(fields, lambda layer: (layer + 1) % every != 0)
    rope, scaled = read_rope(fields, read_head_dim(fields)), fields.flag("mup_enabled", False)
    return llama.dense(
        fields,
        windows=windows,
        ropes=[rope if window else None for window in windows],
        experts=read_first_dense(fields),
        mixture=read_biased_mixture(fields),
        embedding_scale=math.sqrt(fields.integer("hidden_size")) if scaled else 1.0,
        qk_norm=QKNorm(),
        output_gate=True,
        post_norms=True,
    )


def weights(config: ModelConfig) -> WeightMap:
    ungated = weight_map(replace(config, output_gate=False), NAMES)
    return replace(ungated, sources={**ungated.sources, **_gates(config)})


def _gates(config: ModelConfig) -> dict[str, Source]:
    """Of heads, from tensors of their own."""

    def gate(layer: int) -> Source:
        name = f"model.layers.{layer}.self_attn.gate_proj.weight"
        return Source((Part(name, config.num_heads, config.head_dim),), 1, True)

    layers = range(config.num_layers)
    return {f"layers.{layer}.attention.gate.kernel": gate(layer) for layer in layers}
