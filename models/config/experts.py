"""Mixtures of experts as config.json states them; the keys that families write alike."""

from dataclasses import replace
from typing import Any

from models.config.decoder import Mixture
from models.config.fields import MAX_LAYERS, Fields
from models.weights.sources import Names
from pallas_kernels.moe.activations import GATED, UNGATED

MAX_EXPERTS = 2**12


def read_chosen(fields: Fields, experts: int, default: int | None = None) -> int:
    """How many experts a token goes to."""
    return fields.integer("num_experts_per_tok", default, high=experts)


def read_activation(fields: Fields, *, gated: bool = True) -> str:
    """What lies between an expert's products."""
    if not gated:
        return fields.option("hidden_act", UNGATED)
    known = ["silu", *(name for name in GATED if name.startswith("gelu"))]
    return fields.option("hidden_act", known, "silu")


def read_sparse_layers(fields: Fields) -> tuple[bool, ...]:
    """Every `decoder_sparse_step`-th layer has experts, but for those of `mlp_only_layers`."""
    layers = fields.integer("num_hidden_layers", high=MAX_LAYERS)
    step = fields.integer("decoder_sparse_step", 1, high=MAX_LAYERS)
    dense = fields.integers("mlp_only_layers", high=MAX_LAYERS)
    return tuple((layer + 1) % step == 0 and layer not in dense for layer in range(layers))


def read_first_dense(fields: Fields) -> tuple[bool, ...]:
    """Experts behind the first `first_k_dense_replace` layers, or as `mlp_layer_types` lists."""
    layers = fields.integer("num_hidden_layers", high=MAX_LAYERS)
    if "mlp_layer_types" in fields:
        types = fields.options("mlp_layer_types", layers, ("dense", "sparse"))
        return tuple(one == "sparse" for one in types)
    dense = fields.integer("first_k_dense_replace", 0, low=0, high=MAX_LAYERS)
    return tuple(layer >= dense for layer in range(layers))


def read_biased_mixture(fields: Fields, *, gated: bool = True) -> Mixture:
    """Routing of DeepSeek V3 and what copies it: sigmoids, groups, and a bias of the choice."""
    fields.option("scoring_func", ("sigmoid",), "sigmoid")
    fields.option("topk_method", ("noaux_tc",), "noaux_tc")
    groups = fields.integer("n_group", 1, high=MAX_EXPERTS)
    return read_routed_mixture(
        fields,
        gated=gated,
        score="sigmoid",
        choice_bias=True,
        groups=groups,
        kept_groups=fields.integer("topk_group", 1, high=groups),
        renormalize=fields.flag("norm_topk_prob", True),
    )


def read_ungated_mixture(fields: Fields) -> Mixture:
    """The same of experts without gates, between projections into fewer numbers or not, beside one
    shared expert whose size is its own (Nemotron 3)."""
    fields.constant("n_shared_experts", 1.0)
    fields.refuse("mlp_bias")
    latent = "moe_latent_size" in fields
    return replace(
        read_biased_mixture(fields, gated=False),
        shared_size=fields.integer("moe_shared_expert_intermediate_size"),
        latent_size=fields.integer("moe_latent_size") if latent else None,
    )


def read_mixture_beside(fields: Fields) -> Mixture:
    """Experts beside the MLP, each of the two between norms of its own (Gemma 4)."""
    experts = fields.integer("num_experts", high=MAX_EXPERTS)
    return Mixture(
        num_experts=experts,
        per_token=fields.integer("top_k_experts", high=experts),
        intermediate_size=fields.integer("moe_intermediate_size"),
        activation=read_activation(fields),
        beside_mlp=True,
    )


def read_routed_mixture(fields: Fields, *, gated: bool = True, **routing: Any) -> Mixture:
    """The keys of DeepSeek and what copies it; `routing` are the other fields of Mixture."""
    fields.constant("moe_layer_freq", 1.0)
    experts = fields.integer("n_routed_experts", high=MAX_EXPERTS)
    size = fields.integer("moe_intermediate_size")
    return Mixture(
        num_experts=experts,
        per_token=read_chosen(fields, experts),
        intermediate_size=size,
        scale=fields.number("routed_scaling_factor", 1.0),
        shared_size=size * fields.integer("n_shared_experts", 0, low=0, high=MAX_EXPERTS),
        activation=read_activation(fields, gated=gated),
        **routing,
    )


def routed_names(mlp: str, shared: str) -> Names:
    """Tensors of a router, of experts each by itself, and of the one that all tokens go through."""
    one = f"{mlp}.experts.#"
    return {
        "layers.*.mlp.router": f"{mlp}.gate",
        "layers.*.mlp.experts.gate_up": (f"{one}.gate_proj", f"{one}.up_proj"),
        "layers.*.mlp.experts.down": f"{one}.down_proj",
        "layers.*.mlp.shared.gate_up": (f"{mlp}.{shared}.gate_proj", f"{mlp}.{shared}.up_proj"),
        "layers.*.mlp.shared.down": f"{mlp}.{shared}.down_proj",
    }


def ungated_names(mlp: str, shared: str) -> Names:
    """The same without gates, with the bias of the choice and the projections around experts."""
    return {
        "layers.*.mlp.router": f"{mlp}.gate",
        "layers.*.mlp.choice_bias": f"{mlp}.gate.e_score_correction_bias",
        "layers.*.mlp.experts.gate_up": (f"{mlp}.experts.#.up_proj",),
        "layers.*.mlp.experts.down": f"{mlp}.experts.#.down_proj",
        "layers.*.mlp.shared.up": f"{mlp}.{shared}.up_proj",
        "layers.*.mlp.shared.down": f"{mlp}.{shared}.down_proj",
        "layers.*.mlp.squeeze": f"{mlp}.fc1_latent_proj",
        "layers.*.mlp.expand": f"{mlp}.fc2_latent_proj",
    }
