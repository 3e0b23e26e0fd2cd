"""StableLM 3B and 2: layer norms, a quarter of each head rotated, in some sizes a parallel MLP."""

from collections.abc import Mapping
from typing import Any

from models.architectures import llama
from models.config.decoder import ModelConfig, QKNorm
from models.config.fields import Fields
from models.weights.decoder import weight_map
from models.weights.sources import Names, WeightMap

ARCHITECTURES = ("StableLmForCausalLM",)
DEFAULTS = {"layer_norm_eps": 1e-5, "partial_rotary_factor": 0.25}
NAMES: Names = {
    **llama.NAMES,
    "layers.*.attention.q_norm": f"{llama.LAYER}.self_attn.q_layernorm.norms.#",
    "layers.*.attention.k_norm": f"{llama.LAYER}.self_attn.k_layernorm.norms.#",
}


def config(raw: Mapping[str, Any]) -> ModelConfig:
    fields = Fields({**DEFAULTS, **raw}, names={"rms_norm_eps": "layer_norm_eps"})
    each_head = QKNorm("heads", norm="layer")
    return llama.dense(
        fields,
        norm="layer",
        norm_bias=True,
        parallel="one norm" if fields.flag("use_parallel_residual", False) else None,
        qk_norm=each_head if fields.flag("qk_layernorm", False) else None,
        qkv_bias=fields.flag("use_qkv_bias", False),
    )


def weights(config: ModelConfig) -> WeightMap:
    return weight_map(config, NAMES)
