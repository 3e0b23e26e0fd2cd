"""Mamba's scan as config.json states it, and its tensors; what several families write alike."""

from models.config.fields import Fields
from models.weights.sources import Names


def read_rank(fields: Fields, key: str) -> int:
    """How many numbers steps are made from; "auto" is a sixteenth of the width."""
    if fields.raw.get(key) in (None, "auto"):
        return -(-fields.integer("hidden_size") // 16)
    return fields.integer(key)


def selective_names(mixer: str) -> Names:
    """Tensors of a mixer whose name begins so."""
    return {
        "layers.*.mixer.input": f"{mixer}.in_proj",
        "layers.*.mixer.conv": f"{mixer}.conv1d",
        "layers.*.mixer.select": f"{mixer}.x_proj",
        "layers.*.mixer.step_norm": f"{mixer}.dt_layernorm",
        "layers.*.mixer.key_norm": f"{mixer}.b_layernorm",
        "layers.*.mixer.query_norm": f"{mixer}.c_layernorm",
        "layers.*.mixer.step": f"{mixer}.dt_proj",
        "layers.*.mixer.skip": f"{mixer}.D",
        "layers.*.mixer.matrix": f"{mixer}.A_log",
        "layers.*.mixer.output": f"{mixer}.out_proj",
    }
