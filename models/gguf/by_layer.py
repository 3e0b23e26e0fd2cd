"""Keys that say one thing of all layers, or have a list with one for each.

    llama.attention.head_count_kv                 8, or [8, 8, 4]
    gemma3.attention.sliding_window_pattern       6, or [True, True, False]

Refuses to know families and tensors, and JAX.
"""

from typing import Any

from models.config.fields import MAX_HEADS, MAX_LAYERS, MAX_SIZE, Fields
from models.config.windows import FULL, SLIDING
from models.errors import CheckpointError

PATTERN = "attention.sliding_window_pattern"


def num_layers(fields: Fields) -> int:
    """Without those behind the last, which predict further tokens."""
    further = fields.integer("nextn_predict_layers", 0, low=0, high=MAX_LAYERS)
    return fields.integer("block_count", low=further + 1, high=MAX_LAYERS) - further


def widest(fields: Fields, key: str, default: int | None = None) -> int:
    """A number of all layers, or the largest of a list of them: 0 is of layers without."""
    if isinstance(fields.raw.get(key), list):
        return max(fields.integers(key), default=0)
    return fields.integer(key, default, low=0)


def of_each(
    fields: Fields, key: str, layers: int, *, low: int = 0, high: int = MAX_SIZE
) -> tuple[int, ...]:
    """The number of each layer.

    Raises:
        CheckpointError: there is none, or the list has fewer.
    """
    if not isinstance(fields.raw.get(key), list):
        return (fields.integer(key, low=low, high=high),) * layers
    listed = fields.integers(key, low=low, high=high)
    if len(listed) < layers:
        raise CheckpointError(
            f"{fields.where}: {key} lists {len(listed)} layers of {layers}; convert the model "
            "again."
        )
    return listed[:layers]


def of_layer(fields: Fields, key: str, layer: int, default: int | None = None) -> int:
    """The number of one layer, which has some of it."""
    listed = fields.raw.get(key)
    if isinstance(listed, list) and layer < len(listed):
        fields = fields.replaced(key, listed[layer])
    return fields.integer(key, default, high=MAX_HEADS)


def heads_of(fields: Fields, module: str) -> int:
    """Of attn_q, or of attn_k and attn_v; the most that a layer has."""
    heads = widest(fields, "attention.head_count")
    return heads if module == "attn_q" else widest(fields, "attention.head_count_kv", heads)


def pattern(fields: Fields, every: int) -> dict[str, Any]:
    """Which layers slide: all but every so many, which may be said, or as listed."""
    slides = fields.raw.get(PATTERN, every)
    if not isinstance(slides, list):
        return {"sliding_window_pattern": fields.integer(PATTERN, every)}
    return {"layer_types": [SLIDING if one else FULL for one in slides]}
