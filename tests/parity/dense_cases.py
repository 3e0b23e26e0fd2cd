"""Rows of dense families beyond the first: one or two each, for the traits they are known for."""

from collections.abc import Mapping
from typing import Any

from tests.parity.case import TIED, Case, Spread, sizes

OFFSET = Spread(norm=0.0)


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


def _gpt(architecture: str, model_type: str, **changes: Any) -> dict[str, Any]:
    return {
        "architectures": [architecture],
        "model_type": model_type,
        "activation_function": "gelu_new",
        "bos_token_id": 1,
        "eos_token_id": 2,
        "layer_norm_epsilon": 1e-5,
        "n_embd": 40,
        "n_head": 4,
        "n_layer": 3,
        "n_positions": 128,
        "vocab_size": 67,
        **changes,
    }


def _falcon(**changes: Any) -> dict[str, Any]:
    return {
        "architectures": ["FalconForCausalLM"],
        "model_type": "falcon",
        "alibi": False,
        "bos_token_id": 1,
        "eos_token_id": 2,
        "hidden_size": 40,
        "layer_norm_epsilon": 1e-5,
        "max_position_embeddings": 128,
        "num_attention_heads": 4,
        "num_hidden_layers": 3,
        "rope_theta": 10000.0,
        "vocab_size": 67,
        **changes,
    }


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
    "stablelm": Case(_dense("StableLmForCausalLM", "stablelm", use_qkv_bias=True,
                            hidden_size=64, layer_norm_eps=1e-5), seed=1),
    "stablelm_12b": Case(_dense("StableLmForCausalLM", "stablelm", use_parallel_residual=True,
                                qk_layernorm=True, hidden_size=64, partial_rotary_factor=0.5)),
    "starcoder2": Case(_dense("Starcoder2ForCausalLM", "starcoder2", sliding_window=11,
                              hidden_act="gelu_pytorch_tanh", tie_word_embeddings=True),
                       spread=TIED),
    "phi": Case(_dense("PhiForCausalLM", "phi", hidden_act="gelu_new", num_key_value_heads=4,
                       partial_rotary_factor=0.4)),
    "phi_normed": Case(_dense("PhiForCausalLM", "phi", hidden_act="gelu_new", hidden_size=32,
                              qk_layernorm=True)),
    "nemotron": Case(_dense("NemotronForCausalLM", "nemotron", hidden_act="relu2", head_dim=16,
                            norm_eps=1e-5), spread=OFFSET),
    "exaone4": Case(_dense("Exaone4ForCausalLM", "exaone4", num_hidden_layers=5,
                           sliding_window=9, sliding_window_pattern=4)),
    "exaone4_full": Case(_dense("Exaone4ForCausalLM", "exaone4", sliding_window=None,
                                layer_types=["full_attention"] * 3)),
    "seed_oss": Case(_dense("SeedOssForCausalLM", "seed_oss", head_dim=16)),
    "apertus": Case(_dense("ApertusForCausalLM", "apertus", hidden_act="xielu",
                           pad_token_id=0, rope_scaling={
        "rope_type": "llama3", "factor": 8.0, "original_max_position_embeddings": 64,
        "low_freq_factor": 1.0, "high_freq_factor": 4.0})),
    "arcee": Case(_dense("ArceeForCausalLM", "arcee", hidden_act="relu2"), seed=1),
    "ernie4_5": Case(_dense("Ernie4_5ForCausalLM", "ernie4_5", head_dim=16, use_bias=True,
                            pad_token_id=0, tie_word_embeddings=True), spread=TIED),
    "hunyuan_dense": Case(_dense("HunYuanDenseV1ForCausalLM", "hunyuan_v1_dense", head_dim=16,
                                 rope_scaling={"type": "dynamic", "alpha": 50.0, "factor": 1.0})),
    "ministral": Case(_dense("MinistralForCausalLM", "ministral", head_dim=16, sliding_window=7,
                             layer_types=["full_attention", "sliding_attention",
                                          "sliding_attention"]), seed=1),
    "gpt_neox": Case(_dense("GPTNeoXForCausalLM", "gpt_neox", hidden_act="gelu", hidden_size=64,
                            num_key_value_heads=4)),
    "gpt_neox_sequential": Case(_dense("GPTNeoXForCausalLM", "gpt_neox", hidden_act="gelu",
                                       hidden_size=64, rotary_pct=0.5, num_key_value_heads=4,
                                       use_parallel_residual=False), seed=1),
    "gptj": Case(_gpt("GPTJForCausalLM", "gptj", rotary_dim=6, tie_word_embeddings=False)),
    "gpt_bigcode": Case(_gpt("GPTBigCodeForCausalLM", "gpt_bigcode"), spread=TIED),
    "gpt_bigcode_heads": Case(_gpt("GPTBigCodeForCausalLM", "gpt_bigcode", multi_query=False),
                              spread=TIED),
    "opt": Case({
        "architectures": ["OPTForCausalLM"],
        "model_type": "opt",
        "activation_function": "relu",
        "bos_token_id": 2,
        "do_layer_norm_before": True,
        "eos_token_id": 2,
        "ffn_dim": 56,
        "hidden_size": 40,
        "max_position_embeddings": 128,
        "num_attention_heads": 4,
        "num_hidden_layers": 3,
        "vocab_size": 67,
        "word_embed_proj_dim": 40,
    }, spread=TIED),
    "falcon_7b": Case(_falcon(multi_query=True, parallel_attn=True), spread=TIED),
    "falcon_40b": Case(_falcon(new_decoder_architecture=True, num_kv_heads=2), spread=TIED),
    "falcon_11b": Case(_falcon(new_decoder_architecture=True, num_kv_heads=2, bias=True,
                               num_ln_in_parallel_attn=1, ffn_hidden_size=56), spread=TIED, seed=2),
    "falcon_sequential": Case(_falcon(multi_query=False, parallel_attn=False), spread=TIED),
    "persimmon": Case(_dense("PersimmonForCausalLM", "persimmon", hidden_act="relu2",
                             num_key_value_heads=4, hidden_size=48)),
}  # fmt: skip
