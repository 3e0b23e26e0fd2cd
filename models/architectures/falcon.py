"""Falcon 7B, 40B, 180B and 11B: attention and MLP in parallel, one fused tensor of all heads.

The first models, RW, have linear biases in the place of rotations, one block after the other.
"""

from collections.abc import Mapping
from typing import Any, Literal

from models.architectures import llama
from models.config.decoder import ModelConfig
from models.config.fields import MAX_HEADS, MAX_LAYERS, Fields
from models.config.heads import read_head_dim
from models.layers.alibi import slopes_from_below
from models.weights.decoder import weight_map
from models.weights.sources import Names, WeightMap

ARCHITECTURES = ("FalconForCausalLM",)
DEFAULTS = {"activation": "gelu", "layer_norm_epsilon": 1e-5, "tie_word_embeddings": True,
            "max_position_embeddings": 2048}  # fmt: skip
RENAMED = {
    "hidden_act": "activation",
    "rms_norm_eps": "layer_norm_epsilon",
    "intermediate_size": "ffn_hidden_size",
    "num_key_value_heads": "num_kv_heads",
}
LAYER = "transformer.h.*"
NAMES: Names = {
    "embedding": "transformer.word_embeddings",
    "layers.*.attention_norm": f"{LAYER}.input_layernorm",
    "layers.*.attention.qkv": f"{LAYER}.self_attention.query_key_value",
    "layers.*.attention.o": f"{LAYER}.self_attention.dense",
    "layers.*.mlp_norm": f"{LAYER}.post_attention_layernorm",
    "layers.*.mlp.up": f"{LAYER}.mlp.dense_h_to_4h",
    "layers.*.mlp.down": f"{LAYER}.mlp.dense_4h_to_h",
    "norm": "transformer.ln_f",
    "head": "lm_head",
}
TWO_NORMS = {
    "layers.*.attention_norm": f"{LAYER}.ln_attn",
    "layers.*.mlp_norm": f"{LAYER}.ln_mlp",
}


def config(raw: Mapping[str, Any]) -> ModelConfig:
    fields = Fields({**DEFAULTS, **raw}, names=RENAMED)
    new = fields.flag("new_decoder_architecture", False)
    if not new:
        one = fields.flag("multi_query", True)
        heads = 1 if one else fields.integer("num_attention_heads", high=MAX_HEADS)
        fields = fields.replaced("num_key_value_heads", heads)
    fields = fields.completed("intermediate_size", 4 * fields.integer("hidden_size"))
    bias, alibi = fields.flag("bias", False), {}
    if fields.flag("alibi", False):  # scaled with the scores
        count = fields.integer("num_attention_heads", high=MAX_HEADS)
        scale = read_head_dim(fields) ** -0.5
        alibi = {
            "slopes": tuple(slope * scale for slope in slopes_from_below(count)),
            "ropes": [None] * fields.integer("num_hidden_layers", high=MAX_LAYERS),
        }
    return llama.dense(
        fields, **alibi, norm="layer", norm_bias=True, parallel=_parallel(fields, new),
        gated_mlp=False, qkv_bias=bias, o_bias=bias, mlp_bias=bias,
    )  # fmt: skip


def _parallel(fields: Fields, new: bool) -> Literal["one norm", "two norms"] | None:
    if not fields.flag("parallel_attn", True):
        if new:
            fields.refuse("new_decoder_architecture")
        return None
    norms = fields.integer("num_ln_in_parallel_attn", 2 if new else 1, high=2)
    return "two norms" if new and norms == 2 else "one norm"


def weights(config: ModelConfig) -> WeightMap:
    names = {**NAMES, **TWO_NORMS} if config.parallel == "two norms" else NAMES
    return weight_map(config, names, grouped=True, optional_prefix="transformer.")
