"""K-EXAONE: EXAONE 4 with norms before attention and MLP, and the experts of DeepSeek V3.

The layers that predict further tokens are not read.
"""

from collections.abc import Mapping
from typing import Any

from models.architectures import exaone4, llama
from models.config.decoder import ModelConfig
from models.config.experts import read_biased_mixture, read_first_dense, routed_names
from models.config.fields import Fields
from models.weights.decoder import weight_map
from models.weights.sources import Names, WeightMap

ARCHITECTURES = ("ExaoneMoeForCausalLM",)
DEFAULTS = {
    **exaone4.DEFAULTS,
    "first_k_dense_replace": 1,
    "moe_intermediate_size": 1024,
    "num_experts": 64,
    "num_experts_per_tok": 8,
    "num_shared_experts": 1,
    "routed_scaling_factor": 2.5,
}
KEYS = {"n_routed_experts": "num_experts", "n_shared_experts": "num_shared_experts"}
MLP = f"{llama.LAYER}.mlp"
NAMES: Names = {
    **llama.NAMES,
    "layers.*.mlp.choice_bias": f"{MLP}.e_score_correction_bias",
    **routed_names(MLP, "shared_experts"),
}


def config(raw: Mapping[str, Any]) -> ModelConfig:
    fields = Fields({**DEFAULTS, **raw}, names=KEYS)
    mixture = read_biased_mixture(fields)
    return exaone4.hybrid(fields, experts=read_first_dense(fields), mixture=mixture)


def weights(config: ModelConfig) -> WeightMap:
    return weight_map(config, NAMES, ignored=("mtp.*",))
