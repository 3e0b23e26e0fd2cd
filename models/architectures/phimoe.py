"""Phi-3.5-MoE: layer norms, biases, and experts chosen one after the other (sparse mixer)."""

from collections.abc import Mapping
from typing import Any

from models.architectures import llama, mixtral
from models.config.decoder import Mixture, ModelConfig
from models.config.experts import MAX_EXPERTS, read_activation, read_chosen
from models.config.fields import Fields
from models.config.windows import read_windows
from models.errors import UnsupportedError
from models.weights.decoder import weight_map
from models.weights.sources import WeightMap

ARCHITECTURES = ("PhiMoEForCausalLM", "PhimoeForCausalLM")
DEFAULTS = {
    "num_key_value_heads": 8,
    "num_local_experts": 16,
    "num_experts_per_tok": 2,
    "rms_norm_eps": 1e-5,
    "rope_theta": 1e6,
    "router_jitter_noise": 0.01,
}


def config(raw: Mapping[str, Any]) -> ModelConfig:
    fields = magnified(Fields({**DEFAULTS, **raw}))
    fields.constant("num_experts_per_tok", 2.0)
    experts = fields.integer("num_local_experts", low=2, high=MAX_EXPERTS)
    mixture = Mixture(
        num_experts=experts,
        per_token=read_chosen(fields, experts),
        intermediate_size=fields.integer("intermediate_size"),
        rivals=2 * fields.number("router_jitter_noise"),
        activation=read_activation(fields),
    )
    windows = read_windows(fields, lambda _: "sliding_window" in fields)
    bias = fields.flag("attention_bias", False)
    return llama.dense(
        fields, windows=windows, experts=[True] * len(windows), mixture=mixture,
        norm="layer", norm_bias=True, qkv_bias=bias, o_bias=bias,
        head_bias=fields.flag("lm_head_bias", False),
    )  # fmt: skip


def magnified(fields: Fields) -> Fields:
    """The same file, with its own names for what LongRoPE multiplies cos and sin by replaced."""
    key = "rope_scaling" if "rope_scaling" in fields else "rope_parameters"
    settings = fields.section(key)
    if "short_mscale" not in settings:
        return fields
    short, long = settings.number("short_mscale"), settings.number("long_mscale")
    if short != long:
        raise UnsupportedError(
            f"{settings.where}: short_mscale is {short:g} and long_mscale {long:g}; only equal "
            "ones are supported."
        )
    return fields.replaced(key, {**settings.raw, "attention_factor": short})


def weights(config: ModelConfig) -> WeightMap:
    return weight_map(config, mixtral.NAMES)
