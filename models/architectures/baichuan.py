"""Baichuan 7B, the first: Llama with one tensor for queries, keys and values."""

from collections.abc import Mapping
from typing import Any

from models.architectures import llama
from models.config import ModelConfig
from models.fields import Fields
from models.weight_map import Names, weight_map
from models.weights import WeightMap

# not BaichuanForCausalLM: 13B has ALiBi, and version 2 norms the rows of its head
ARCHITECTURES = ("BaiChuanForCausalLM",)
NAMES: Names = {**llama.NAMES, "layers.*.attention.qkv": f"{llama.LAYER}.self_attn.W_pack"}


def config(raw: Mapping[str, Any]) -> ModelConfig:
    return llama.dense(Fields(raw))


def weights(config: ModelConfig) -> WeightMap:
    return weight_map(config, NAMES)
