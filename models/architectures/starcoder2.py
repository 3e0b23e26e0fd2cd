"""StarCoder2: layer norms, biases everywhere, an MLP without a gate, a window on all layers."""

from collections.abc import Mapping
from typing import Any

from models.architectures import llama
from models.config.decoder import ModelConfig
from models.config.fields import Fields
from models.config.windows import read_windows
from models.weights.decoder import weight_map
from models.weights.sources import Names, WeightMap

ARCHITECTURES = ("Starcoder2ForCausalLM",)
DEFAULTS = {
    "num_key_value_heads": 2,
    "hidden_act": "gelu_pytorch_tanh",
    "norm_epsilon": 1e-5,
    "tie_word_embeddings": True,
}
NAMES: Names = {
    **llama.NAMES,
    "layers.*.mlp.up": f"{llama.LAYER}.mlp.c_fc",
    "layers.*.mlp.down": f"{llama.LAYER}.mlp.c_proj",
}


def config(raw: Mapping[str, Any]) -> ModelConfig:
    fields = Fields({**DEFAULTS, **raw}, names={"rms_norm_eps": "norm_epsilon"})
    bias = fields.flag("use_bias", True)
    return llama.dense(
        fields,
        windows=read_windows(fields, lambda _: "sliding_window" in fields),
        norm="layer",
        norm_bias=True,
        gated_mlp=False,
        qkv_bias=bias,
        o_bias=bias,
        mlp_bias=bias,
    )


def weights(config: ModelConfig) -> WeightMap:
    return weight_map(config, NAMES)
