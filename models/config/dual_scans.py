"""Mamba-2's scan as config.json states it, and its tensors; the keys that families write alike."""

from math import inf, nan
from typing import Any

from models.config.fields import MAX_HEADS, Fields
from models.config.mixers import DualScan
from models.errors import CheckpointError, UnsupportedError
from models.weights.sources import Names

MAX_STATE, MAX_WIDTH = 2**12, 2**4
DEFAULTS = {
    "mamba_n_heads": 128, "mamba_n_groups": 1, "mamba_d_state": 256, "mamba_d_conv": 4,
    "mamba_expand": 2,
}  # fmt: skip


def dual_names(mixer: str) -> Names:
    """Tensors of a mixer whose name begins so."""
    return {
        "layers.*.mixer.input": f"{mixer}.in_proj",
        "layers.*.mixer.conv": f"{mixer}.conv1d",
        "layers.*.mixer.step_bias": f"{mixer}.dt_bias",
        "layers.*.mixer.log_rate": f"{mixer}.A_log",
        "layers.*.mixer.skip": f"{mixer}.D",
        "layers.*.mixer.norm": f"{mixer}.norm",
        "layers.*.mixer.output": f"{mixer}.out_proj",
    }


def read_dual_scan(fields: Fields, **switches: Any) -> DualScan:
    """The keys of hybrids, `mamba_*`; `switches` are the other fields of DualScan."""
    inner = int(fields.number("mamba_expand") * fields.integer("hidden_size"))
    inner = fields.integer("mamba_d_ssm", inner)
    heads = fields.integer("mamba_n_heads", high=MAX_HEADS)
    own = fields.raw.get("mamba_d_head") not in (None, "auto")
    groups = fields.integer("mamba_n_groups", high=MAX_HEADS)
    mixer = DualScan(
        **{
            "num_heads": heads,
            "head_dim": fields.integer("mamba_d_head") if own else max(1, inner // heads),
            "state_size": fields.integer("mamba_d_state", high=MAX_STATE),
            "groups": groups,
            "conv_width": fields.integer("mamba_d_conv", low=2, high=MAX_WIDTH),
            "conv_bias": fields.flag("mamba_conv_bias", True),
            "bias": fields.flag("mamba_proj_bias", False),
            "norm_groups": groups,
            "step_limits": read_step_limits(fields),
            **switches,
        }
    )
    check_heads(fields, mixer, inner)
    return mixer


def read_step_limits(fields: Fields) -> tuple[float, float]:
    """The smallest and the largest step; files write infinity in several ways, or not at all."""
    limits = fields.raw.get(fields.name("time_step_limit"))
    if limits is None:
        return 0.0, inf
    numbers = [_number(one) for one in limits] if isinstance(limits, list | tuple) else []
    if len(numbers) != 2 or not 0 <= numbers[0] <= numbers[1]:
        raise CheckpointError(
            f"{fields.where}: time_step_limit must be two numbers from 0 on, the smaller one first."
        )
    return numbers[0], numbers[1]


def read_least_step(fields: Fields) -> tuple[float, float]:
    """The same, of families that bound their steps from below only, and by another key.

    Raises:
        UnsupportedError: the file has other limits besides, which transformers does not read.
    """
    if read_step_limits(fields) != (0.0, inf):
        raise UnsupportedError(
            f"{fields.where} limits steps by {fields.name('time_step_limit')}, which models of "
            f"this family do not read; leave it out, and set {fields.name('time_step_min')}."
        )
    return fields.number("time_step_min", 1e-3), inf


def _number(value: Any) -> float:
    """Infinity is a name, a string, or an object with one; what is no number is NaN."""
    if isinstance(value, dict):
        value = value.get("__float__")
    if value == "Infinity":
        return inf
    plain = isinstance(value, int | float) and not isinstance(value, bool)
    return float(value) if value == inf or (plain and abs(value) < 1e30) else nan


def check_heads(fields: Fields, mixer: DualScan, inner: int) -> None:
    """Raise CheckpointError if sizes contradict each other."""
    if inner != mixer.inner or mixer.num_heads % mixer.groups:
        raise CheckpointError(
            f"{fields.where} has {mixer.num_heads} heads of {mixer.head_dim} in {mixer.groups} "
            f"groups; together they must be {inner} wide, and a multiple of the groups in number."
        )
