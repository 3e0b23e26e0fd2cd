"""What a caller may ask of a vector; names are vLLM's. Imports no JAX."""

import msgspec
from msgspec.structs import force_setattr

from engine.errors import RequestError
from engine.plain_values import boolean, integer

MAX_DIMENSIONS = 2**24


class PoolingParams(msgspec.Struct, kw_only=True, frozen=True, forbid_unknown_fields=True):
    """Options of one request for a vector or for the scores of classes.

    dimensions: only the first so many numbers, of models that were trained for that (Matryoshka,
        arXiv 2205.13147).
    use_activation: vectors get length 1, scores become probabilities; None is as the model says.

    Raises RequestError for more dimensions than any model has, and for what is no such value.
    """

    dimensions: int | None = None
    use_activation: bool | None = None

    def __post_init__(self) -> None:
        if self.dimensions is not None:
            force_setattr(self, "dimensions", integer("dimensions", self.dimensions))
        if self.use_activation is not None:
            force_setattr(self, "use_activation", boolean("use_activation", self.use_activation))
        if abs(self.dimensions or 0) > MAX_DIMENSIONS:
            raise RequestError(f"dimensions may be at most {MAX_DIMENSIONS}.", "dimensions")
