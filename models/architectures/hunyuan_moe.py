"""Hunyuan-A13B: Hunyuan dense with experts, and an MLP as large that all tokens go through."""

from collections.abc import Mapping
from typing import Any

from models.architectures import hunyuan_dense, llama
from models.config.decoder import Mixture, ModelConfig, QKNorm
from models.config.experts import read_activation, routed_names
from models.config.fields import MAX_LAYERS, Fields
from models.errors import UnsupportedError
from models.weights.decoder import weight_map
from models.weights.sources import Names, WeightMap

ARCHITECTURES = ("HunYuanMoEV1ForCausalLM",)
MLP = f"{llama.LAYER}.mlp"
NAMES: Names = {
    **hunyuan_dense.NAMES,
    **routed_names(MLP, "shared_mlp"),
    "layers.*.mlp.router": f"{MLP}.gate.wg",
}


def config(raw: Mapping[str, Any]) -> ModelConfig:
    fields = Fields({**hunyuan_dense.DEFAULTS, **raw})
    fields.refuse("use_cla", "moe_layer_num_skipped")
    for key in ("use_qk_norm", "use_mixed_mlp_moe", "norm_topk_prob"):
        fields.required(key)
    size = fields.integer("intermediate_size")
    for key, value in (("moe_intermediate_size", size), ("num_shared_expert", 1)):
        if read_alike(fields, key, value) != value:
            raise UnsupportedError(
                f"{fields.where}: {key} is {raw[key]!r:.60}, which is not supported; use {value}."
            )
    experts = read_alike(fields, "num_experts", 1)
    mixture = Mixture(
        num_experts=experts,
        per_token=min(read_alike(fields, "moe_topk", 1), experts),
        intermediate_size=size,
        activation=read_activation(fields),
        shared_size=size,
    )
    layers = fields.integer("num_hidden_layers", high=MAX_LAYERS)
    bias = fields.flag("attention_bias", False)
    return llama.dense(
        fields, experts=[True] * layers, mixture=mixture, qk_norm=QKNorm(rotated=True),
        qkv_bias=bias, o_bias=bias,
    )  # fmt: skip


def read_alike(fields: Fields, key: str, default: int) -> int:
    """A number that is the same in every layer, stated once or in a list of all.

    Raises:
        UnsupportedError: layers differ.
    """
    if not isinstance(fields.raw.get(key), list):
        return fields.integer(key, default)
    values = set(fields.integers(key, low=1))
    if len(values) != 1:
        raise UnsupportedError(
            f"{fields.where}: {key} differs between layers, which is not supported."
        )
    return values.pop()


def weights(config: ModelConfig) -> WeightMap:
    return weight_map(config, NAMES)
