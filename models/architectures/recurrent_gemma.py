"""RecurrentGemma: two layers of a gated linear recurrence to one of attention to what is near."""

import math
from collections.abc import Mapping
from dataclasses import replace
from itertools import cycle, islice
from typing import Any

import jax.numpy as jnp

from models.architectures import llama
from models.config.decoder import ModelConfig
from models.config.fields import MAX_HEADS, MAX_LAYERS, MAX_TOKENS, Fields
from models.config.hybrids import FAR, USUAL, with_states
from models.config.mixers import LinearRecurrence
from models.errors import CheckpointError
from models.weights.decoder import weight_map
from models.weights.sources import Names, WeightMap

ARCHITECTURES = ("RecurrentGemmaForCausalLM",)
DEFAULTS = {
    "hidden_activation": "gelu_pytorch_tanh", "tie_word_embeddings": True, "conv1d_width": 4,
    "attention_window_size": 2048, "logits_soft_cap": 30.0, "partial_rotary_factor": 0.5,
    "block_types": ["recurrent", "recurrent", "attention"],
}  # fmt: skip
KEYS = {"hidden_act": "hidden_activation"}
TYPES = ("recurrent", "attention")
BLOCK, MLP = f"{llama.LAYER}.temporal_block", f"{llama.LAYER}.mlp_block"
UNIT = f"{BLOCK}.rg_lru"
NAMES: Names = {
    "embedding": "model.embed_tokens",
    "layers.*.attention_norm": f"{llama.LAYER}.temporal_pre_norm",
    "layers.*.attention.qkv": tuple(f"{BLOCK}.{x}_proj" for x in "qkv"),
    "layers.*.attention.o": f"{BLOCK}.o_proj",
    "layers.*.mixer.input": (f"{BLOCK}.linear_x", f"{BLOCK}.linear_y"),
    "layers.*.mixer.conv": f"{BLOCK}.conv_1d",
    "layers.*.mixer.gates": tuple(f"{UNIT}.{x}_gate_weight" for x in ("input", "recurrent")),
    "layers.*.mixer.gate_bias": tuple(f"{UNIT}.{x}_gate_bias" for x in ("input", "recurrent")),
    "layers.*.mixer.rate": f"{UNIT}.recurrent_param",
    "layers.*.mixer.output": f"{BLOCK}.linear_out",
    "layers.*.mlp_norm": f"{llama.LAYER}.channel_pre_norm",
    "layers.*.mlp.gate_up": (f"{MLP}.gate_proj", f"{MLP}.up_proj"),
    "layers.*.mlp.down": f"{MLP}.down_proj",
    "norm": "model.final_norm",
    "head": "lm_head",
}


def config(raw: Mapping[str, Any]) -> ModelConfig:
    fields = Fields({**DEFAULTS, **raw}, names=KEYS)
    fields.required("embeddings_scale_by_sqrt_dim")
    width, heads = (
        fields.integer("hidden_size"),
        fields.integer("num_attention_heads", high=MAX_HEADS),
    )
    fields = fields.completed("max_position_embeddings", FAR)  # published files name no bound
    fields = fields.replaced("head_dim", max(1, width // heads))
    fields = fields.replaced("intermediate_size", max(1, fields.integer("intermediate_size") // 2))
    window = fields.integer("attention_window_size", high=MAX_TOKENS)
    layers = fields.integer("num_hidden_layers", high=MAX_LAYERS)
    config = llama.dense(
        fields,
        windows=[window] * layers,
        norm_offset=True,
        embedding_scale=float(jnp.bfloat16(math.sqrt(width))),  # rounded in every dtype
        scales_given=True,
        qkv_bias=fields.flag("attention_bias", False),
        o_bias=True,
        mlp_bias=True,
        logit_softcap=fields.number("logits_soft_cap"),
    )
    mixer = LinearRecurrence(
        inner=fields.integer("lru_width", width),
        num_blocks=heads,
        conv_width=fields.integer("conv1d_width", low=2, high=16),
    )
    if mixer.inner % heads:
        raise CheckpointError(
            f"{fields.where}: lru_width is {mixer.inner}; it must be a multiple of "
            f"num_attention_heads, which is {heads}."
        )
    types = fields.options("block_types", len(fields.texts("block_types")), TYPES)
    stated = [one == "recurrent" for one in islice(cycle(types), layers)]
    context = config.context_length if "max_position_embeddings" in raw else USUAL
    return replace(with_states(config, stated, mixer), context_length=context)


def weights(config: ModelConfig) -> WeightMap:
    return weight_map(config, NAMES)
