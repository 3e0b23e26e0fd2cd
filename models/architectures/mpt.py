"""MPT: ALiBi, layer norms and products without biases, perhaps clipped queries, keys and values."""

from collections.abc import Mapping
from typing import Any

from models.architectures import llama
from models.config.decoder import ModelConfig
from models.config.fields import MAX_HEADS, MAX_LAYERS, Fields
from models.layers.alibi import slopes_from_above
from models.weights.decoder import weight_map
from models.weights.sources import Names, WeightMap

ARCHITECTURES = ("MPTForCausalLM", "MptForCausalLM")
DEFAULTS = {"layer_norm_epsilon": 1e-5, "tie_word_embeddings": True, "max_seq_len": 2048}
RENAMED = {
    "hidden_size": "d_model",
    "num_attention_heads": "n_heads",
    "num_hidden_layers": "n_layers",
    "max_position_embeddings": "max_seq_len",
    "rms_norm_eps": "layer_norm_epsilon",
}
BLOCK = "transformer.blocks.*"
NAMES: Names = {
    "embedding": "transformer.wte",
    "layers.*.attention_norm": f"{BLOCK}.norm_1",
    "layers.*.attention.qkv": f"{BLOCK}.attn.Wqkv",
    "layers.*.attention.o": f"{BLOCK}.attn.out_proj",
    "layers.*.mlp_norm": f"{BLOCK}.norm_2",
    "layers.*.mlp.up": f"{BLOCK}.ffn.up_proj",
    "layers.*.mlp.down": f"{BLOCK}.ffn.down_proj",
    "norm": "transformer.norm_f",
    "head": "lm_head",
}


def config(raw: Mapping[str, Any]) -> ModelConfig:
    fields = Fields({**DEFAULTS, **raw, "hidden_act": "gelu"}, names=RENAMED)
    fields.refuse("logit_scale")
    fields.required("no_bias")
    attention = fields.section("attn_config")
    attention.option("attn_type", ("multihead_attention",), "multihead_attention")
    attention.refuse("prefix_lm", "qk_ln", "rope")
    attention.required("alibi")
    width = fields.integer("hidden_size") * fields.integer("expansion_ratio", 4, high=64)
    heads = fields.integer("num_attention_heads", high=MAX_HEADS)
    reach = attention.number("alibi_bias_max", 8.0, high=64.0)
    return llama.dense(
        fields.replaced("intermediate_size", width),
        ropes=[None] * fields.integer("num_hidden_layers", high=MAX_LAYERS),
        slopes=slopes_from_above(heads, reach),
        norm="layer", gated_mlp=False,
        qkv_clip=attention.number("clip_qkv") if attention.raw.get("clip_qkv") else None,
        attention_scale=attention.optional_number("softmax_scale"),
    )  # fmt: skip


def weights(config: ModelConfig) -> WeightMap:
    return weight_map(config, NAMES, optional_prefix="transformer.")
