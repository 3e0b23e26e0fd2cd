"""Phi 1, 1.5 and 2: attention and MLP in parallel behind one layer norm, biases everywhere."""

from collections.abc import Mapping
from typing import Any

from models.architectures import llama
from models.config.decoder import ModelConfig, QKNorm
from models.config.fields import Fields
from models.weights.decoder import weight_map
from models.weights.sources import Names, WeightMap

ARCHITECTURES = ("PhiForCausalLM",)
DEFAULTS = {"hidden_act": "gelu_new", "layer_norm_eps": 1e-5, "partial_rotary_factor": 0.5}
NAMES: Names = {
    **llama.NAMES,
    "layers.*.attention.q_norm": f"{llama.LAYER}.self_attn.q_layernorm",
    "layers.*.attention.k_norm": f"{llama.LAYER}.self_attn.k_layernorm",
    "layers.*.attention.o": f"{llama.LAYER}.self_attn.dense",
    "layers.*.mlp.up": f"{llama.LAYER}.mlp.fc1",
    "layers.*.mlp.down": f"{llama.LAYER}.mlp.fc2",
    "norm": "model.final_layernorm",
}


def config(raw: Mapping[str, Any]) -> ModelConfig:
    fields = Fields({**DEFAULTS, **raw}, names={"rms_norm_eps": "layer_norm_eps"})
    fields.refuse("tie_word_embeddings")
    normed = QKNorm(norm="layer", bias=True)
    return llama.dense(
        fields, norm="layer", norm_bias=True, parallel="one norm", gated_mlp=False,
        qk_norm=normed if fields.flag("qk_layernorm", False) else None,
        qkv_bias=True, o_bias=True, mlp_bias=True, head_bias=True,
    )  # fmt: skip


def weights(config: ModelConfig) -> WeightMap:
    return weight_map(config, NAMES)
