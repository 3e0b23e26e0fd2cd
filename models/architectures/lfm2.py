"""LFM2: short convolutions between gates, and attention in some layers."""

from collections.abc import Mapping
from typing import Any

from models.architectures import llama
from models.config.decoder import ModelConfig, QKNorm
from models.config.fields import MAX_LAYERS, Fields
from models.config.hybrids import read_state_layers, with_states
from models.config.mixers import GatedConv
from models.weights.decoder import weight_map
from models.weights.sources import Names, WeightMap

ARCHITECTURES = ("Lfm2ForCausalLM",)
DEFAULTS = {
    "norm_eps": 1e-5, "num_key_value_heads": 8, "max_position_embeddings": 128_000,
    "conv_L_cache": 3, "tie_word_embeddings": True, "block_multiple_of": 256,
    "block_ffn_dim_multiplier": 1.0,
}  # fmt: skip
KEYS = {"rms_norm_eps": "norm_eps"}
ATTENTION, MLP = f"{llama.LAYER}.self_attn", f"{llama.LAYER}.feed_forward"
NAMES: Names = {
    **llama.NAMES,
    "layers.*.attention_norm": f"{llama.LAYER}.operator_norm",
    "layers.*.attention.q_norm": f"{ATTENTION}.q_layernorm",
    "layers.*.attention.k_norm": f"{ATTENTION}.k_layernorm",
    "layers.*.attention.o": f"{ATTENTION}.out_proj",
    "layers.*.mixer.input": f"{llama.LAYER}.conv.in_proj",
    "layers.*.mixer.conv": f"{llama.LAYER}.conv.conv",
    "layers.*.mixer.output": f"{llama.LAYER}.conv.out_proj",
    "layers.*.mlp_norm": f"{llama.LAYER}.ffn_norm",
    "layers.*.mlp.gate_up": (f"{MLP}.w1", f"{MLP}.w3"),
    "layers.*.mlp.down": f"{MLP}.w2",
    "norm": "model.embedding_norm",
}


def config(raw: Mapping[str, Any]) -> ModelConfig:
    fields = Fields({**DEFAULTS, **raw}, names=KEYS)
    return convolved(fields.replaced("intermediate_size", _inner(fields)))


def convolved(fields: Fields, **switches: Any) -> ModelConfig:
    """What LFM2 with experts and without have in common."""
    tied = fields.flag("tie_embedding", fields.flag("tie_word_embeddings", True))
    fields = fields.replaced("tie_word_embeddings", tied)
    config = llama.dense(fields, qk_norm=QKNorm(), **switches)
    stated = read_state_layers(fields, "conv")
    if stated is None:
        attend = fields.integers("full_attn_idxs", high=MAX_LAYERS)
        stated = tuple(layer not in attend for layer in range(config.num_layers))
    width = fields.integer("conv_L_cache", low=2, high=16)
    mixer = GatedConv(config.hidden_size, width, fields.flag("conv_bias", False))
    return with_states(config, stated, mixer)


def _inner(fields: Fields) -> int:
    """The MLP's size, which the file states before it is cut and rounded up."""
    size = fields.integer("block_ff_dim", fields.integer("intermediate_size", 1))
    if not fields.flag("block_auto_adjust_ff_dim", True):
        return size
    size = int(fields.number("block_ffn_dim_multiplier") * int(2 * size / 3))
    multiple = fields.integer("block_multiple_of")
    return -(-size // multiple) * multiple


def weights(config: ModelConfig) -> WeightMap:
    return weight_map(config, NAMES)
