"""gpt-oss: experts with biases and a clamped gate, attention sinks, a window on every other layer.

Weights as in the files that are not quantised; the tensors of a layer's experts are one.
"""

from collections.abc import Mapping
from typing import Any

from models.architectures import llama
from models.config.decoder import Mixture, ModelConfig
from models.config.experts import MAX_EXPERTS, read_chosen
from models.config.fields import Fields
from models.config.windows import read_windows
from models.weights.decoder import weight_map
from models.weights.sources import Names, WeightMap

ARCHITECTURES = ("GptOssForCausalLM",)
DEFAULTS = {
    "head_dim": 64,
    "sliding_window": 128,
    "num_local_experts": 128,
    "num_experts_per_tok": 4,
    "rms_norm_eps": 1e-5,
    "rope_theta": 150000.0,
}
NAMES: Names = {
    **llama.NAMES,
    "layers.*.attention.sinks": f"{llama.LAYER}.self_attn.sinks",
    "layers.*.mlp.router": f"{llama.LAYER}.mlp.router",
    "layers.*.mlp.experts.gate_up": f"{llama.LAYER}.mlp.experts.gate_up_proj",
    "layers.*.mlp.experts.down": f"{llama.LAYER}.mlp.experts.down_proj",
}


def config(raw: Mapping[str, Any]) -> ModelConfig:
    fields = Fields({**DEFAULTS, **raw})
    fields.option("hidden_act", ("silu",), "silu")
    fields.constant("swiglu_limit", 7.0)
    fields.constant("swiglu_alpha", 1.702)
    experts = fields.integer("num_local_experts", high=MAX_EXPERTS)
    mixture = Mixture(
        num_experts=experts,
        per_token=read_chosen(fields, experts),
        intermediate_size=fields.integer("intermediate_size"),
        activation="clamped_swiglu",
        bias=True,
    )
    windows = read_windows(fields, lambda layer: layer % 2 == 0)
    bias = fields.flag("attention_bias", True)
    return llama.dense(
        fields, windows=windows, experts=[True] * len(windows), mixture=mixture, sinks=True,
        qkv_bias=bias, o_bias=bias,
    )  # fmt: skip


def weights(config: ModelConfig) -> WeightMap:
    return weight_map(config, NAMES)
