"""DeepSeek V2 and V2-Lite: V3's latent attention, experts scored by a softmax and no bias."""

from collections.abc import Mapping
from typing import Any

from models.architectures import deepseek_v3
from models.config.decoder import ModelConfig
from models.config.experts import MAX_EXPERTS, read_routed_mixture
from models.config.fields import Fields

ARCHITECTURES = ("DeepseekV2ForCausalLM",)
DEFAULTS = {
    "n_routed_experts": 64,
    "n_shared_experts": 2,
    "first_k_dense_replace": 0,
    "moe_intermediate_size": 1407,
    "n_group": 1,
    "topk_group": 1,
}

weights = deepseek_v3.weights


def config(raw: Mapping[str, Any]) -> ModelConfig:
    given = {key: value for key, value in raw.items() if value is not None}
    fields = Fields({**DEFAULTS, **given})
    fields.option("scoring_func", ("softmax",), "softmax")
    fields.refuse("norm_topk_prob", "mlp_bias")
    fields.required("rope_interleave")
    grouped = fields.option("topk_method", ("greedy", "group_limited_greedy"), "greedy") != "greedy"
    groups = fields.integer("n_group", high=MAX_EXPERTS) if grouped else 1
    mixture = read_routed_mixture(
        fields,
        renormalize=False,
        groups=groups,
        kept_groups=fields.integer("topk_group", high=groups) if grouped else 1,
        best_in_group=1,
    )
    return deepseek_v3.latent_model(fields, mixture)
