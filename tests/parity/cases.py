"""The table of tiny models that are compared with transformers: a row an architecture or feature.

Owns configurations, as config.json would hold them, and seeds. Sizes are awkward on purpose: the
vocabulary is no multiple of 64, layers are odd in number, head_dim is not hidden_size / heads, and
some have a single key/value head. A seed is chosen so that no greedy choice is close to a tie;
`python -m tests.parity.record` says when it is.
"""

from collections.abc import Mapping
from typing import Any

from tests.parity.alibi_cases import ALIBI
from tests.parity.case import GEMMA, TIED, Case, longrope, sizes
from tests.parity.dense_cases import DENSE
from tests.parity.image_cases import WITH_IMAGES
from tests.parity.mixture_cases import MIXTURES
from tests.parity.state_cases import STATES


def _llama(**changes: Any) -> dict[str, Any]:
    return {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "hidden_act": "silu",
        **sizes(**changes),
    }


def _mistral(**changes: Any) -> dict[str, Any]:
    return {
        "architectures": ["MistralForCausalLM"],
        "model_type": "mistral",
        "hidden_act": "silu",
        "head_dim": 16,
        "rope_theta": 1000000.0,
        **sizes(**changes),
    }


def _qwen2(**changes: Any) -> dict[str, Any]:
    return {
        "architectures": ["Qwen2ForCausalLM"],
        "model_type": "qwen2",
        "hidden_act": "silu",
        "max_window_layers": 3,
        "rope_theta": 1000000.0,
        "sliding_window": 32768,
        "use_sliding_window": False,
        **sizes(**changes),
    }


def _qwen3(**changes: Any) -> dict[str, Any]:
    return {
        "architectures": ["Qwen3ForCausalLM"],
        "model_type": "qwen3",
        "attention_bias": False,
        "head_dim": 16,
        "hidden_act": "silu",
        "max_window_layers": 3,
        "rope_scaling": None,
        "rope_theta": 1000000,
        "sliding_window": None,
        "use_sliding_window": False,
        **sizes(**changes),
    }


def _phi3(**changes: Any) -> dict[str, Any]:
    return {
        "architectures": ["Phi3ForCausalLM"],
        "model_type": "phi3",
        "hidden_act": "silu",
        "original_max_position_embeddings": 128,
        "pad_token_id": 0,
        "rope_scaling": None,
        "rope_theta": 10000.0,
        "sliding_window": None,
        **sizes(num_key_value_heads=4),
        **changes,
    }


def _gemma(architecture: str, model_type: str, **changes: Any) -> dict[str, Any]:
    return {
        "architectures": [architecture],
        "model_type": model_type,
        "hidden_activation": "gelu_pytorch_tanh",
        "head_dim": 16,
        "pad_token_id": 0,
        "rope_theta": 10000.0,
        **sizes(tie_word_embeddings=True, rms_norm_eps=1e-6),
        **changes,
    }


def _llama3_scaling(factor: float) -> dict[str, Any]:
    return {
        "factor": factor,
        "high_freq_factor": 4.0,
        "low_freq_factor": 1.0,
        "original_max_position_embeddings": 64,
        "rope_type": "llama3",
    }


ARCHITECTURES = {
    "llama2": Case(_llama(num_key_value_heads=4)),
    "llama3": Case(_llama(num_attention_heads=6, num_key_value_heads=2, hidden_size=48,
                          rope_theta=500000.0, eos_token_id=[2, 3])),
    "llama3_1": Case(_llama(rope_theta=500000.0, rope_scaling=_llama3_scaling(8.0))),
    "llama3_2": Case(_llama(head_dim=16, num_key_value_heads=1, tie_word_embeddings=True,
                            rope_theta=500000.0, rope_scaling=_llama3_scaling(32.0)), spread=TIED),
    "llama_biases": Case(_llama(attention_bias=True, mlp_bias=True), seed=1),
    "tinyllama": Case(_llama(num_attention_heads=8, num_key_value_heads=1, num_hidden_layers=5,
                             hidden_size=48, rope_scaling=None, rope_theta=10000.0)),
    "mistral": Case(_mistral(sliding_window=None)),
    "mistral_window": Case(_mistral(sliding_window=11, num_key_value_heads=1)),
    "qwen2": Case(_qwen2()),
    "qwen2_5": Case(_qwen2(num_key_value_heads=1, tie_word_embeddings=True, rms_norm_eps=1e-6),
                    spread=TIED),
    "qwen2_window": Case(_qwen2(use_sliding_window=True, sliding_window=9, max_window_layers=1),
                         seed=1),
    "qwen3": Case(_qwen3(num_key_value_heads=1)),
    "qwen3_tied": Case(_qwen3(tie_word_embeddings=True, num_attention_heads=8), spread=TIED),
    "phi3": Case(_phi3(sliding_window=13)),
    "phi4": Case(_phi3(num_key_value_heads=1)),
    "phi4_mini": Case(_phi3(num_key_value_heads=2, hidden_size=64, partial_rotary_factor=0.75,
                            tie_word_embeddings=True, rope_scaling=longrope(6),
                            attention_bias=False, mlp_bias=False, lm_head_bias=False), spread=TIED),
    "gemma": Case(_gemma("GemmaForCausalLM", "gemma", num_key_value_heads=1, hidden_act="gelu",
                         hidden_activation=None), spread=GEMMA),
    "gemma2": Case(_gemma("Gemma2ForCausalLM", "gemma2", query_pre_attn_scalar=20,
                          sliding_window=10, attn_logit_softcapping=5.0,
                          final_logit_softcapping=0.25), spread=GEMMA, seed=2),
    "gemma3": Case(_gemma("Gemma3ForCausalLM", "gemma3_text", query_pre_attn_scalar=20,
                          num_hidden_layers=7, num_key_value_heads=1, sliding_window=12,
                          sliding_window_pattern=3, rope_theta=1000000.0,
                          rope_local_base_freq=10000.0,
                          rope_scaling={"factor": 8.0, "rope_type": "linear"}), spread=GEMMA),
    "gpt2": Case({
        "architectures": ["GPT2LMHeadModel"],
        "model_type": "gpt2",
        "activation_function": "gelu_new",
        "bos_token_id": 1,
        "eos_token_id": 2,
        "layer_norm_epsilon": 1e-5,
        "n_ctx": 128,
        "n_embd": 40,
        "n_head": 4,
        "n_layer": 3,
        "n_positions": 128,
        "vocab_size": 67,
    }, spread=TIED),
}  # fmt: skip

# Each positional scaling; sequences grow past the length that the scaling starts from
ROPE = {
    "rope_linear": Case(_llama(rope_scaling={"type": "linear", "factor": 4.0})),
    "rope_dynamic": Case(_llama(max_position_embeddings=32, rope_scaling={
        "type": "dynamic", "factor": 4.0}), prompt_length=41, context=112),
    "rope_yarn": Case(_qwen3(rope_scaling={
        "rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 32})),
    "rope_yarn_tuned": Case(_llama(head_dim=16, rope_scaling={
        "type": "yarn", "factor": 2.0, "original_max_position_embeddings": 64, "beta_fast": 8.0,
        "beta_slow": 2.0, "mscale": 0.8, "mscale_all_dim": 0.6})),
    "rope_yarn_attention_factor": Case(_llama(rope_scaling={
        "rope_type": "yarn", "factor": 2.0, "original_max_position_embeddings": 64,
        "attention_factor": 1.2}), seed=2),
    "rope_longrope_short": Case(_phi3(original_max_position_embeddings=96,
                                      rope_scaling=longrope(5)), context=96, seed=1),
    "rope_longrope_long": Case(_phi3(original_max_position_embeddings=16,
                                     rope_scaling=longrope(5))),
    # the layout that transformers 5 writes
    "rope_parameters": Case(_llama(rope_parameters={
        "rope_theta": 500000.0, **_llama3_scaling(8.0)})),
}  # fmt: skip

CASES: Mapping[str, Case] = ARCHITECTURES | DENSE | ALIBI | MIXTURES | STATES | ROPE | WITH_IMAGES
