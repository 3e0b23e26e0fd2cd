"""MiniMax M2: experts scored by sigmoids, a norm over all heads of queries and of keys."""

from collections.abc import Mapping
from typing import Any

from models.architectures import llama, mixtral
from models.config.decoder import Mixture, ModelConfig, QKNorm
from models.config.experts import MAX_EXPERTS, read_activation, read_chosen
from models.config.fields import MAX_LAYERS, Fields
from models.config.heads import read_head_dim
from models.errors import UnsupportedError
from models.weights.decoder import weight_map
from models.weights.sources import Names, WeightMap

ARCHITECTURES = ("MiniMaxM2ForCausalLM",)
DEFAULTS = {
    "head_dim": 128,
    "num_key_value_heads": 8,
    "num_local_experts": 256,
    "num_experts_per_tok": 8,
    "rope_theta": 5e6,
}
NAMES: Names = {
    **mixtral.NAMES,
    "layers.*.mlp.choice_bias": f"{mixtral.MOE}.e_score_correction_bias",
}


def config(raw: Mapping[str, Any]) -> ModelConfig:
    fields = Fields({**DEFAULTS, **raw})
    fields.required("use_qk_norm")
    fields.required("use_routing_bias")
    fields.refuse("shared_intermediate_size")
    fields.option("scoring_func", ("sigmoid",), "sigmoid")
    if 0 in fields.integers("attn_type_list"):
        raise UnsupportedError(
            f"{fields.where}: attn_type_list has 0, which is linear attention; only 1 is supported."
        )
    if "rotary_dim" in fields:
        head_dim = read_head_dim(fields)
        rotated = fields.integer("rotary_dim", high=head_dim)
        fields = fields.completed("partial_rotary_factor", rotated / head_dim)
    experts = fields.integer("num_local_experts", high=MAX_EXPERTS)
    mixture = Mixture(
        num_experts=experts,
        per_token=read_chosen(fields, experts),
        intermediate_size=fields.integer("intermediate_size"),
        score="sigmoid",
        choice_bias=True,
        activation=read_activation(fields),
    )
    layers = fields.integer("num_hidden_layers", high=MAX_LAYERS)
    return llama.dense(fields, experts=[True] * layers, mixture=mixture, qk_norm=QKNorm("width"))


def weights(config: ModelConfig) -> WeightMap:
    return weight_map(config, NAMES)
