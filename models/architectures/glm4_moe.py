"""GLM-4.5, 4.6 and 4.7: experts chosen as DeepSeek V3 does, half of each head rotated.

The layer behind the last, which predicts a further token, is read by `models/layers/mtp.py` only.
"""

from collections.abc import Mapping
from typing import Any

from models.architectures import llama
from models.config.decoder import ModelConfig, QKNorm
from models.config.experts import read_biased_mixture, read_first_dense, routed_names
from models.config.fields import Fields
from models.weights.decoder import weight_map
from models.weights.mtp import behind_last_layer, layers_behind
from models.weights.sources import Names, WeightMap

ARCHITECTURES = ("Glm4MoeForCausalLM",)
DEFAULTS = {
    "n_routed_experts": 128,
    "num_experts_per_tok": 8,
    "n_shared_experts": 1,
    "moe_intermediate_size": 1408,
    "first_k_dense_replace": 1,
    "partial_rotary_factor": 0.5,
    "rms_norm_eps": 1e-5,
}
MLP = f"{llama.LAYER}.mlp"
NAMES: Names = {
    **llama.NAMES,
    "layers.*.mlp.choice_bias": f"{MLP}.gate.e_score_correction_bias",
    **routed_names(MLP, "shared_experts"),
}

mtp = behind_last_layer


def config(raw: Mapping[str, Any]) -> ModelConfig:
    fields = Fields({**DEFAULTS, **raw})
    return llama.dense(
        fields,
        experts=read_first_dense(fields),
        mixture=read_biased_mixture(fields),
        qk_norm=QKNorm() if fields.flag("use_qk_norm", False) else None,
        qkv_bias=fields.flag("attention_bias", False),
    )


def weights(config: ModelConfig) -> WeightMap:
    return weight_map(config, NAMES, ignored=layers_behind(config))
