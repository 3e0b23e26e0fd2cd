"""From a GGUF file's keys of positions, and its tensors of divisors, to what config.json would say.

Owns llama.cpp's keys `rope.*`. Refuses to know families, and JAX.
Source: `Keys.Rope` of the package gguf; llama.cpp's `conversion/base.py` and `llama-model.cpp`.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np

from models.config.fields import MAX_HEADS, MAX_TOKENS, Fields
from models.errors import CheckpointError
from models.quantised.tensors import Readable

MAX_LIST = 4096  # numbers of one key of the architecture, or of one tensor of divisors

Tensors = Mapping[str, Readable]


def rotation(fields: Fields, tensors: Tensors, head_dim: int) -> dict[str, Any]:
    """What config.json says of the rotation; raises CheckpointError, UnsupportedError."""
    found: dict[str, Any] = {"rope_theta": fields.number("rope.freq_base", 10_000.0)}
    rotated = fields.integer("rope.dimension_count", head_dim, high=MAX_HEADS)
    if rotated != head_dim:
        found["partial_rotary_factor"] = (rotated + 0.5) / head_dim  # rounded down to `rotated`
    scaling = _factors(tensors, fields) or _scaling(fields)
    if "rope.scaling.original_context_length" in fields:
        found["original_max_position_embeddings"] = fields.integer(
            "rope.scaling.original_context_length", high=MAX_TOKENS
        )
    return found | {"rope_scaling": scaling}


def _factors(tensors: Tensors, fields: Fields) -> dict[str, Any] | None:
    """A divisor for each pair: Llama 3's, which are the same for every context, and LongRoPE's."""
    if "rope_freqs.weight" in tensors:
        every = _numbers(tensors["rope_freqs.weight"])
        return {"type": "longrope", "short_factor": every, "long_factor": every,
                "attention_factor": 1.0}  # fmt: skip
    long, short = (tensors.get(f"rope_factors_{which}.weight") for which in ("long", "short"))
    if long is None or short is None:
        return None
    return {
        "type": "longrope",
        "short_factor": _numbers(short),
        "long_factor": _numbers(long),
        "attention_factor": fields.number("rope.scaling.attn_factor", 1.0),
    }


def _numbers(tensor: Readable) -> list[float]:
    if len(tensor.shape) != 1 or tensor.shape[0] > MAX_LIST:
        raise CheckpointError(
            f"Tensor {tensor.name!r} has the shape {list(tensor.shape)}; it must be a short list."
        )
    return [float(str(one)) for one in tensor.read().astype(np.float32)]


def _scaling(fields: Fields) -> dict[str, Any] | None:
    if "rope.scale_linear" in fields:  # the key of the first files
        return {"type": "linear", "factor": fields.number("rope.scale_linear")}
    kind = fields.option("rope.scaling.type", ("none", "linear", "yarn"), "none")
    if kind == "none":
        return None
    found: dict[str, Any] = {"type": kind, "factor": fields.number("rope.scaling.factor")}
    if kind == "linear":
        return found
    fields.constant("rope.scaling.attn_factor", 1.0)
    fields.constant("rope.scaling.yarn_attn_factor", 1.0)
    fields.constant("rope.scaling.yarn_ext_factor", 1.0)
    for key in ("beta_fast", "beta_slow"):
        if f"rope.scaling.yarn_{key}" in fields:
            found[key] = fields.number(f"rope.scaling.yarn_{key}")
    return found
