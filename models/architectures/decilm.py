"""DeciLM, Llama-Nemotron Super and Ultra: Llama of which a search made each layer as large as it
needs to be, with fewer heads of keys, a smaller MLP, or without one of the two."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from models.architectures import llama
from models.config.decoder import ModelConfig
from models.config.fields import MAX_HEADS, Fields
from models.errors import CheckpointError

ARCHITECTURES = ("DeciLMForCausalLM",)
BLOCKS, PER_LAYER = "block_configs", "num_key_value_heads_per_layer"
MULTIPLE = 256  # of which every MLP's size is one
LINEAR = ("replace_with_linear", "sparsify")  # Nemotron 51B has layers of the first
WINDOWED = ("window_length", "num_sink_tokens", "use_prefill_window_in_sink_attention")

weights = llama.weights


def config(raw: Mapping[str, Any]) -> ModelConfig:
    fields = Fields(raw)
    if BLOCKS not in fields:
        return _with_heads(fields)
    # what blocks say goes before what is said, or not, of all
    usual = fields.replaced("num_key_value_heads", 1).completed("intermediate_size", MULTIPLE)
    base = _llama(usual)
    blocks = fields.raw[BLOCKS]
    if not isinstance(blocks, list) or len(blocks) != base.num_layers:
        raise CheckpointError(
            f"{fields.where}: {BLOCKS} is no list of {base.num_layers}, one object a layer."
        )
    sections = Fields(
        {str(n): block for n, block in enumerate(blocks)}, f"{fields.where}: {BLOCKS}"
    )
    read = [sections.section(str(n)) for n in range(base.num_layers)]
    heads = [_kv_heads(block.section("attention"), base.num_heads) for block in read]
    sizes = [_mlp_size(block.section("ffn"), base.hidden_size) for block in read]
    kinds = tuple(
        replace(kind, attention=bool(K), kv_heads=K, mlp=bool(F), mlp_size=F)
        for kind, K, F in zip(base.layer_kinds, heads, sizes, strict=True)
    )
    most, widest = max(K or 1 for K in heads), max(F or 1 for F in sizes)
    return replace(base, num_kv_heads=most, intermediate_size=widest, layer_kinds=kinds)


def _llama(fields: Fields) -> ModelConfig:
    bias, mlp_bias = fields.flag("attention_bias", False), fields.flag("mlp_bias", False)
    return llama.dense(fields, qkv_bias=bias, o_bias=bias, mlp_bias=mlp_bias)


def _with_heads(fields: Fields) -> ModelConfig:
    """The first DeciLM, which says of each layer how many heads its keys have."""
    heads = fields.integers(PER_LAYER, low=1, high=MAX_HEADS)
    base = _llama(fields.replaced("num_key_value_heads", max(heads, default=1)))
    if len(heads) != base.num_layers:
        raise CheckpointError(f"{fields.where}: {PER_LAYER} is no list of {base.num_layers}.")
    kinds = zip(base.layer_kinds, heads, strict=True)
    return replace(base, layer_kinds=tuple(replace(kind, kv_heads=K) for kind, K in kinds))


def _kv_heads(attention: Fields, heads: int) -> int | None:
    if attention.flag("no_op", False):
        return None
    attention.refuse(*LINEAR, *WINDOWED)
    group = attention.integer("n_heads_in_group", high=heads)
    if heads % group:
        raise CheckpointError(f"{attention.where}: {heads} heads do not divide into {group}.")
    return heads // group


def _mlp_size(ffn: Fields, width: int) -> int | None:
    if ffn.flag("no_op", False):
        return None
    ffn.refuse(*LINEAR)
    size = int(2 * ffn.number("ffn_mult", high=1024.0) * width / 3)
    return -(-size // MULTIPLE) * MULTIPLE
