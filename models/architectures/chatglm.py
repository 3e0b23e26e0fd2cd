"""ChatGLM 2 and 3, and GLM-4 9B as first published: GLM-4 under other names."""

from collections.abc import Mapping
from typing import Any

from models.architectures import llama
from models.config.decoder import ModelConfig
from models.config.fields import MAX_HEADS, Fields
from models.weights.decoder import weight_map
from models.weights.sources import Names, WeightMap

ARCHITECTURES = ("ChatGLMModel",)
DEFAULTS = {"layernorm_epsilon": 1e-5, "kv_channels": 128}
RENAMED = {
    "num_hidden_layers": "num_layers",
    "vocab_size": "padded_vocab_size",
    "intermediate_size": "ffn_hidden_size",
    "num_key_value_heads": "multi_query_group_num",
    "head_dim": "kv_channels",
    "max_position_embeddings": "seq_length",
    "rms_norm_eps": "layernorm_epsilon",
}
THETA = 10000.0
LAYER = "transformer.encoder.layers.*"
NAMES: Names = {
    "embedding": "transformer.embedding.word_embeddings",
    "layers.*.attention_norm": f"{LAYER}.input_layernorm",
    "layers.*.attention.qkv": f"{LAYER}.self_attention.query_key_value",
    "layers.*.attention.o": f"{LAYER}.self_attention.dense",
    "layers.*.mlp_norm": f"{LAYER}.post_attention_layernorm",
    "layers.*.mlp.gate_up": f"{LAYER}.mlp.dense_h_to_4h",
    "layers.*.mlp.down": f"{LAYER}.mlp.dense_4h_to_h",
    "norm": "transformer.encoder.final_layernorm",
    "head": "transformer.output_layer",
}
IGNORED = ("transformer.rotary_pos_emb.inv_freq",)


def config(raw: Mapping[str, Any]) -> ModelConfig:
    fields = Fields({**DEFAULTS, **raw}, names=RENAMED)
    fields.refuse("apply_residual_connection_post_layernorm", "pre_seq_len")
    for key in ("rmsnorm", "post_layer_norm", "original_rope"):
        fields.required(key)
    if not fields.flag("multi_query_attention", False):
        heads = fields.integer("num_attention_heads", high=MAX_HEADS)
        fields = fields.replaced("num_key_value_heads", heads)
    stretch = fields.number("rope_ratio", 1.0, high=1e6)
    fields = fields.replaced("rope_theta", THETA * stretch).replaced("partial_rotary_factor", 0.5)
    bias = fields.flag("add_bias_linear", False)
    qkv_bias = bias or fields.flag("add_qkv_bias", False)
    return llama.dense(fields, qkv_bias=qkv_bias, o_bias=bias, mlp_bias=bias)


def weights(config: ModelConfig) -> WeightMap:
    return weight_map(config, NAMES, paired=True, ignored=IGNORED, optional_prefix="transformer.")
