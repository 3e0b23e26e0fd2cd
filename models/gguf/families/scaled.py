"""MiniCPM 1 to 3: factors on embeddings, on what layers add and on logits; 3 has latent attention.

Owns a row for each, and the factors that files do not say. Refuses to know the file, and JAX.
Source: llama.cpp's `conversion/minicpm.py`, `src/models/minicpm.cpp` and `minicpm3.cpp`.
"""

import math
from collections.abc import Mapping

from models.config.fields import MAX_HEADS, Fields
from models.errors import CheckpointError, UnsupportedError
from models.gguf.families.mixtures import LATENT_CONVERTED
from models.gguf.families.stated import Found, Stated, Tensors, value
from models.gguf.tensors.names import LLAMA, Converted

_EMBEDDING, _DEPTH, _BASE = 12.0, 1.4, 256  # MiniCPM 2B's and 3 4B's
_EMBEDDING_KEY, _RESIDUAL_KEY, _LOGIT_KEY = "embedding_scale", "residual_scale", "logit_scale"
_RANKS = {"attention.q_lora_rank": "q_lora_rank", "attention.kv_lora_rank": "kv_lora_rank"}
_KV_B = "blk.0.attn_kv_b.weight"


def _factors(fields: Fields, tensors: Tensors, found: Found) -> Found:
    """The numbers of config.json that the factors were made of; first files say none of them."""
    width, deep = found["hidden_size"], math.sqrt(found["num_hidden_layers"])
    base = width / fields.number(_LOGIT_KEY) if _LOGIT_KEY in fields else float(_BASE)
    if not math.isclose(base, round(base), rel_tol=1e-6) or round(base) < 1:
        raise UnsupportedError(
            f"{fields.where}: {_LOGIT_KEY} is {fields.raw[_LOGIT_KEY]!r:.60}, of which "
            f"embedding_length, {width}, is no whole multiple; use the model's safetensors."
        )
    depth = fields.number(_RESIDUAL_KEY, _DEPTH / deep) * deep
    return {
        "scale_emb": fields.number(_EMBEDDING_KEY, _EMBEDDING),
        "scale_depth": round(depth, 6),
        "dim_model_base": round(base),
    }


def _minicpm_3(fields: Fields, tensors: Tensors, found: Found) -> Found:
    """With heads of values whose size no key says."""
    heads, rope = found["num_attention_heads"], fields.integer("rope.dimension_count")
    key = fields.integer("attention.key_length", low=rope + 1, high=2 * MAX_HEADS)
    rows = tensors[_KV_B].shape[0] if _KV_B in tensors else 0
    if rows % heads or rows <= heads * (key - rope):
        raise CheckpointError(
            f"{fields.where} has {rows} rows in {_KV_B!r}, which are no keys of {key - rope} and "
            f"values of {heads} heads; convert the model again."
        )
    return {
        "q_lora_rank": value(fields, "attention.q_lora_rank"),
        "qk_nope_head_dim": key - rope,
        "qk_rope_head_dim": rope,
        "v_head_dim": rows // heads - (key - rope),
        "scale_emb": _EMBEDDING,
        "scale_depth": _DEPTH,
        "dim_model_base": _BASE,
        "head_dim": None,
        "partial_rotary_factor": None,
    }


SCALED: Mapping[str, Stated] = {
    "minicpm": Stated(
        "MiniCPMForCausalLM", Converted(LLAMA, paired=True), more=_factors,
        reads=(_EMBEDDING_KEY, _RESIDUAL_KEY, _LOGIT_KEY),
    ),
    "minicpm3": Stated(
        "MiniCPM3ForCausalLM", Converted(LATENT_CONVERTED.names), _RANKS, more=_minicpm_3
    ),
}  # fmt: skip
