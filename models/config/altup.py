"""Streams, sparse gates and sizes of MLPs as Gemma 3n's config.json states them."""

from models.config.decoder import AltUp, LayerInputs
from models.config.fields import Fields
from models.errors import CheckpointError, UnsupportedError


def read_altup(fields: Fields) -> AltUp:
    """How many streams there are, and what layers are given besides."""
    streams = fields.integer("altup_num_inputs", 4, low=2, high=64)
    return AltUp(
        streams,
        active=fields.integer("altup_active_idx", 0, low=0, high=streams - 1),
        laurel_rank=fields.integer("laurel_rank", 64),
        scaled=fields.flag("altup_correct_scale", True),
    )


def read_layer_inputs(fields: Fields) -> LayerInputs | None:
    """What layers are given besides; None where that is 0 numbers."""
    size = fields.integer("hidden_size_per_layer_input", 256, low=0)
    rows = fields.integer("vocab_size_per_layer_input", 262_144)
    return LayerInputs(size, rows) if size else None


def read_sparsities(fields: Fields, layers: int) -> tuple[float, ...]:
    """The share of each layer's gates that is cut; ten layers of a deep model by default."""
    key = "activation_sparsity_pattern"
    if key not in fields:
        sparse = 10 if layers > 10 else 0
        return (0.95,) * sparse + (0.0,) * (layers - sparse)
    found = fields.numbers(key, layers, low=-1.0)
    if not all(0 <= one < 1 for one in found):
        raise CheckpointError(f"{fields.where}: {key} must hold numbers from 0 to below 1.")
    return found


def with_one_size(fields: Fields) -> Fields:
    """The same file, with one number where a list gives every layer the same MLP.

    Raises:
        UnsupportedError: the list gives them several.
    """
    sizes = fields.raw.get("intermediate_size")
    if not isinstance(sizes, list) or not sizes:
        return fields
    if any(size != sizes[0] for size in sizes):
        raise UnsupportedError(
            f"{fields.where}: intermediate_size differs between layers, which is not supported; "
            "use a model whose layers are alike."
        )
    return fields.replaced("intermediate_size", sizes[0])
