"""Bamba: Mamba-2 in most layers, attention whose heads are rotated in part in a few."""

from collections.abc import Mapping
from typing import Any

from models.architectures import llama
from models.config import dual_scans
from models.config.decoder import ModelConfig
from models.config.fields import MAX_LAYERS, Fields
from models.config.hybrids import with_states
from models.weights.decoder import weight_map
from models.weights.sources import Names, WeightMap

ARCHITECTURES = ("BambaForCausalLM",)
DEFAULTS = {
    **dual_scans.DEFAULTS, "num_key_value_heads": 8, "max_position_embeddings": 262144,
    "rms_norm_eps": 1e-5, "partial_rotary_factor": 0.5,
}  # fmt: skip
MLP = f"{llama.LAYER}.feed_forward"
NAMES: Names = {
    **llama.NAMES,
    **dual_scans.dual_names(f"{llama.LAYER}.mamba"),
    "layers.*.mlp_norm": f"{llama.LAYER}.pre_ff_layernorm",
    "layers.*.mlp.gate_up": (f"{MLP}.gate_proj", f"{MLP}.up_proj"),
    "layers.*.mlp.down": f"{MLP}.down_proj",
    "norm": "model.final_layernorm",
}


def config(raw: Mapping[str, Any]) -> ModelConfig:
    fields = Fields({**DEFAULTS, **raw})
    bias, mlp_bias = fields.flag("attention_bias", False), fields.flag("mlp_bias", False)
    config = llama.dense(fields, qkv_bias=bias, o_bias=bias, mlp_bias=mlp_bias)
    attend = fields.integers("attn_layer_indices", high=MAX_LAYERS)
    stated = [layer not in attend for layer in range(config.num_layers)]
    return with_states(config, stated, dual_scans.read_dual_scan(fields))


def weights(config: ModelConfig) -> WeightMap:
    return weight_map(config, NAMES)
