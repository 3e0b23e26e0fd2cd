"""Rows of dense families beyond the first: one or two each, for the traits they are known for."""

from collections.abc import Mapping
from typing import Any

from tests.parity.case import TIED, Case, sizes


def _dense(architecture: str, model_type: str, **changes: Any) -> dict[str, Any]:
    return {
        "architectures": [architecture],
        "model_type": model_type,
        "hidden_act": "silu",
        "rope_theta": 10000.0,
        **sizes(**changes),
    }


def _cohere(architecture: str, model_type: str, **changes: Any) -> dict[str, Any]:
    tied = {"tie_word_embeddings": True, "pad_token_id": 0, "layer_norm_eps": 1e-5}
    return _dense(architecture, model_type, **tied, **changes)


DENSE: Mapping[str, Case] = {
    "olmo": Case(_dense("OlmoForCausalLM", "olmo", clip_qkv=1.5)),
    "olmo2": Case(_dense("Olmo2ForCausalLM", "olmo2")),
    "olmo3": Case(_dense("Olmo3ForCausalLM", "olmo3", num_hidden_layers=5, sliding_window=10,
                         rope_theta=500000.0, rope_scaling={
        "rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 32})),
    "granite": Case(_dense("GraniteForCausalLM", "granite", embedding_multiplier=3.0,
                           attention_multiplier=0.2, residual_multiplier=0.4, logits_scaling=5.0,
                           tie_word_embeddings=True), spread=TIED),
    "cohere": Case(_cohere("CohereForCausalLM", "cohere", logit_scale=0.25), spread=TIED),
    "cohere_plus": Case(_cohere("CohereForCausalLM", "cohere", use_qk_norm=True), spread=TIED),
    "cohere2": Case(_cohere("Cohere2ForCausalLM", "cohere2", num_hidden_layers=5,
                            sliding_window=9, num_key_value_heads=1), spread=TIED, seed=1),
    "smollm3": Case(_dense("SmolLM3ForCausalLM", "smollm3", no_rope_layer_interval=2,
                           pad_token_id=0, tie_word_embeddings=True), spread=TIED),
    "glm": Case(_dense("GlmForCausalLM", "glm", head_dim=16, pad_token_id=0)),
    "glm4": Case(_dense("Glm4ForCausalLM", "glm4", head_dim=16, pad_token_id=0,
                        num_key_value_heads=1)),
}  # fmt: skip
