"""Gemma 4: full layers with heads of another size, whose values may be their keys; experts.

Owns its row. Refuses to know the file, and JAX.
Source: `Gemma4Model` of llama.cpp's `conversion/gemma.py`, and its `src/models/gemma4.cpp`.
"""

from collections.abc import Mapping

import numpy as np

from models.config.fields import MAX_HEADS, MAX_TOKENS, Fields
from models.config.windows import FULL, SLIDING
from models.errors import CheckpointError, UnsupportedError
from models.gguf.by_layer import PATTERN, of_each, pattern, widest
from models.gguf.families.mixtures import gate_up
from models.gguf.families.stated import Found, Stated, Tensors, layers_with
from models.gguf.rotation import MAX_LIST
from models.gguf.tensors.names import GEMMA_2, LAYER, Converted

_ROUTER, _EXPERTS = f"{LAYER}.router", f"{LAYER}.experts"
_NAMES = {
    **GEMMA_2,
    "per_layer_token_embd": "model.embed_tokens_per_layer",
    "per_layer_model_proj": "model.per_layer_model_projection",
    "per_layer_proj_norm": "model.per_layer_projection_norm",
    "blk.*.inp_gate": f"{LAYER}.per_layer_input_gate",
    "blk.*.proj": f"{LAYER}.per_layer_projection",
    "blk.*.post_norm": f"{LAYER}.post_per_layer_input_norm",
    "blk.*.layer_output_scale.weight": f"{LAYER}.layer_scalar",
    "blk.*.post_ffw_norm_1": f"{LAYER}.post_feedforward_layernorm_1",
    "blk.*.pre_ffw_norm_2": f"{LAYER}.pre_feedforward_layernorm_2",
    "blk.*.post_ffw_norm_2": f"{LAYER}.post_feedforward_layernorm_2",
    "blk.*.ffn_gate_inp.weight": f"{_ROUTER}.proj.weight",
    "blk.*.ffn_gate_inp.scale": f"{_ROUTER}.scale",
    "blk.*.ffn_down_exps.weight": f"{_EXPERTS}.down_proj",
    "blk.*.ffn_down_exps.scale": f"{_ROUTER}.per_expert_scale",
}
_SOFTCAP, _WINDOW = "final_logit_softcapping", "attention.sliding_window"
_SHARED, _INPUTS = "attention.shared_kv_layers", "embedding_length_per_layer_input"
_FACTORS, _STILL = "rope_freqs.weight", 1e30  # a divisor of frequencies that do not rotate


def _gemma_4(fields: Fields, tensors: Tensors, found: Found) -> Found:
    layers = found["num_hidden_layers"]
    types = pattern(fields, 6).get("layer_types", [])[:layers]
    if len(types) < layers:
        raise CheckpointError(f"{fields.where} lists in {PATTERN} {len(types)} layers of {layers}.")
    shared = fields.integer(_SHARED, 0, low=0, high=layers - 1)
    table = tensors.get("per_layer_token_embd.weight")
    return {
        **_heads(fields, tensors, types, layers - shared),
        **_rotations(fields, tensors, found),
        **_experts(fields, tensors),
        "layer_types": types,
        "sliding_window": fields.integer(_WINDOW, high=MAX_TOKENS),
        "num_kv_shared_layers": shared,
        "intermediate_size": _narrowest(fields),
        "use_double_wide_mlp": isinstance(fields.raw["feed_forward_length"], list),
        "hidden_size_per_layer_input": fields.integer(_INPUTS, 0, low=0),
        "vocab_size_per_layer_input": table.shape[0] if table else 1,
        "hidden_activation": "gelu_pytorch_tanh",
        _SOFTCAP: fields.optional_number(_SOFTCAP),
    }


def _heads(fields: Fields, tensors: Tensors, types: list[str], own: int) -> Found:
    """Heads of keys of either type of layer, their size, and whether values are keys."""
    key = "attention.head_count_kv"
    each = of_each(fields, key, len(types), low=1, high=MAX_HEADS)
    of = {kind: {n for n, one in zip(each, types, strict=True) if one == kind} for kind in types}
    if any(len(one) > 1 for one in of.values()):
        raise UnsupportedError(
            f"{fields.where}: {key} differs among layers of one type; use the model's safetensors."
        )
    valued = layers_with(tensors, "attn_v.weight", own)
    joint = any(one == FULL and not v for one, v in zip(types, valued, strict=False))
    full, sliding = (next(iter(of.get(kind, {each[0]}))) for kind in (FULL, SLIDING))
    if full != sliding and not joint:
        raise UnsupportedError(
            f"{fields.where} has other numbers of heads in layers that slide and a tensor of their "
            "values in those that do not, which is not supported; use the model's safetensors."
        )
    return {
        "num_key_value_heads": sliding,
        "num_global_key_value_heads": full,
        "global_head_dim": fields.integer("attention.key_length", high=MAX_HEADS),
        "head_dim": fields.integer("attention.key_length_swa", high=MAX_HEADS),
        "attention_k_eq_v": joint,
    }


def _rotations(fields: Fields, tensors: Tensors, found: Found) -> Found:
    """Full layers rotate a part of the pairs of their heads, as divisors of frequencies say."""
    sizes = {"": "attention.key_length", "_swa": "attention.key_length_swa"}
    for which, size in sizes.items():
        fields.constant(f"rope.dimension_count{which}", float(fields.integer(size)))
    whole = fields.integer("attention.key_length", high=MAX_HEADS)
    rotated = _rotated(fields, tensors, whole // 2)
    return {
        "rope_scaling": None,
        "partial_rotary_factor": None,
        "rope_parameters": {
            FULL: {
                "rope_type": "proportional",
                "partial_rotary_factor": min(1.0, (2 * rotated + 0.5) / whole),  # rounded down
                "rope_theta": found["rope_theta"],
            },
            SLIDING: {
                "rope_type": "default",
                "rope_theta": fields.number("rope.freq_base_swa", found["rope_theta"]),
            },
        },
    }


def _rotated(fields: Fields, tensors: Tensors, pairs: int) -> int:
    """How many of a head's pairs rotate, which are the first."""
    tensor = tensors.get(_FACTORS)
    if tensor is None or tensor.shape != (pairs,) or pairs > MAX_LIST:
        raise CheckpointError(f"{fields.where} has no {pairs} numbers in {_FACTORS!r}.")
    divisors = tensor.read()
    count = int(np.count_nonzero(divisors == 1))
    if np.any(divisors[:count] != 1) or np.any(divisors[count:] != np.float32(_STILL)):
        raise UnsupportedError(
            f"{fields.where}: {_FACTORS!r} holds others than 1 and then {_STILL:g}, which is not "
            "supported; use the model's safetensors."
        )
    return count


def _narrowest(fields: Fields) -> int:
    """Of the MLPs: of layers that take keys of others all are twice as wide, or none."""
    key = "feed_forward_length"
    if not isinstance(fields.raw.get(key), list):
        return fields.integer(key)
    sizes = fields.integers(key, low=1)
    shared = fields.integer(_SHARED, 0, low=0, high=len(sizes))
    own = len(sizes) - shared
    size = sizes[0] if own and sizes else widest(fields, key) // 2
    if sizes != (size,) * own + (2 * size,) * shared:
        raise UnsupportedError(
            f"{fields.where}: {key} is not one number in layers with keys of their own and twice "
            "that in the others, which is not supported; use the model's safetensors."
        )
    return size


def _experts(fields: Fields, tensors: Tensors) -> Found:
    if not fields.integer("expert_count", 0, low=0):
        return {}
    return {
        "enable_moe_block": True,
        "num_experts": fields.integer("expert_count"),
        "top_k_experts": fields.integer("expert_used_count"),
        "moe_intermediate_size": fields.integer("expert_feed_forward_length"),
    }


GEMMA_4: Mapping[str, Stated] = {
    "gemma4": Stated(
        "Gemma4ForCausalLM", Converted(_NAMES, joined=(gate_up(f"{_EXPERTS}.gate_up_proj"),)),
        more=_gemma_4, reads=(_SOFTCAP, _WINDOW, _SHARED),
    ),
}  # fmt: skip
