"""OPT: GPT-2 with ReLU, and a table of positions that begins two rows late; the 350M model norms
sums, and its embeddings are narrower than its layers."""

from collections.abc import Mapping
from typing import Any

from models.architectures import gpt2
from models.config.decoder import ModelConfig
from models.config.fields import Fields
from models.weights.decoder import weight_map
from models.weights.sources import Names, WeightMap

ARCHITECTURES = ("OPTForCausalLM",)
DEFAULTS = {"activation_function": "relu", "tie_word_embeddings": True}
RENAMED = {"intermediate_size": "ffn_dim", "hidden_act": "activation_function"}
EPS = 1e-5  # of norms, in every size
LAYER = "model.decoder.layers.*"
NAMES: Names = {
    "embedding": "model.decoder.embed_tokens",
    "project_in": "model.decoder.project_in",
    "project_out": "model.decoder.project_out",
    "position_embedding": "model.decoder.embed_positions",
    "layers.*.attention_norm": f"{LAYER}.self_attn_layer_norm",
    "layers.*.attention.qkv": tuple(f"{LAYER}.self_attn.{x}_proj" for x in "qkv"),
    "layers.*.attention.o": f"{LAYER}.self_attn.out_proj",
    "layers.*.mlp_norm": f"{LAYER}.final_layer_norm",
    "layers.*.mlp.up": f"{LAYER}.fc1",
    "layers.*.mlp.down": f"{LAYER}.fc2",
    "norm": "model.decoder.final_layer_norm",
    "head": "lm_head",
}


def config(raw: Mapping[str, Any]) -> ModelConfig:
    fields = Fields({**DEFAULTS, **raw}, names=RENAMED).replaced("rms_norm_eps", EPS)
    fields.refuse("_remove_final_layer_norm")
    width = fields.integer("hidden_size")
    narrow = fields.integer("word_embed_proj_dim", width)
    bias = fields.flag("enable_bias", True)
    affine = fields.flag("layer_norm_elementwise_affine", True)
    return gpt2.dense(
        fields, position_offset=2, qkv_bias=bias, o_bias=bias, mlp_bias=bias,
        norm_weight=affine, norm_bias=affine,
        norm_sums=not fields.flag("do_layer_norm_before", True),
        embedding_size=narrow if narrow != width else None,
    )  # fmt: skip


def weights(config: ModelConfig) -> WeightMap:
    return weight_map(config, NAMES)
