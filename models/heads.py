"""Attention heads as config.json states them."""

from models.errors import CheckpointError
from models.fields import MAX_HEADS, Fields


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
