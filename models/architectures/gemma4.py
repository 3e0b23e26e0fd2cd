"""Gemma 4: other heads in layers without a window, whose values may be their keys; inputs of every
layer and shared keys as in Gemma 3n (E2B, E4B), experts beside the MLP (26B-A4B). Tensors of images
and audio stay unread."""

import math
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from models.architectures import gemma2, llama
from models.architectures.gemma_names import INPUT_NAMES, text_weights
from models.config.altup import read_layer_inputs
from models.config.decoder import ModelConfig, QKNorm
from models.config.experts import read_mixture_beside
from models.config.fields import Fields
from models.config.heads import read_layer_heads
from models.config.rope import read_layer_rope
from models.config.windows import FULL, SLIDING, read_layer_types, read_windows
from models.weights.sources import Names, WeightMap

UNIFIED = "Gemma4UnifiedForConditionalGeneration"
WITH_MORE = ("Gemma4ForConditionalGeneration", UNIFIED)
UNIFIED_TEXT = "Gemma4UnifiedForCausalLM"
ARCHITECTURES = ("Gemma4ForCausalLM", UNIFIED_TEXT, *WITH_MORE)
DEFAULTS = {"head_dim": 256, "hidden_activation": "gelu_pytorch_tanh", "tie_word_embeddings": True,
            "sliding_window": 512, "num_key_value_heads": 4, "rope_parameters": {
                SLIDING: {"rope_theta": 1e4},
                FULL: {"rope_type": "proportional", "partial_rotary_factor": 0.25,
                       "rope_theta": 1e6}}}  # fmt: skip
UNIFIED_DEFAULTS = {"sliding_window": 1024, "hidden_size_per_layer_input": 0}
LAYER, BESIDE = llama.LAYER, "layers.*.beside"
NAMES: Names = {
    **gemma2.NAMES,
    **INPUT_NAMES,
    "layers.*.attention.q": f"{LAYER}.self_attn.q_proj",
    "layers.*.attention.qk": (f"{LAYER}.self_attn.q_proj", f"{LAYER}.self_attn.k_proj"),
    "layers.*.scale": f"{LAYER}.layer_scalar",
    "layers.*.mlp_own_norm": f"{LAYER}.post_feedforward_layernorm_1",
    f"{BESIDE}.norm": f"{LAYER}.pre_feedforward_layernorm_2",
    f"{BESIDE}.post_norm": f"{LAYER}.post_feedforward_layernorm_2",
    f"{BESIDE}.experts.router": f"{LAYER}.router.proj",
    f"{BESIDE}.experts.router_norm.weight": f"{LAYER}.router.scale",
    f"{BESIDE}.experts.choice_scale": f"{LAYER}.router.per_expert_scale",
    f"{BESIDE}.experts.experts.gate_up": f"{LAYER}.experts.gate_up_proj",
    f"{BESIDE}.experts.experts.down": f"{LAYER}.experts.down_proj",
}


def config(raw: Mapping[str, Any]) -> ModelConfig:
    outer = Fields(raw)
    name = outer.texts("architectures")[0]
    text = outer.section("text_config") if name in WITH_MORE else outer
    written = {key: value for key, value in text.raw.items() if value is not None}
    usual = {**DEFAULTS, **(UNIFIED_DEFAULTS if name in (UNIFIED, UNIFIED_TEXT) else {})}
    fields = Fields({**usual, **written, "architectures": [name]}, text.where, gemma2.RENAMED)
    fields.refuse("attention_bias")
    fields.option("use_bidirectional_attention", ("vision",), "vision")  # of images only
    types = (*read_layer_types(fields, lambda layer: (layer + 1) % 6 != 0)[:-1], FULL)
    fields = fields.replaced("layer_types", [*types])
    heads, ropes = read_layer_heads(fields, types), fields.section("rope_parameters")
    sparse = fields.flag("enable_moe_block", False)
    made = llama.dense(
        fields,
        windows=read_windows(fields, lambda layer: False),
        ropes=[read_layer_rope(ropes.section(one), fields, head_dim, "rope_theta")
               for one, (_, head_dim) in zip(types, heads, strict=True)],
        experts=[sparse] * len(types), mixture=read_mixture_beside(fields) if sparse else None,
        post_norms=True, qk_norm=QKNorm(), value_norm=True, attention_scale=1.0, layer_scale=True,
        embedding_scale=math.sqrt(fields.integer("hidden_size")),
        layer_inputs=read_layer_inputs(fields),
        logit_softcap=fields.optional_number("final_logit_softcapping"),
    )  # fmt: skip
    kinds = zip(made.layer_kinds, types, heads, strict=True)
    own = len(types) - fields.integer("num_kv_shared_layers", 0, low=0, high=len(types) - 1)
    twice, joint = fields.flag("use_double_wide_mlp", False), fields.flag("attention_k_eq_v", False)
    return replace(made, layer_kinds=tuple(
        replace(kind, shared=layer >= own, kv_heads=kv_heads, head_dim=head_dim,
                keys_as_values=joint and one == FULL and layer < own,
                mlp_size=2 * made.intermediate_size if twice and layer >= own else None)
        for layer, (kind, one, (kv_heads, head_dim)) in enumerate(kinds)
    ))  # fmt: skip


def weights(config: ModelConfig) -> WeightMap:
    more = config.architecture in WITH_MORE
    return text_weights(config, NAMES, more, expert_rows=True)
