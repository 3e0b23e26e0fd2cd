"""InternLM 2 and 2.5: Llama under other names, with queries, keys and values in one tensor."""

from collections.abc import Mapping
from typing import Any

from models.architectures import llama
from models.config.decoder import ModelConfig
from models.config.fields import Fields
from models.weights.decoder import weight_map
from models.weights.sources import Names, WeightMap

ARCHITECTURES = ("InternLM2ForCausalLM",)
LAYER = llama.LAYER
NAMES: Names = {
    "embedding": "model.tok_embeddings",
    "layers.*.attention_norm": f"{LAYER}.attention_norm",
    "layers.*.attention.qkv": f"{LAYER}.attention.wqkv",
    "layers.*.attention.o": f"{LAYER}.attention.wo",
    "layers.*.mlp_norm": f"{LAYER}.ffn_norm",
    "layers.*.mlp.gate_up": (f"{LAYER}.feed_forward.w1", f"{LAYER}.feed_forward.w3"),
    "layers.*.mlp.down": f"{LAYER}.feed_forward.w2",
    "norm": "model.norm",
    "head": "output",
}


def config(raw: Mapping[str, Any]) -> ModelConfig:
    fields = Fields(raw)
    bias = fields.flag("bias", False)
    return llama.dense(fields, qkv_bias=bias, o_bias=bias)


def weights(config: ModelConfig) -> WeightMap:
    return weight_map(config, NAMES, grouped=True)
