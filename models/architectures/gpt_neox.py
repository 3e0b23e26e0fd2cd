"""GPT-NeoX and Pythia: attention and MLP in parallel, a quarter of each head rotated."""

from collections.abc import Mapping
from typing import Any

from models.architectures import llama
from models.config.decoder import ModelConfig
from models.config.fields import Fields
from models.weights.decoder import weight_map
from models.weights.sources import Names, WeightMap

ARCHITECTURES = ("GPTNeoXForCausalLM",)
DEFAULTS = {"hidden_act": "gelu", "layer_norm_eps": 1e-5, "rotary_pct": 0.25}
RENAMED = {
    "rms_norm_eps": "layer_norm_eps",
    "partial_rotary_factor": "rotary_pct",
    "rope_theta": "rotary_emb_base",
}
LAYER = "gpt_neox.layers.*"
NAMES: Names = {
    "embedding": "gpt_neox.embed_in",
    "layers.*.attention_norm": f"{LAYER}.input_layernorm",
    "layers.*.attention.qkv": f"{LAYER}.attention.query_key_value",
    "layers.*.attention.o": f"{LAYER}.attention.dense",
    "layers.*.mlp_norm": f"{LAYER}.post_attention_layernorm",
    "layers.*.mlp.up": f"{LAYER}.mlp.dense_h_to_4h",
    "layers.*.mlp.down": f"{LAYER}.mlp.dense_4h_to_h",
    "norm": "gpt_neox.final_layer_norm",
    "head": "embed_out",
}
IGNORED = ("*.attention.bias", "*.attention.masked_bias")  # causal masks of early versions


def config(raw: Mapping[str, Any]) -> ModelConfig:
    fields = Fields({**DEFAULTS, **raw}, names=RENAMED)
    bias = fields.flag("attention_bias", True)
    return llama.dense(
        fields,
        norm="layer",
        norm_bias=True,
        parallel="two norms" if fields.flag("use_parallel_residual", True) else None,
        gated_mlp=False,
        qkv_bias=bias,
        o_bias=bias,
        mlp_bias=True,
    )


def weights(config: ModelConfig) -> WeightMap:
    return weight_map(config, NAMES, grouped=True, ignored=IGNORED, optional_prefix="gpt_neox.")
