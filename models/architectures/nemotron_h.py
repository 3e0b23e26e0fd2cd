"""Nemotron-H, Nemotron 3: a layer is Mamba-2, attention without positions, an MLP or experts."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from models.architectures import llama
from models.config.decoder import LayerKind, ModelConfig
from models.config.dual_scans import MAX_STATE, MAX_WIDTH, dual_names, read_least_step
from models.config.experts import read_ungated_mixture, ungated_names
from models.config.fields import MAX_HEADS, Fields
from models.config.mixers import DualScan
from models.errors import UnsupportedError
from models.weights.decoder import weight_map
from models.weights.sources import Names, WeightMap

ARCHITECTURES = ("NemotronHForCausalLM",)
DEFAULTS = {
    "num_key_value_heads": 8, "head_dim": 128, "max_position_embeddings": 4096,
    "ssm_state_size": 128, "mamba_num_heads": 128, "mamba_head_dim": 64, "n_groups": 8,
    "conv_kernel": 4, "mlp_hidden_act": "relu2", "layer_norm_epsilon": 1e-5,
}  # fmt: skip
KEYS = {"rms_norm_eps": "layer_norm_epsilon", "hidden_act": "mlp_hidden_act"}
OLDER = {"time_step_min": "mamba_dt_min", "time_step_limit": "mamba_dt_limit"}
KINDS = {
    "M": LayerKind(attention=False, mixer=True, mlp=False), "*": LayerKind(mlp=False),
    "-": LayerKind(attention=False), "E": LayerKind(attention=False, experts=True),
}  # fmt: skip
LETTERS = {"linear_attention": "M", "full_attention": "*", "mlp": "-", "moe": "E"}
LETTERS |= {"mamba": "M", "attention": "*"}
LAYER, MIXER = "backbone.layers.*", "backbone.layers.*.mixer"
NAMES: Names = {
    "embedding": "backbone.embeddings",
    "layers.*.attention_norm": f"{LAYER}.norm",
    "layers.*.mlp_norm": f"{LAYER}.norm",
    "layers.*.attention.qkv": tuple(f"{MIXER}.{x}_proj" for x in "qkv"),
    "layers.*.attention.o": f"{MIXER}.o_proj",
    **dual_names(MIXER),
    "layers.*.mlp.up": f"{MIXER}.up_proj",
    "layers.*.mlp.down": f"{MIXER}.down_proj",
    **ungated_names(MIXER, "shared_experts"),
    "norm": "backbone.norm_f",
    "head": "lm_head",
}


def config(raw: Mapping[str, Any]) -> ModelConfig:
    older = {key: name for key, name in OLDER.items() if name in raw}
    fields = Fields({**DEFAULTS, **raw}, names=KEYS | older)
    pattern = _pattern(fields)
    fields.option("mamba_hidden_act", ("silu",), "silu")
    config = llama.dense(
        fields.replaced("num_hidden_layers", len(pattern)), mixer=_mixer(fields),
        gated_mlp=False, mlp_bias=fields.flag("mlp_bias", False),
        mixture=read_ungated_mixture(fields) if "E" in pattern else None,
    )  # fmt: skip
    return replace(config, layer_kinds=tuple(KINDS[letter] for letter in pattern))


def _mixer(fields: Fields) -> DualScan:
    groups = fields.integer("n_groups", high=MAX_HEADS)
    return DualScan(
        num_heads=fields.integer("mamba_num_heads", high=MAX_HEADS),
        head_dim=fields.integer("mamba_head_dim", high=MAX_HEADS),
        state_size=fields.integer("ssm_state_size", high=MAX_STATE),
        groups=groups, norm_groups=groups,
        conv_width=fields.integer("conv_kernel", low=2, high=MAX_WIDTH),
        conv_bias=fields.flag("use_conv_bias", True), bias=fields.flag("use_bias", False),
        step_limits=read_least_step(fields),
    )  # fmt: skip


def _pattern(fields: Fields) -> str:
    """A letter a layer, which newer files spell out."""
    lists = [key for key in ("layers_block_type", "layer_types") if key in fields]
    if lists:
        named = fields.options(lists[0], len(fields.texts(lists[0])), LETTERS)
        pattern = "".join(LETTERS[one] for one in named)
    else:
        pattern = fields.text("hybrid_override_pattern")
    if unknown := set(pattern) - set(KINDS):
        raise UnsupportedError(
            f"{fields.where} has layers of the kind {min(unknown)!r}; supported are M, *, - and E."
        )
    return pattern


def weights(config: ModelConfig) -> WeightMap:
    return weight_map(config, NAMES, ignored=("mtp.*",), optional_prefix="backbone.")
