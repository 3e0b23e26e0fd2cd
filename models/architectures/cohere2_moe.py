"""Command A+: Command R7B with experts behind the first layers, and one that all tokens go through.

Of layers without a window those rotate that have no experts, if all such layers are without one.
"""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from models.architectures import cohere, cohere2, llama
from models.config.decoder import Mixture, ModelConfig
from models.config.experts import (
    MAX_EXPERTS,
    read_activation,
    read_chosen,
    read_first_dense,
    routed_names,
)
from models.config.fields import MAX_LAYERS, Fields
from models.config.heads import read_head_dim
from models.config.rope import read_rope
from models.config.windows import read_windows
from models.weights.decoder import weight_map
from models.weights.sources import Names, WeightMap

ARCHITECTURES = ("Cohere2MoeForCausalLM",)
PATTERN = "sliding_window_pattern"
PREFIX = f"prefix_dense_{PATTERN}"
DEFAULTS = {**cohere2.DEFAULTS, "head_dim": 128, "num_experts": 8, "num_experts_per_tok": 2}
NAMES: Names = {**llama.NAMES, **routed_names(f"{llama.LAYER}.mlp", "shared_experts")}


def config(raw: Mapping[str, Any]) -> ModelConfig:
    rms = raw.get("rms_norm_eps") is not None
    fields = Fields({**DEFAULTS, **raw}, names={} if rms else cohere.RENAMED)
    sparse, mixture = read_first_dense(fields), _mixture(fields)
    first = fields.integer("first_k_dense_replace", 0, low=0, high=MAX_LAYERS)
    before, behind = fields.integer(PREFIX, 1), fields.integer(PATTERN)

    def slides(layer: int) -> bool:
        return (layer + 1) % before != 0 if layer < first else (layer - first + 1) % behind != 0

    windows = read_windows(fields, slides)
    rope = read_rope(fields, read_head_dim(fields))
    ropes = [
        rope if window or (before == 1 and not experts) else None
        for window, experts in zip(windows, sparse, strict=True)
    ]
    size = fields.integer("prefix_dense_intermediate_size", mixture.intermediate_size)
    base = cohere.dense(
        fields.replaced("intermediate_size", size),
        windows=windows,
        ropes=ropes,
        experts=sparse,
        mixture=mixture,
    )
    return replace(base, norm="rms" if rms else "layer")


def _mixture(fields: Fields) -> Mixture:
    experts = fields.integer("num_experts", high=MAX_EXPERTS)
    size = fields.integer("intermediate_size")
    sigmoid = fields.option("expert_selection_fn", ("softmax", "sigmoid"), "softmax") == "sigmoid"
    together = fields.option("shared_expert_combination_strategy", ("average", "sum"), "average")
    return Mixture(
        num_experts=experts,
        per_token=read_chosen(fields, experts),
        intermediate_size=size,
        score="sigmoid" if sigmoid else "softmax",
        renormalize=fields.flag("norm_topk_prob", True) or not sigmoid,
        shared_size=size * fields.integer("num_shared_experts", 0, low=0, high=MAX_EXPERTS),
        shared_mean=together == "average",
        activation=read_activation(fields),
    )


def weights(config: ModelConfig) -> WeightMap:
    return weight_map(config, NAMES, paired=True)
