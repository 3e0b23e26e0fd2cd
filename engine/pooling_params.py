"""What a caller may ask of a vector; names are vLLM's. Imports no JAX."""

import msgspec

MAX_DIMENSIONS = 2**24


class PoolingParams(msgspec.Struct, kw_only=True, frozen=True, forbid_unknown_fields=True):
    """Options of one request for a vector or for the scores of classes.

    dimensions: only the first so many numbers, of models that were trained for that (Matryoshka,
        arXiv 2205.13147).
    use_activation: vectors get length 1, scores become probabilities; None is as the model says.
    """

    dimensions: int | None = None
    use_activation: bool | None = None
