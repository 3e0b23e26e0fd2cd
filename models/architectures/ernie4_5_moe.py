"""ERNIE 4.5 with experts (21B-A3B, 300B-A47B): softmax scores, and a bias of the choice."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from models.architectures import llama
from models.config.decoder import Mixture, ModelConfig
from models.config.experts import MAX_EXPERTS, read_activation, read_chosen, routed_names
from models.config.fields import MAX_LAYERS, Fields
from models.weights.decoder import weight_map
from models.weights.sources import Names, Source, WeightMap

ARCHITECTURES = ("Ernie4_5_MoeForCausalLM",)
DEFAULTS = {
    "num_key_value_heads": 4,
    "rms_norm_eps": 1e-5,
    "rope_theta": 500000.0,
    "tie_word_embeddings": True,
    "moe_num_experts": 64,
    "moe_k": 6,
    "moe_intermediate_size": 1536,
    "moe_num_shared_experts": 2,
    "moe_layer_start_index": 1,
}
MLP = f"{llama.LAYER}.mlp"
NAMES: Names = {
    **llama.NAMES,
    "layers.*.mlp.choice_bias": f"{MLP}.moe_statics.e_score_correction_bias",
    **routed_names(MLP, "shared_experts"),
}


def config(raw: Mapping[str, Any]) -> ModelConfig:
    fields = Fields({**DEFAULTS, **raw}, names={"num_experts_per_tok": "moe_k"})
    fields.constant("moe_norm_min", 1e-12)
    experts = fields.integer("moe_num_experts", high=MAX_EXPERTS)
    size = fields.integer("moe_intermediate_size")
    mixture = Mixture(
        num_experts=experts,
        per_token=read_chosen(fields, experts),
        intermediate_size=size,
        choice_bias=True,
        activation=read_activation(fields),
        shared_size=size * fields.integer("moe_num_shared_experts", low=0, high=MAX_EXPERTS),
    )
    bias = fields.flag("use_bias", False)
    return llama.dense(
        fields, experts=read_sparse_layers(fields), mixture=mixture,
        qkv_bias=bias, o_bias=bias, mlp_bias=bias, head_bias=bias,
    )  # fmt: skip


def read_sparse_layers(fields: Fields) -> tuple[bool, ...]:
    """Every so many layers from one to another have experts."""
    layers = fields.integer("num_hidden_layers", high=MAX_LAYERS)
    step = fields.integer("moe_layer_interval", 1, high=MAX_LAYERS)
    first = fields.integer("moe_layer_start_index", low=0, high=MAX_LAYERS)
    last = fields.integer("moe_layer_end_index", -1, low=-1, high=MAX_LAYERS)
    last = layers - 1 if last == -1 else last
    return tuple((layer + 1) % step == 0 and first <= layer <= last for layer in range(layers))


def weights(config: ModelConfig) -> WeightMap:
    made = weight_map(config, NAMES, paired=True)
    sources = dict(made.sources)
    for path, source in made.sources.items():
        if path.endswith("choice_bias") and isinstance(source, Source):
            sources[path] = replace(source, entry=0)  # its tensor is [1, E]
    return replace(made, sources=sources)
