"""Llama 2, 3, 3.1 and 3.2, and what copies them (TinyLlama, Yi, SmolLM2): the plain case.

Owns the keys and tensor names that most other families share, and of which each changes a few.
"""

from collections.abc import Collection, Mapping, Sequence
from typing import Any

from models.config.decoder import LayerKind, ModelConfig
from models.config.fields import MAX_HEADS, MAX_LAYERS, MAX_TOKENS, Fields
from models.config.heads import read_head_dim
from models.config.rope import read_rope
from models.layers.parts import ACTIVATIONS
from models.layers.rope import RopeConfig
from models.weights.decoder import weight_map
from models.weights.sources import Names, WeightMap

ARCHITECTURES = ("LlamaForCausalLM", "IQuestCoderForCausalLM")

LAYER = "model.layers.*"
NAMES: Names = {
    "embedding": "model.embed_tokens",
    "layers.*.attention_norm": f"{LAYER}.input_layernorm",
    "layers.*.attention.qkv": tuple(f"{LAYER}.self_attn.{x}_proj" for x in "qkv"),
    "layers.*.attention.q_norm": f"{LAYER}.self_attn.q_norm",
    "layers.*.attention.k_norm": f"{LAYER}.self_attn.k_norm",
    "layers.*.attention.o": f"{LAYER}.self_attn.o_proj",
    "layers.*.mlp_norm": f"{LAYER}.post_attention_layernorm",
    "layers.*.mlp.gate_up": (f"{LAYER}.mlp.gate_proj", f"{LAYER}.mlp.up_proj"),
    "layers.*.mlp.down": f"{LAYER}.mlp.down_proj",
    "norm": "model.norm",
    "head": "lm_head",
}


def config(raw: Mapping[str, Any]) -> ModelConfig:
    fields = Fields(raw)
    bias, mlp_bias = fields.flag("attention_bias", False), fields.flag("mlp_bias", False)
    return dense(fields, qkv_bias=bias, o_bias=bias, mlp_bias=mlp_bias)


def weights(config: ModelConfig) -> WeightMap:
    return weight_map(config, NAMES)


def dense(
    fields: Fields,
    *,
    windows: Sequence[int | None] | None = None,
    ropes: Sequence[RopeConfig | None] | None = None,
    experts: Sequence[bool] | None = None,
    chunks: Sequence[int | None] | None = None,
    activations: Collection[str] = ACTIVATIONS,
    **switches: Any,
) -> ModelConfig:
    """The keys that these families write alike; `switches` are the other fields of ModelConfig."""
    layers = fields.integer("num_hidden_layers", high=MAX_LAYERS)
    heads = fields.integer("num_attention_heads", high=MAX_HEADS)
    head_dim = read_head_dim(fields)
    context = fields.integer("max_position_embeddings", high=MAX_TOKENS)
    windows, experts = windows or [None] * layers, experts or [False] * layers
    chunks = chunks or [None] * layers
    ropes = ropes or [read_rope(fields, head_dim)] * layers
    return ModelConfig(
        architecture=fields.texts("architectures")[0],
        vocab_size=fields.integer("vocab_size"),
        hidden_size=fields.integer("hidden_size"),
        intermediate_size=fields.integer("intermediate_size"),
        num_heads=heads,
        num_kv_heads=fields.integer("num_key_value_heads", heads, high=MAX_HEADS),
        head_dim=head_dim,
        max_position_embeddings=context,
        context_length=context,
        layer_kinds=tuple(map(LayerKind, windows, ropes, experts, chunks)),
        activation=fields.option("hidden_act", activations, "silu"),
        norm_eps=fields.number("rms_norm_eps", 1e-6, low=1e-12, high=1.0),
        tied_head=fields.flag("tie_word_embeddings", False),
        bos_token_id=next(iter(fields.token_ids("bos_token_id")), None),
        eos_token_ids=fields.token_ids("eos_token_id"),
        **switches,
    )
