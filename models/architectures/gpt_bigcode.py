"""StarCoder and SantaCoder: GPT-2 with one key/value head, and kernels stored [out, in]."""

from collections.abc import Mapping
from typing import Any

from models.architectures import gpt2
from models.config.decoder import ModelConfig
from models.weights.decoder import weight_map
from models.weights.sources import WeightMap

ARCHITECTURES = ("GPTBigCodeForCausalLM",)


def config(raw: Mapping[str, Any]) -> ModelConfig:
    fields = gpt2.read(raw, activation_function="gelu_pytorch_tanh")
    heads = 1 if fields.flag("multi_query", True) else fields.integer("num_attention_heads")
    return gpt2.dense(fields.replaced("num_key_value_heads", heads))


def weights(config: ModelConfig) -> WeightMap:
    return weight_map(
        config, gpt2.NAMES, grouped=True, ignored=gpt2.IGNORED, optional_prefix="transformer."
    )
