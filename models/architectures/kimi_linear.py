"""Kimi Linear: three layers of the delta rule by key entry to one of latent attention without
positions, and the experts of DeepSeek V3."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from models.architectures import deepseek_v3, llama
from models.config.decoder import ModelConfig
from models.config.experts import read_biased_mixture
from models.config.fields import MAX_HEADS, MAX_LAYERS, Fields
from models.config.hybrids import read_state_layers, with_states
from models.config.mixers import KeyedDelta
from models.errors import CheckpointError
from models.weights.decoder import weight_map
from models.weights.mtp import layers_behind
from models.weights.sources import Names, WeightMap

ARCHITECTURES = ("KimiLinearForCausalLM",)
DEFAULTS = {
    "num_experts": 256, "num_experts_per_token": 8, "num_shared_experts": 1,
    "moe_intermediate_size": 1024, "first_k_dense_replace": 1, "routed_scaling_factor": 2.446,
    "rms_norm_eps": 1e-5, "model_max_length": 1048576,
}  # fmt: skip
KEYS = {
    "n_routed_experts": "num_experts", "num_experts_per_tok": "num_experts_per_token",
    "n_shared_experts": "num_shared_experts", "n_group": "num_expert_group",
    "norm_topk_prob": "moe_renormalize", "max_position_embeddings": "model_max_length",
    "scoring_func": "moe_router_activation_func",
}  # fmt: skip
MIXER, MLP = f"{llama.LAYER}.self_attn", f"{llama.LAYER}.block_sparse_moe"
NAMES: Names = {
    **deepseek_v3.NAMES,
    "layers.*.mixer.input": tuple(f"{MIXER}.{x}_proj" for x in ("q", "k", "v", "f_a", "g_a")),
    "layers.*.mixer.conv": tuple(f"{MIXER}.{x}_conv1d" for x in "qkv"),
    **{f"layers.*.mixer.{ours}": f"{MIXER}.{theirs}" for ours, theirs in (
        ("rates", "b_proj"), ("decay", "f_b_proj"), ("gate", "g_b_proj"), ("norm", "o_norm"),
        ("step_bias", "dt_bias"), ("log_rate", "A_log"), ("output", "o_proj"),
    )},
    "layers.*.mlp.router": f"{MLP}.gate",
    "layers.*.mlp.choice_bias": f"{MLP}.gate.e_score_correction_bias",
    "layers.*.mlp.experts.gate_up": (f"{MLP}.experts.#.w1", f"{MLP}.experts.#.w3"),
    "layers.*.mlp.experts.down": f"{MLP}.experts.#.w2",
    "layers.*.mlp.shared.gate_up": tuple(f"{MLP}.shared_experts.{x}_proj" for x in ("gate", "up")),
    "layers.*.mlp.shared.down": f"{MLP}.shared_experts.down_proj",
}  # fmt: skip
DENSE: Names = {
    "layers.*.mlp.gate_up": (f"{MLP}.gate_proj", f"{MLP}.up_proj"),
    "layers.*.mlp.down": f"{MLP}.down_proj",
}


def config(raw: Mapping[str, Any]) -> ModelConfig:
    fields = Fields({**DEFAULTS, **raw}, names=KEYS)
    fields.required("mla_use_nope")
    fields = fields.replaced("rope_scaling", None).replaced("rope_parameters", None)
    model = deepseek_v3.latent_model(fields, read_biased_mixture(fields))
    kinds = tuple(replace(kind, rope=None) for kind in model.layer_kinds)
    own = fields.section("linear_attn_config")
    mixer = KeyedDelta(
        num_heads=own.integer("num_heads", 32, high=MAX_HEADS),
        head_dim=own.integer("head_dim", 128, high=MAX_HEADS),
        conv_width=own.integer("short_conv_kernel_size", 4, low=2, high=16),
    )
    stated = read_state_layers(fields) or _stated(own, model.num_layers)
    return with_states(replace(model, layer_kinds=kinds), stated, mixer)


def _stated(own: Fields, layers: int) -> tuple[bool, ...]:
    """Which layers have a state; the file counts them from 1."""
    full, stated = (
        own.integers(f"{kind}_layers", high=MAX_LAYERS) for kind in ("full_attn", "kda")
    )
    if sorted((*full, *stated)) != list(range(1, layers + 1)):
        raise CheckpointError(
            f"{own.where} must list each of the layers 1 to {layers} once, among full_attn_layers "
            "or among kda_layers."
        )
    return tuple(layer in stated for layer in range(1, layers + 1))


def weights(config: ModelConfig) -> WeightMap:
    """As published, or as transformers 5 writes them."""
    whole = config.latent is not None and config.latent.query_rank is None
    query = {"layers.*.attention.q_up": f"{deepseek_v3.ATTENTION}.q_proj"} if whole else {}
    usual, other = (
        weight_map(config, {**NAMES, **dense, **query}, ignored=layers_behind(config))
        for dense in ({}, DENSE)
    )
    return replace(usual, otherwise=other)
