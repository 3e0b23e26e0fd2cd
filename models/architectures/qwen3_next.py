"""Qwen3-Next: three layers of the gated delta rule to one of attention with a gate, and experts."""

from collections.abc import Mapping
from typing import Any

from models.architectures import llama, qwen2_moe
from models.config.decoder import ModelConfig, QKNorm
from models.config.experts import read_sparse_layers
from models.config.fields import MAX_HEADS, MAX_LAYERS, Fields
from models.config.hybrids import read_state_layers, with_states
from models.config.mixers import GatedDelta
from models.errors import CheckpointError
from models.weights.decoder import weight_map
from models.weights.mtp import MTPNames
from models.weights.sources import Names, WeightMap

ARCHITECTURES = ("Qwen3NextForCausalLM",)
DEFAULTS = {
    "head_dim": 256, "num_experts": 512, "num_experts_per_tok": 10, "moe_intermediate_size": 512,
    "shared_expert_intermediate_size": 512, "partial_rotary_factor": 0.25,
    "linear_conv_kernel_dim": 4, "linear_key_head_dim": 128, "linear_value_head_dim": 128,
    "linear_num_key_heads": 16, "linear_num_value_heads": 32, "full_attention_interval": 4,
    "norm_topk_prob": True,
}  # fmt: skip
MIXER = f"{llama.LAYER}.linear_attn"
NAMES: Names = {
    **qwen2_moe.NAMES,
    "layers.*.mixer.input": f"{MIXER}.in_proj_qkvz",
    "layers.*.mixer.rates": f"{MIXER}.in_proj_ba",
    "layers.*.mixer.conv": f"{MIXER}.conv1d",
    "layers.*.mixer.step_bias": f"{MIXER}.dt_bias",
    "layers.*.mixer.log_rate": f"{MIXER}.A_log",
    "layers.*.mixer.norm": f"{MIXER}.norm",
    "layers.*.mixer.output": f"{MIXER}.out_proj",
}


def config(raw: Mapping[str, Any]) -> ModelConfig:
    fields = Fields({**DEFAULTS, **raw})
    shared = fields.integer("shared_expert_intermediate_size")
    mixture = qwen2_moe.read_mixture(fields, shared_size=shared, shared_gate=True)
    return gated(fields, grouped=True, experts=read_sparse_layers(fields), mixture=mixture)


def gated(fields: Fields, *, grouped: bool, **switches: Any) -> ModelConfig:
    """What Qwen3-Next and Qwen3.5 have in common."""
    fields.required("attn_output_gate")
    bias = fields.flag("attention_bias", False)
    config = llama.dense(
        fields, qk_norm=QKNorm(), norm_offset=True, output_gate=True, qkv_bias=bias, o_bias=bias,
        **switches,
    )  # fmt: skip
    mixer = GatedDelta(
        num_key_heads=fields.integer("linear_num_key_heads", high=MAX_HEADS),
        num_heads=fields.integer("linear_num_value_heads", high=MAX_HEADS),
        key_dim=fields.integer("linear_key_head_dim", high=MAX_HEADS),
        head_dim=fields.integer("linear_value_head_dim", high=MAX_HEADS),
        conv_width=fields.integer("linear_conv_kernel_dim", low=2, high=16),
        grouped=grouped,
    )
    if mixer.num_heads % mixer.num_key_heads:
        raise CheckpointError(
            f"{fields.where}: linear_num_value_heads is {mixer.num_heads}; it must be a multiple "
            f"of linear_num_key_heads, which is {mixer.num_key_heads}."
        )
    every = fields.integer("full_attention_interval", high=MAX_LAYERS)
    by_interval = tuple((layer + 1) % every != 0 for layer in range(config.num_layers))
    return with_states(config, read_state_layers(fields) or by_interval, mixer)


def mtp(config: ModelConfig, number: int) -> MTPNames:
    return MTPNames(
        layer=f"mtp.layers.{number}",
        token_norm="mtp.pre_fc_norm_embedding",
        hidden_norm="mtp.pre_fc_norm_hidden",
        join="mtp.fc",
        norm="mtp.norm",
    )


def weights(config: ModelConfig) -> WeightMap:
    return weight_map(config, NAMES, ignored=("mtp.*",))
