"""Zamba2: Mamba-2 in every layer, and transformer blocks that several layers share before some."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from models.architectures import llama
from models.config import dual_scans
from models.config.decoder import LayerKind, ModelConfig, SharedBlocks
from models.config.fields import MAX_LAYERS, Fields
from models.config.rope import read_rope
from models.weights.decoder import weight_map
from models.weights.sources import Names, WeightMap

ARCHITECTURES = ("Zamba2ForCausalLM",)
DEFAULTS = {
    "hidden_act": "gelu", "rms_norm_eps": 1e-5, "max_position_embeddings": 4096,
    "tie_word_embeddings": True, "mamba_d_state": 64, "mamba_d_conv": 4, "mamba_expand": 2,
    "mamba_ngroups": 1, "n_mamba_heads": 8, "num_mem_blocks": 1, "adapter_rank": 128,
}  # fmt: skip
KEYS = {
    "mamba_n_heads": "n_mamba_heads", "mamba_n_groups": "mamba_ngroups",
    "mamba_proj_bias": "add_bias_linear", "mlp_bias": "add_bias_linear",
}  # fmt: skip
HYBRID, TYPES = "hybrid", ("mamba", "linear_attention", "hybrid")
LONG_CONTEXT, MIXER_EPS = 16384, 1e-5
BLOCK, BEHIND = "model.layers.@.shared_transformer", f"{llama.LAYER}.mamba_decoder"
ATTENTION, MLP = f"{BLOCK}.self_attn", f"{BLOCK}.feed_forward"
NAMES: Names = {
    "embedding": "model.embed_tokens",
    "blocks.*.norm": f"{BLOCK}.input_layernorm",
    "blocks.*.attention.qkv": tuple(f"{ATTENTION}.{x}_proj" for x in "qkv"),
    "blocks.*.attention.o": f"{ATTENTION}.o_proj",
    "blocks.*.mlp_norm": f"{BLOCK}.pre_ff_layernorm",
    "blocks.*.mlp.gate_up": f"{MLP}.gate_up_proj",
    "blocks.*.mlp.down": f"{MLP}.down_proj",
    "layers.*.use.heads.down": tuple(f"{ATTENTION}.linear_{x}_adapter_list.#.0" for x in "qkv"),
    **{f"layers.*.use.heads.{x}": f"{ATTENTION}.linear_{x}_adapter_list.#.1" for x in "qkv"},
    "layers.*.use.mlp.down": f"{MLP}.gate_up_proj_adapter_list.#.0",
    "layers.*.use.mlp.up": f"{MLP}.gate_up_proj_adapter_list.#.1",
    "layers.*.use.out": f"{llama.LAYER}.linear",
    "layers.*.attention_norm": f"{llama.LAYER}.input_layernorm",
    **dual_scans.dual_names(f"{llama.LAYER}.mamba"),
    "norm": "model.final_layernorm",
    "head": "lm_head",
}
BEHIND_BLOCKS: Names = {
    **NAMES,
    "layers.*.attention_norm": f"{BEHIND}.input_layernorm",
    **dual_scans.dual_names(f"{BEHIND}.mamba"),
}


def config(raw: Mapping[str, Any]) -> ModelConfig:
    fields = Fields({**DEFAULTS, **raw}, names=KEYS)
    fields.required("tie_word_embeddings")  # transformers shares blocks only where it ties heads
    width, heads = fields.integer("hidden_size"), fields.integer("num_attention_heads")
    fields = fields.replaced("head_dim", H := max(1, 2 * width // heads))
    fields = fields.completed("intermediate_size", 4 * width)
    if fields.flag("use_long_context", False):
        fields = fields.replaced("max_position_embeddings", LONG_CONTEXT)
    layers = fields.integer("num_hidden_layers", high=MAX_LAYERS)
    hybrid = [one == HYBRID for one in fields.options("layers_block_type", layers, TYPES)]
    rope = read_rope(fields, H) if fields.flag("use_mem_rope", False) else None
    scale, bias = (H / 2) ** -0.5, fields.flag("mlp_bias", False)
    config = llama.dense(fields, ropes=[rope] * layers, mlp_bias=bias, attention_scale=scale)
    kinds = {
        False: LayerKind(attention=False, mixer=True, mlp=False),
        True: LayerKind(rope=rope, mixer=True, mlp=False, block=True),
    }
    blocks = SharedBlocks(
        fields.integer("num_mem_blocks"), fields.integer("adapter_rank"),
        fields.flag("use_shared_attention_adapter", False),
    )  # fmt: skip
    steps = dual_scans.read_least_step(fields)
    mixer = dual_scans.read_dual_scan(fields, norm_eps=MIXER_EPS, step_limits=steps)
    layer_kinds = tuple(kinds[one] for one in hybrid)
    return replace(config, layer_kinds=layer_kinds, mixer=mixer, blocks=blocks)


def weights(config: ModelConfig) -> WeightMap:
    plain, behind = weight_map(config, NAMES), weight_map(config, BEHIND_BLOCKS)
    hybrid, first = config.block_layers, config.first_block_layers
    theirs = tuple(f"layers.{index}." for index in hybrid)
    sources = {**plain.sources, **{k: v for k, v in behind.sources.items() if k.startswith(theirs)}}
    again = (f"model.layers.{index}.shared_transformer.*" for index in hybrid[len(first) :])
    return replace(plain, sources=sources, ignored=(*plain.ignored, *again))
