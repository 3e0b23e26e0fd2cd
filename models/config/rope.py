"""Rotary embeddings as config.json spells them.

Newer files have one object `rope_parameters`; older ones have `rope_theta` and, perhaps,
`rope_scaling` beside it; a few keys stand at the top level in both.
"""

import math
from collections.abc import Callable, Mapping
from typing import Any

from models.config.fields import MAX_TOKENS, Fields
from models.config.windows import FULL, SLIDING
from models.errors import CheckpointError
from models.layers.rope import (
    Dynamic,
    Linear,
    Llama3,
    LongRope,
    Proportional,
    RopeConfig,
    Scaling,
    Stretched,
    Unscaled,
    Yarn,
)


def read_rope(fields: Fields, head_dim: int) -> RopeConfig:
    """The rotation of a model whose layers all rotate alike.

    Raises:
        UnsupportedError: an unknown type of scaling.
        CheckpointError: a value is missing or absurd.
    """
    key = "rope_scaling" if "rope_scaling" in fields else "rope_parameters"
    return read_layer_rope(fields.section(key), fields, head_dim, "rope_theta")


def check_rope_types(raw: Mapping[str, Any]) -> None:
    """Raise UnsupportedError if config.json names an unknown type of rotation.

    Families that do not rotate, or whose files never scale positions, do not look.
    """
    whole = Fields(raw)
    for fields in (whole, whole.section("text_config")):
        for key in ("rope_scaling", "rope_parameters"):
            settings = fields.section(key)
            by_layer = [name for name, one in settings.raw.items() if isinstance(one, Mapping)]
            for each in (settings, *map(settings.section, by_layer)):
                each.option(_type_key(each), _KNOWN, "default")


def read_layer_rope(settings: Fields, fields: Fields, head_dim: int, theta_key: str) -> RopeConfig:
    """One object of settings; what it leaves out stands in the whole file's `fields`."""
    partial = fields.number("partial_rotary_factor", 1.0, high=1.0)
    partial = settings.number("partial_rotary_factor", partial, high=1.0)
    kind = settings.option(_type_key(settings), _READERS, "default")
    whole = kind == "proportional"  # then it is the share of pairs that turn
    rotated = head_dim if whole else int(head_dim * partial)
    dim = rotated_dim(fields, "partial_rotary_factor", rotated, head_dim)
    theta = settings.number("rope_theta", fields.number(theta_key, 10_000.0, low=1.0), low=1.0)
    return RopeConfig(dim, theta, _READERS[kind](settings, fields, dim))


def rotated_dim(fields: Fields, key: str, dim: int, head_dim: int) -> int:
    """`dim`, if so many dimensions of a head can be rotated; else CheckpointError naming `key`."""
    if dim % 2 or not 4 <= dim <= head_dim:
        raise CheckpointError(
            f"{fields.where}: {dim} of the {head_dim} dimensions of a head would be rotated, by "
            f"{fields.name(key)}; that number must be even and at least 4."
        )
    return dim


def read_layer_ropes(
    fields: Fields, head_dim: int, sliding_theta_key: str = "rope_theta"
) -> dict[str, RopeConfig]:
    """The rotation of each type of layer, of which only full ones scale their positions.

    Newer files have an object for each type.
    """
    both = fields.section("rope_parameters")
    sliding = both.section(SLIDING)
    full = fields.section("rope_scaling") if "rope_scaling" in fields else both.section(FULL)
    return {
        SLIDING: read_layer_rope(sliding, fields, head_dim, sliding_theta_key),
        FULL: read_layer_rope(full, fields, head_dim, "rope_theta"),
    }


def _linear(settings: Fields, fields: Fields, dim: int) -> Linear:
    return Linear(settings.number("factor"))


def _proportional(settings: Fields, fields: Fields, dim: int) -> Proportional:
    share = settings.number("partial_rotary_factor", 1.0, high=1.0)
    return Proportional(int(share * dim // 2), settings.number("factor", 1.0))


def _dynamic(settings: Fields, fields: Fields, dim: int) -> Dynamic | Stretched:
    if "alpha" in settings:  # Hunyuan's name for a base that stays
        return Stretched(settings.number("alpha"))
    return Dynamic(settings.number("factor"), _context(fields))


def _yarn(settings: Fields, fields: Fields, dim: int) -> Yarn:
    trained = _trained(settings, fields)
    factor = settings.number("factor", _context(fields) / trained)
    scale, all_dim = (settings.optional_number(key) for key in ("mscale", "mscale_all_dim"))
    magnitude = _yarn_magnitude(factor, 1.0)
    if scale and all_dim:
        magnitude = _yarn_magnitude(factor, scale) / _yarn_magnitude(factor, all_dim)
    return Yarn(
        factor=factor,
        trained=trained,
        fast=settings.number("beta_fast", 32.0),
        slow=settings.number("beta_slow", 1.0),
        truncate=settings.flag("truncate", True),
        magnitude=settings.number("attention_factor", magnitude),
    )


def _yarn_magnitude(factor: float, scale: float) -> float:
    return 0.1 * scale * math.log(factor) + 1.0 if factor > 1 else 1.0


def yarn_score_scale(fields: Fields) -> float:
    """What DeepSeek multiplies scores by where positions are scaled: the square of a magnitude."""
    key = "rope_scaling" if "rope_scaling" in fields else "rope_parameters"
    settings = fields.section(key)
    all_dim = settings.optional_number("mscale_all_dim")
    return _yarn_magnitude(settings.number("factor"), all_dim) ** 2 if all_dim else 1.0


def _llama3(settings: Fields, fields: Fields, dim: int) -> Llama3:
    slow, fast = settings.number("low_freq_factor"), settings.number("high_freq_factor")
    if slow >= fast:
        raise CheckpointError(
            f"{settings.where}: high_freq_factor is {fast:g}; "
            f"it must be above low_freq_factor, which is {slow:g}."
        )
    return Llama3(settings.number("factor"), _trained(settings, fields), fast, slow)


def _longrope(settings: Fields, fields: Fields, dim: int) -> LongRope:
    trained = _trained(settings, fields)
    factor = settings.number("factor", _context(fields) / trained)
    magnitude = math.sqrt(1 + math.log(factor) / math.log(trained)) if factor > 1 else 1.0
    return LongRope(
        short=settings.numbers("short_factor", dim // 2),
        long=settings.numbers("long_factor", dim // 2),
        trained=trained,
        magnitude=settings.number("attention_factor", magnitude),
    )


_READERS: Mapping[str, Callable[[Fields, Fields, int], Scaling]] = {
    "default": lambda settings, fields, dim: Unscaled(),
    "linear": _linear,
    "proportional": _proportional,
    "dynamic": _dynamic,
    "yarn": _yarn,
    "llama3": _llama3,
    "longrope": _longrope,
    "su": _longrope,  # its name in the first Phi-3 files
}


_KNOWN = (*_READERS, "mrope")  # of models that see, whose text alone turns as if it were "default"


def _type_key(settings: Fields) -> str:
    return "rope_type" if "rope_type" in settings else "type"


def _context(fields: Fields) -> int:
    return fields.integer("max_position_embeddings", high=MAX_TOKENS)


def _trained(settings: Fields, fields: Fields) -> int:
    """The original context, stated at the top level, in the settings, or not at all."""
    key = "original_max_position_embeddings"
    inner = settings.integer(key, _context(fields), low=2, high=MAX_TOKENS)
    return fields.integer(key, inner, low=2, high=MAX_TOKENS)
