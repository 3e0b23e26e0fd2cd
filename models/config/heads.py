"""Attention heads as config.json states them."""

from collections.abc import Sequence

from models.config.fields import MAX_HEADS, Fields
from models.config.windows import FULL
from models.errors import CheckpointError


def read_head_dim(fields: Fields) -> int:
    """The size of a head: what the file says, or what the width divides into."""
    if "head_dim" in fields:
        return fields.integer("head_dim", high=MAX_HEADS)
    width, heads = fields.integer("hidden_size"), fields.integer("num_attention_heads")
    if width % heads:
        raise CheckpointError(
            f"{fields.where}: {fields.name('hidden_size')} {width} does not divide into "
            f"{fields.name('num_attention_heads')} {heads}, and no head_dim says otherwise."
        )
    return width // heads


def read_layer_heads(fields: Fields, types: Sequence[str]) -> tuple[tuple[int, int], ...]:
    """Key/value heads of each layer and their size, where full layers have others (Gemma 4).

    Newer files have an object of the layers that differ, by number; older ones two keys.

    Raises:
        UnsupportedError: a layer differs in something else.
    """
    kv_heads = fields.integer("num_key_value_heads", high=MAX_HEADS)
    if "per_layer_config" not in fields:
        full = kv_heads, fields.integer("global_head_dim", 512, high=MAX_HEADS)
        if fields.flag("attention_k_eq_v", False):
            key = "num_global_key_value_heads"
            full = fields.integer(key, kv_heads, high=MAX_HEADS), full[1]
        usual = kv_heads, read_head_dim(fields)
        return tuple(full if one == FULL else usual for one in types)
    each = fields.section("per_layer_config")
    layers = [str(layer) for layer in range(len(types))]
    each.refuse(*each.raw.keys() - layers)
    found = []
    for layer in layers:
        own = each.section(layer)
        own.refuse(*own.raw.keys() - {"num_key_value_heads", "head_dim"})
        size = own.integer("head_dim", read_head_dim(fields), high=MAX_HEADS)
        found.append((own.integer("num_key_value_heads", kv_heads, high=MAX_HEADS), size))
    return tuple(found)
