"""GPT-2: learned positions, layer norms, biases everywhere, no gate, kernels stored [in, out]."""

from collections.abc import Mapping
from typing import Any

from models.architectures import llama
from models.config.decoder import ModelConfig
from models.config.fields import MAX_LAYERS, Fields
from models.weights.decoder import weight_map
from models.weights.sources import Names, WeightMap

ARCHITECTURES = ("GPT2LMHeadModel",)
DEFAULTS = {
    "activation_function": "gelu_new",
    "layer_norm_epsilon": 1e-5,
    "tie_word_embeddings": True,
}
RENAMED = {
    "hidden_size": "n_embd",
    "intermediate_size": "n_inner",
    "num_hidden_layers": "n_layer",
    "num_attention_heads": "n_head",
    "max_position_embeddings": "n_positions",
    "hidden_act": "activation_function",
    "rms_norm_eps": "layer_norm_epsilon",
}
LAYER = "transformer.h.*"
NAMES: Names = {
    "embedding": "transformer.wte",
    "position_embedding": "transformer.wpe",
    "layers.*.attention_norm": f"{LAYER}.ln_1",
    "layers.*.attention.qkv": f"{LAYER}.attn.c_attn",
    "layers.*.attention.o": f"{LAYER}.attn.c_proj",
    "layers.*.mlp_norm": f"{LAYER}.ln_2",
    "layers.*.mlp.up": f"{LAYER}.mlp.c_fc",
    "layers.*.mlp.down": f"{LAYER}.mlp.c_proj",
    "norm": "transformer.ln_f",
    "head": "lm_head",
}
IGNORED = ("*.attn.bias", "*.attn.masked_bias")  # causal masks that early versions saved


def config(raw: Mapping[str, Any]) -> ModelConfig:
    fields = read(raw)
    by_layer = fields.flag("scale_attn_by_inverse_layer_idx", False)
    return dense(fields, scale_by_layer=by_layer)


def read(raw: Mapping[str, Any], **defaults: Any) -> Fields:
    """The keys of this family, whose MLPs are four times as wide as the model unless they say."""
    fields = Fields({**DEFAULTS, **defaults, **raw}, names=RENAMED)
    return fields.completed("intermediate_size", 4 * fields.integer("hidden_size"))


def dense(fields: Fields, **switches: Any) -> ModelConfig:
    """What GPT-2, its descendants and OPT share."""
    fields.refuse("add_cross_attention")
    shared = {
        "ropes": [None] * fields.integer("num_hidden_layers", high=MAX_LAYERS),
        "learned_positions": True,
        "attention_scale": None if fields.flag("scale_attn_weights", True) else 1.0,
        "gated_mlp": False,
        "norm": "layer",
    }
    biases = dict.fromkeys(("norm_bias", "qkv_bias", "o_bias", "mlp_bias"), True)
    return llama.dense(fields, **{**shared, **biases, **switches})


def weights(config: ModelConfig) -> WeightMap:
    return weight_map(
        config, NAMES, transpose=False, ignored=IGNORED, optional_prefix="transformer."
    )
