"""Sliding windows as config.json states them: which layers slide, and how far they see."""

from collections.abc import Callable

from models.config.fields import MAX_LAYERS, MAX_TOKENS, Fields

FULL, SLIDING = "full_attention", "sliding_attention"  # the words of `layer_types`


def read_layer_types(fields: Fields, slides: Callable[[int], bool]) -> tuple[str, ...]:
    """FULL or SLIDING for each layer: as the file lists them, else by the family's rule."""
    layers = fields.integer("num_hidden_layers", high=MAX_LAYERS)
    if "layer_types" in fields:
        return fields.options("layer_types", layers, (FULL, SLIDING))
    return tuple(SLIDING if slides(layer) else FULL for layer in range(layers))


def read_windows(fields: Fields, slides: Callable[[int], bool]) -> tuple[int | None, ...]:
    """The window of each layer in tokens, or None where it sees everything before it."""
    types = read_layer_types(fields, slides)
    window = fields.integer("sliding_window", high=MAX_TOKENS) if SLIDING in types else None
    return tuple(window if one == SLIDING else None for one in types)
