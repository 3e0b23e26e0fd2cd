"""Mixtures of experts as config.json states them; the keys that families write alike."""

from models.fields import MAX_LAYERS, Fields
from pallas_kernels.moe.activations import ACTIVATIONS

MAX_EXPERTS = 2**12


def read_chosen(fields: Fields, experts: int, default: int | None = None) -> int:
    """How many experts a token goes to."""
    return fields.integer("num_experts_per_tok", default, high=experts)


def read_activation(fields: Fields) -> str:
    """What lies between an expert's products."""
    known = ["silu", *(name for name in ACTIVATIONS if name.startswith("gelu"))]
    return fields.option("hidden_act", known, "silu")


def read_sparse_layers(fields: Fields) -> tuple[bool, ...]:
    """Every `decoder_sparse_step`-th layer has experts, but for those of `mlp_only_layers`."""
    layers = fields.integer("num_hidden_layers", high=MAX_LAYERS)
    step = fields.integer("decoder_sparse_step", 1, high=MAX_LAYERS)
    dense = fields.integers("mlp_only_layers", high=MAX_LAYERS)
    return tuple((layer + 1) % step == 0 and layer not in dense for layer in range(layers))
