"""Bloom: ALiBi, layer norms, of embeddings too, biases, one tensor of all heads."""

from collections.abc import Mapping
from typing import Any

from models.architectures import falcon, llama
from models.config.decoder import ModelConfig
from models.config.fields import MAX_HEADS, MAX_LAYERS, Fields
from models.layers.alibi import slopes_from_below
from models.weights.decoder import weight_map
from models.weights.sources import Names, WeightMap

ARCHITECTURES = ("BloomForCausalLM",)
DEFAULTS = {"layer_norm_epsilon": 1e-5, "tie_word_embeddings": True, "seq_length": 2048}
RENAMED = {"rms_norm_eps": "layer_norm_epsilon", "max_position_embeddings": "seq_length"}
OLD = {"hidden_size": "n_embed", "num_hidden_layers": "n_layer", "num_attention_heads": "n_head"}
NAMES: Names = {
    **falcon.NAMES,
    "embedding_norm": "transformer.word_embeddings_layernorm",
}


def config(raw: Mapping[str, Any]) -> ModelConfig:
    old = {key: name for key, name in OLD.items() if raw.get(name) is not None}
    fields = Fields({**DEFAULTS, **raw, "hidden_act": "gelu_new"}, names={**RENAMED, **old})
    fields.refuse("apply_residual_connection_post_layernorm")
    fields = fields.replaced("intermediate_size", 4 * fields.integer("hidden_size"))
    return llama.dense(
        fields, ropes=[None] * fields.integer("num_hidden_layers", high=MAX_LAYERS),
        slopes=slopes_from_below(fields.integer("num_attention_heads", high=MAX_HEADS)),
        norm="layer", embedding_norm=True, gated_mlp=False,
        norm_bias=True, qkv_bias=True, o_bias=True, mlp_bias=True,
    )  # fmt: skip


def weights(config: ModelConfig) -> WeightMap:
    return weight_map(config, NAMES, grouped=True, optional_prefix="transformer.")
