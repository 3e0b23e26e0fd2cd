"""Gemma 3n: streams that layers mix, and inputs of every layer, from tables of their own.

Owns its row. Refuses to know the file, and JAX.
Source: `Gemma3NModel` of llama.cpp's `conversion/gemma.py`, and its `src/models/gemma3n.cpp`.
"""

import math
from collections.abc import Mapping

from models.config.fields import Fields
from models.config.windows import FULL, SLIDING
from models.gguf.by_layer import pattern
from models.gguf.families.stated import Found, Stated, Tensors
from models.gguf.tensors.names import GEMMA_2, LAYER, Converted

_GEMMA_3N = {
    **GEMMA_2,
    "altup_proj": "model.altup_projections.#",
    "altup_unembd_proj": "model.altup_unembed_projections.#",
    "per_layer_token_embd": "model.embed_tokens_per_layer",
    "per_layer_model_proj": "model.per_layer_model_projection",
    "per_layer_proj_norm": "model.per_layer_projection_norm",
    "blk.*.inp_gate": f"{LAYER}.per_layer_input_gate",
    "blk.*.proj": f"{LAYER}.per_layer_projection",
    "blk.*.post_norm": f"{LAYER}.post_per_layer_input_norm",
    "blk.*.altup_router": f"{LAYER}.altup.modality_router",
    "blk.*.altup_router_norm": f"{LAYER}.altup.router_norm",
    "blk.*.altup_predict_coef": f"{LAYER}.altup.prediction_coefs",
    "blk.*.altup_correct_coef": f"{LAYER}.altup.correction_coefs",
    "blk.*.altup_correct_scale.weight": f"{LAYER}.altup.correct_output_scale",
    "blk.*.laurel_l": f"{LAYER}.laurel.linear_left",
    "blk.*.laurel_r": f"{LAYER}.laurel.linear_right",
    "blk.*.laurel_post_norm": f"{LAYER}.laurel.post_laurel_norm",
}
_SPARSITY, _SOFTCAP = "activation_sparsity_scale", "final_logit_softcapping"


def _gemma_3n(fields: Fields, tensors: Tensors, found: Found) -> Found:
    layers = found["num_hidden_layers"]
    said = pattern(fields, 5)
    every = said.get("sliding_window_pattern", 1)
    types = [FULL if (layer + 1) % every == 0 else SLIDING for layer in range(layers)]
    more: Found = {
        "layer_types": said.get("layer_types", types)[:layers],
        "rope_local_base_freq": fields.number("rope.freq_base_swa", 10_000.0),
        "vocab_size_per_layer_input": _rows(tensors, "per_layer_token_embd", 1),
        "laurel_rank": _rows(tensors, "blk.0.laurel_l", 64),
    }
    if _SOFTCAP in fields:
        more[_SOFTCAP] = fields.number(_SOFTCAP)
    if _SPARSITY in fields:  # quantiles of shares, of which that of 0 is minus infinity
        scales = fields.replaced(_SPARSITY, _finite(fields.raw[_SPARSITY]))
        numbers = scales.numbers(_SPARSITY, layers, low=-10.0)
        shares = [round(0.5 + 0.5 * math.erf(one / math.sqrt(2)), 6) for one in numbers]
        more["activation_sparsity_pattern"] = shares
    if isinstance(fields.raw.get("feed_forward_length"), list):
        more["intermediate_size"] = list(fields.integers("feed_forward_length"))
    return more


def _finite(scales: object) -> object:
    return [-9.0 if one == -math.inf else one for one in scales] if isinstance(scales, list) else 0


def _rows(tensors: Tensors, name: str, default: int) -> int:
    tensor = tensors.get(f"{name}.weight")
    return tensor.shape[0] if tensor else default


GEMMAS: Mapping[str, Stated] = {
    "gemma3n": Stated(
        "Gemma3nForCausalLM", Converted(_GEMMA_3N),
        {
            "altup.num_inputs": "altup_num_inputs",
            "altup.active_idx": "altup_active_idx",
            "embedding_length_per_layer_input": "hidden_size_per_layer_input",
            "attention.shared_kv_layers": "num_kv_shared_layers",
            "attention.sliding_window": "sliding_window",
        },
        more=_gemma_3n, reads=(_SOFTCAP,),
    ),
}  # fmt: skip
