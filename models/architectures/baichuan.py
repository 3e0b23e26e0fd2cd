"""Baichuan 1 and 2: Llama with one tensor for queries, keys and values.

13B has ALiBi in the place of rotations, and its files no max_position_embeddings. Version 2 norms
the rows of its head; its files have a z_loss_weight.
"""

from collections.abc import Mapping
from typing import Any

from models.architectures import llama
from models.config.decoder import ModelConfig
from models.config.fields import MAX_HEADS, MAX_LAYERS, Fields
from models.layers.alibi import slopes_from_below
from models.weights.decoder import weight_map
from models.weights.sources import Names, WeightMap

ARCHITECTURES = ("BaiChuanForCausalLM", "BaichuanForCausalLM")
VOCABULARY_2 = 125_696  # of version 2, whose copies may have lost the key
NAMES: Names = {**llama.NAMES, "layers.*.attention.qkv": f"{llama.LAYER}.self_attn.W_pack"}


def config(raw: Mapping[str, Any]) -> ModelConfig:
    fields = Fields(raw)
    second = "z_loss_weight" in fields or fields.integer("vocab_size") == VOCABULARY_2
    if second:
        fields.refuse("tie_word_embeddings")
    if "max_position_embeddings" in fields:
        return llama.dense(fields, head_unit=second)
    return llama.dense(
        Fields(raw, names={"max_position_embeddings": "model_max_length"}),
        ropes=[None] * fields.integer("num_hidden_layers", high=MAX_LAYERS),
        slopes=slopes_from_below(fields.integer("num_attention_heads", high=MAX_HEADS)),
        head_unit=second,
    )


def weights(config: ModelConfig) -> WeightMap:
    return weight_map(config, NAMES)
