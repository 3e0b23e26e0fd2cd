"""Gemma 3n: streams of which a layer computes one, inputs of every layer from a table of its own,
keys and values that the last layers share. Tensors of vision and audio stay unread."""

import math
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from models.architectures import gemma2, llama
from models.architectures.gemma_names import INPUT_NAMES, text_weights
from models.config.altup import read_altup, read_layer_inputs, read_sparsities, with_one_size
from models.config.decoder import ModelConfig, QKNorm
from models.config.fields import Fields
from models.config.heads import read_head_dim
from models.config.rope import read_layer_ropes
from models.config.windows import read_layer_types, read_windows
from models.weights.sources import Names, WeightMap

WITH_MORE = "Gemma3nForConditionalGeneration"
ARCHITECTURES = ("Gemma3nForCausalLM", WITH_MORE)
DEFAULTS = {"head_dim": 256, "hidden_activation": "gelu_pytorch_tanh", "tie_word_embeddings": True,
            "sliding_window": 512, "final_logit_softcapping": 30.0, "rope_theta": 1e6,
            "rope_local_base_freq": 1e4, "num_key_value_heads": 2}  # fmt: skip
LAYER = llama.LAYER
NAMES: Names = {
    **gemma2.NAMES,
    "layers.*.attention.q": f"{LAYER}.self_attn.q_proj",
    "layers.*.laurel.left": f"{LAYER}.laurel.linear_left",
    "layers.*.laurel.right": f"{LAYER}.laurel.linear_right",
    "layers.*.laurel.norm": f"{LAYER}.laurel.post_laurel_norm",
    "layers.*.altup.router": f"{LAYER}.altup.modality_router",
    "layers.*.altup.router_norm": f"{LAYER}.altup.router_norm",
    "layers.*.altup.prediction": f"{LAYER}.altup.prediction_coefs",
    "layers.*.altup.correction": f"{LAYER}.altup.correction_coefs",
    "layers.*.altup.scale": f"{LAYER}.altup.correct_output_scale",
    **INPUT_NAMES,
    "streams.spread.*": "model.altup_projections.*",
    "streams.gather.*": "model.altup_unembed_projections.*",
}  # fmt: skip


def config(raw: Mapping[str, Any]) -> ModelConfig:
    text = Fields(raw)
    if WITH_MORE in text.texts("architectures"):
        text = text.section("text_config").replaced("architectures", [WITH_MORE])
    fields = with_one_size(Fields({**DEFAULTS, **text.raw}, text.where, gemma2.RENAMED))
    fields.refuse("attention_bias", "use_bidirectional_attention")

    def slides(layer: int) -> bool:
        return (layer + 1) % 5 != 0

    ropes = read_layer_ropes(fields, read_head_dim(fields), "rope_local_base_freq")
    made = llama.dense(
        fields,
        windows=read_windows(fields, slides),
        ropes=[ropes[one] for one in read_layer_types(fields, slides)],
        post_norms=True, qk_norm=QKNorm(), value_norm=True, attention_scale=1.0,
        embedding_scale=math.sqrt(fields.integer("hidden_size")), altup=read_altup(fields),
        layer_inputs=read_layer_inputs(fields),
        logit_softcap=fields.optional_number("final_logit_softcapping"),
    )  # fmt: skip
    L = made.num_layers
    own = L - fields.integer("num_kv_shared_layers", 15, low=0, high=L - 1)
    kinds = zip(made.layer_kinds, read_sparsities(fields, L), strict=True)
    return replace(made, layer_kinds=tuple(
        replace(kind, sparsity=sparsity, shared=layer >= own)
        for layer, (kind, sparsity) in enumerate(kinds)
    ))  # fmt: skip


def weights(config: ModelConfig) -> WeightMap:
    return text_weights(config, NAMES, config.architecture == WITH_MORE)
