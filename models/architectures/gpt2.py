"""GPT-2: learned positions, layer norms, biases everywhere, no gate, kernels stored [in, out]."""

from collections.abc import Mapping
from typing import Any

from models.config import LayerKind, ModelConfig
from models.errors import CheckpointError
from models.fields import MAX_HEADS, MAX_LAYERS, MAX_TOKENS, Fields
from models.layers import ACTIVATIONS
from models.weight_map import Names, weight_map
from models.weights import WeightMap

ARCHITECTURES = ("GPT2LMHeadModel",)

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
    fields = Fields(raw)
    fields.refuse("add_cross_attention")
    width, heads = fields.integer("n_embd"), fields.integer("n_head", high=MAX_HEADS)
    if width % heads:
        raise CheckpointError(f"{fields.where}: n_embd {width} is no multiple of n_head {heads}.")
    context = fields.integer("n_positions", high=MAX_TOKENS)
    return ModelConfig(
        architecture=fields.texts("architectures")[0],
        vocab_size=fields.integer("vocab_size"),
        hidden_size=width,
        intermediate_size=fields.integer("n_inner", 4 * width),
        num_heads=heads,
        num_kv_heads=heads,
        head_dim=width // heads,
        max_position_embeddings=context,
        context_length=context,
        layer_kinds=(LayerKind(),) * fields.integer("n_layer", high=MAX_LAYERS),
        activation=fields.option("activation_function", ACTIVATIONS, "gelu_new"),
        gated_mlp=False,
        norm="layer",
        norm_bias=True,
        norm_eps=fields.number("layer_norm_epsilon", 1e-5, low=1e-12, high=1.0),
        qkv_bias=True,
        o_bias=True,
        mlp_bias=True,
        learned_positions=True,
        attention_scale=None if fields.flag("scale_attn_weights", True) else 1.0,
        scale_by_layer=fields.flag("scale_attn_by_inverse_layer_idx", False),
        tied_head=fields.flag("tie_word_embeddings", True),
        bos_token_id=next(iter(fields.token_ids("bos_token_id")), None),
        eos_token_ids=fields.token_ids("eos_token_id"),
    )


def weights(config: ModelConfig) -> WeightMap:
    return weight_map(
        config, NAMES, transpose=False, ignored=IGNORED, optional_prefix="transformer."
    )
