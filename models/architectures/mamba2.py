"""Mamba-2 and Codestral Mamba, in the form that transformers has them."""

from collections.abc import Mapping
from math import inf
from typing import Any

from models.config import ModelConfig
from models.errors import CheckpointError
from models.fields import MAX_HEADS, Fields
from models.hybrids import pure
from models.mixer_config import DualScan
from models.weight_map import Names, weight_map
from models.weights import WeightMap

ARCHITECTURES = ("Mamba2ForCausalLM",)
DEFAULTS = {
    "num_heads": 128, "head_dim": 64, "state_size": 128, "n_groups": 8, "conv_kernel": 4,
    "expand": 2,
}  # fmt: skip
MAX_STATE, MAX_WIDTH = 2**12, 2**4

LAYER = "backbone.layers.*"
MIXER = f"{LAYER}.mixer"
NAMES: Names = {
    "embedding": "backbone.embeddings",
    "layers.*.attention_norm": f"{LAYER}.norm",
    "layers.*.mixer.input": f"{MIXER}.in_proj",
    "layers.*.mixer.conv": f"{MIXER}.conv1d",
    "layers.*.mixer.step_bias": f"{MIXER}.dt_bias",
    "layers.*.mixer.log_rate": f"{MIXER}.A_log",
    "layers.*.mixer.skip": f"{MIXER}.D",
    "layers.*.mixer.norm": f"{MIXER}.norm",
    "layers.*.mixer.output": f"{MIXER}.out_proj",
    "norm": "backbone.norm_f",
    "head": "lm_head",
}


def config(raw: Mapping[str, Any]) -> ModelConfig:
    fields = Fields({**DEFAULTS, **raw})
    fields.option("hidden_act", ("silu",), "silu")
    groups = fields.integer("n_groups", high=MAX_HEADS)
    mixer = DualScan(
        num_heads=fields.integer("num_heads", high=MAX_HEADS),
        head_dim=fields.integer("head_dim", high=MAX_HEADS),
        state_size=fields.integer("state_size", high=MAX_STATE),
        groups=groups,
        conv_width=fields.integer("conv_kernel", low=2, high=MAX_WIDTH),
        conv_bias=fields.flag("use_conv_bias", True),
        bias=fields.flag("use_bias", False),
        norm_groups=groups,
        step_limits=read_step_limits(fields),
    )
    check_heads(fields, mixer)
    return pure(fields, mixer, tied_head=fields.flag("tie_word_embeddings", False))


def weights(config: ModelConfig) -> WeightMap:
    return weight_map(config, NAMES, optional_prefix="backbone.")


def read_step_limits(fields: Fields, key: str = "time_step_limit") -> tuple[float, float]:
    """The smallest and the largest step; JSON writes infinity as Infinity, or not at all."""
    limits = fields.raw.get(key)
    if limits is None:
        return 0.0, inf
    numbers = isinstance(limits, list | tuple) and all(type(x) in (int, float) for x in limits)
    if not numbers or len(limits) != 2 or not 0 <= limits[0] <= limits[1]:
        raise CheckpointError(
            f"{fields.where}: {key} must be two numbers from 0 on, the smaller one first."
        )
    return float(limits[0]), float(limits[1])


def check_heads(fields: Fields, mixer: DualScan, expand: str = "expand") -> None:
    """Raise CheckpointError if sizes contradict each other."""
    inner = int(fields.number(expand) * fields.integer("hidden_size"))
    if inner != mixer.inner or mixer.num_heads % mixer.groups:
        raise CheckpointError(
            f"{fields.where} has {mixer.num_heads} heads of {mixer.head_dim} in {mixer.groups} "
            f"groups; together they must be {inner} wide, and a multiple of the groups in number."
        )
