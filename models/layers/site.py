"""Where a layer stands in a step: what it is told besides its input and the cache."""

from typing import NamedTuple

from jaxtyping import Array, Int32

from models.layers.attention import AttentionBatch
from models.layers.rope import Rotation


class Site(NamedTuple):
    """Numbers are arrays, so that layers of one kind are one program."""

    layer: Int32[Array, ""]  # of those that have keys and values in the cache
    state: Int32[Array, ""] | None  # of those that have a state; None for one without
    turn: Rotation | None  # of its queries and keys; None where positions do not turn them
    batch: AttentionBatch
