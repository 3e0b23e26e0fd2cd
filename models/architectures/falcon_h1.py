"""Falcon-H1: attention and Mamba-2 side by side in every layer, and factors on nearly all."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from models.architectures import bamba, llama
from models.config import dual_scans
from models.config.decoder import ModelConfig
from models.config.fields import Fields
from models.config.hybrids import check_activation
from models.errors import UnsupportedError
from models.weights.decoder import weight_map
from models.weights.sources import Names, WeightMap

ARCHITECTURES = ("FalconH1ForCausalLM",)
DEFAULTS = {
    **dual_scans.DEFAULTS, "num_key_value_heads": 8, "max_position_embeddings": 8192,
    "rms_norm_eps": 1e-5, "mamba_d_ssm": 1024,
}  # fmt: skip
NAMES: Names = {**bamba.NAMES}
PARTS = 5  # of what is projected: gate, values, keys, queries, steps


def config(raw: Mapping[str, Any]) -> ModelConfig:
    fields = Fields({**DEFAULTS, **raw})
    bias, entering = (
        fields.flag("attention_bias", False),
        _factor(fields, "attention_in_multiplier"),
    )
    if bias and entering != 1.0:
        raise UnsupportedError(
            f"{fields.where} has attention_bias and attention_in_multiplier, which are not "
            "supported together; use a checkpoint that has one of them."
        )
    config = llama.dense(
        fields,
        qkv_bias=bias,
        o_bias=bias,
        mlp_bias=fields.flag("mlp_bias", False),
        mlp_scales=_factors(fields, "mlp_multipliers", 2),
        embedding_scale=_factor(fields, "embedding_multiplier"),
        scales_given=True,
        logit_scale=_factor(fields, "lm_head_multiplier"),
    )
    check_activation(config)
    # queries, keys and values are linear in what attention reads
    scale = config.score_scale * entering**2 * _factor(fields, "key_multiplier")
    leaving = entering * _factor(fields, "attention_out_multiplier")
    mixer = dual_scans.read_dual_scan(
        fields,
        output_bias=fields.flag("projectors_bias", False),
        norm_groups=_norm_groups(fields),
        gate_first=not fields.flag("mamba_norm_before_gate", True),
        input_scale=_factor(fields, "ssm_in_multiplier"),
        output_scale=_factor(fields, "ssm_out_multiplier"),
        scales=_factors(fields, "ssm_multipliers", PARTS),
    )
    return replace(
        config,
        layer_kinds=tuple(replace(kind, mixer=True) for kind in config.layer_kinds),
        mixer=mixer,
        attention_scale=scale,
        attention_output_scale=leaving,
    )


def weights(config: ModelConfig) -> WeightMap:
    return weight_map(config, NAMES)


def _norm_groups(fields: Fields) -> int | None:
    return fields.integer("mamba_n_groups") if fields.flag("mamba_rms_norm", False) else None


def _factor(fields: Fields, key: str) -> float:
    return fields.number(key, 1.0)


def _factors(fields: Fields, key: str, count: int) -> Any:
    return fields.numbers(key, count) if key in fields else (1.0,) * count
