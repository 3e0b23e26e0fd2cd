"""Rows of dense families beyond the first: one or two each, for the traits they are known for."""

from collections.abc import Mapping
from typing import Any

from tests.parity import stand_ins
from tests.parity.case import GEMMA, TIED, Case, Spread, StandIn, sizes

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


def _gemma3n(**changes: Any) -> dict[str, Any]:
    """Of five layers the last two share; a table that lacks the last tokens."""
    keys = {
        "altup_num_inputs": 3,
        "head_dim": 16,
        "hidden_activation": "gelu_pytorch_tanh",
        "hidden_size_per_layer_input": 12,
        "laurel_rank": 6,
        "layer_types": ["sliding_attention", "full_attention"] * 2 + ["sliding_attention"],
        "num_hidden_layers": 5,
        "num_kv_shared_layers": 2,
        "pad_token_id": 0,
        "sliding_window": 9,
        "tie_word_embeddings": True,
        "vocab_size_per_layer_input": 61,
    }
    return _dense("Gemma3nForCausalLM", "gemma3n_text", **keys | changes)


_SPARSE = {
    "activation_sparsity_pattern": [0.8, 0.8, 0.0, 0.5, 0.0],
    "altup_active_idx": 1,
    "altup_correct_scale": False,
    "num_kv_shared_layers": 0,
}
GEMMA_3N = Spread(embedding=0.1, gain=1.3)


def gemma4(**changes: Any) -> dict[str, Any]:
    """Full layers have one head of 24 instead of two of 16, and six of 24 dimensions turn."""
    keys = {
        "attention_k_eq_v": True,
        "final_logit_softcapping": 30.0,
        "global_head_dim": 24,
        "head_dim": 16,
        "hidden_activation": "gelu_pytorch_tanh",
        "hidden_size_per_layer_input": 0,
        "layer_types": ["sliding_attention"] * 2 + ["full_attention", "sliding_attention"] * 2,
        "num_global_key_value_heads": 1,
        "num_hidden_layers": 6,
        "pad_token_id": 0,
        "rope_parameters": {
            "sliding_attention": {"rope_type": "default", "rope_theta": 100.0},
            "full_attention": {
                "rope_type": "proportional", "partial_rotary_factor": 0.25, "rope_theta": 10000.0,
            },
        },
        "sliding_window": 9,
        "tie_word_embeddings": True,
        "use_bidirectional_attention": "vision",
    }  # fmt: skip
    return _dense("Gemma4ForCausalLM", "gemma4_text", **keys | changes)


_E2B = {
    "attention_k_eq_v": False,
    "global_head_dim": 32,
    "hidden_size_per_layer_input": 12,
    "layer_types": ["sliding_attention", "sliding_attention", "full_attention"] * 2,
    "num_key_value_heads": 1,
    "num_kv_shared_layers": 2,
    "use_bidirectional_attention": None,
    "use_double_wide_mlp": True,
    "vocab_size_per_layer_input": 67,
}
GEMMA_4 = Spread(embedding=0.1, gain=1.3)


def _block(group: int | None, mult: float | None) -> dict[str, Any]:
    """A layer of a search; None is nothing in its place."""
    attention = {"n_heads_in_group": group, "no_op": group is None, "replace_with_linear": False}
    ffn = {"ffn_mult": mult, "no_op": mult is None, "replace_with_linear": False}
    return {"attention": attention, "ffn": ffn}


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
    "ministral3": Case(_dense("Ministral3ForCausalLM", "ministral3", head_dim=16,
                              rope_parameters={
        "rope_type": "yarn", "rope_theta": 10000.0, "factor": 8.0, "beta_fast": 32.0,
        "original_max_position_embeddings": 16, "beta_slow": 1.0, "mscale": 1.0,
        "mscale_all_dim": 1.0, "llama_4_scaling_beta": 0.4})),
    "gpt_neox": Case(_dense("GPTNeoXForCausalLM", "gpt_neox", hidden_act="gelu", hidden_size=64,
                            num_key_value_heads=4)),
    "gpt_neox_sequential": Case(_dense("GPTNeoXForCausalLM", "gpt_neox", hidden_act="gelu",
                                       hidden_size=64, rotary_pct=0.5, num_key_value_heads=4,
                                       use_parallel_residual=False), seed=1),
    "gptj": Case(_gpt("GPTJForCausalLM", "gptj", rotary_dim=6, tie_word_embeddings=False)),
    "gpt_bigcode": Case(_gpt("GPTBigCodeForCausalLM", "gpt_bigcode"), spread=TIED),
    "gpt_bigcode_heads": Case(_gpt("GPTBigCodeForCausalLM", "gpt_bigcode", multi_query=False),
                              spread=TIED),
    "gpt_neo": Case({
        "architectures": ["GPTNeoForCausalLM"],
        "model_type": "gpt_neo",
        "activation_function": "gelu_new",
        "attention_types": [[["global", "local"], 2]],
        "bos_token_id": 1,
        "eos_token_id": 2,
        "hidden_size": 40,
        "layer_norm_epsilon": 1e-5,
        "max_position_embeddings": 128,
        "num_heads": 4,
        "num_layers": 4,
        "vocab_size": 67,
        "window_size": 9,
    }, spread=TIED),
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
    "opt_350m": Case({
        "architectures": ["OPTForCausalLM"],
        "model_type": "opt",
        "activation_function": "relu",
        "bos_token_id": 2,
        "do_layer_norm_before": False,
        "eos_token_id": 2,
        "ffn_dim": 56,
        "hidden_size": 40,
        "max_position_embeddings": 128,
        "num_attention_heads": 4,
        "num_hidden_layers": 2,
        "vocab_size": 31,
        "word_embed_proj_dim": 24,
    }),
    "biogpt": Case({
        "architectures": ["BioGptForCausalLM"],
        "model_type": "biogpt",
        "bos_token_id": 0,
        "eos_token_id": 2,
        "hidden_act": "gelu",
        "hidden_size": 40,
        "intermediate_size": 56,
        "layer_norm_eps": 1e-12,
        "max_position_embeddings": 128,
        "num_attention_heads": 4,
        "num_hidden_layers": 2,
        "scale_embedding": True,
        "vocab_size": 31,
    }, spread=Spread(embedding=0.02, gain=1.6), seed=2),
    "codegen": Case(_gpt("CodeGenForCausalLM", "codegen", n_embd=64, n_head=8, n_layer=2,
                         rotary_dim=6, tie_word_embeddings=False, vocab_size=31), seed=2),
    "falcon_7b": Case(_falcon(multi_query=True, parallel_attn=True), spread=TIED),
    "falcon_40b": Case(_falcon(new_decoder_architecture=True, num_kv_heads=2), spread=TIED),
    "falcon_11b": Case(_falcon(new_decoder_architecture=True, num_kv_heads=2, bias=True,
                               num_ln_in_parallel_attn=1, ffn_hidden_size=56), spread=TIED, seed=2),
    "falcon_sequential": Case(_falcon(multi_query=False, parallel_attn=False), spread=TIED),
    "persimmon": Case(_dense("PersimmonForCausalLM", "persimmon", hidden_act="relu2",
                             num_key_value_heads=4, hidden_size=48)),
    "helium": Case(_dense("HeliumForCausalLM", "helium", head_dim=10, pad_token_id=0)),
    "cwm": Case(_dense("CwmForCausalLM", "cwm", head_dim=16, sliding_window=9,
                       num_hidden_layers=5, rope_scaling={
        "rope_type": "llama3", "factor": 16.0, "original_max_position_embeddings": 64,
        "low_freq_factor": 1.0, "high_freq_factor": 4.0})),
    "jais2": Case(_dense("Jais2ForCausalLM", "jais2", hidden_act="relu2", head_dim=10)),
    "hyperclovax": Case(_dense("HyperCLOVAXForCausalLM", "hyperclovax", embedding_multiplier=2.0,
                               residual_multiplier=0.5, logits_scaling=0.3,
                               attention_multiplier=0.2)),
    "granite_swa": Case(_dense("GraniteSWAForCausalLM", "granite_swa", num_hidden_layers=5,
                               attention_multiplier=0.3, residual_multiplier=0.5,
                               layer_rope_theta=[0, 10000.0, 500.0, 10000.0, 0],
                               sliding_window=9, logits_scaling=2.0)),
    "vaultgemma": Case(_dense("VaultGemmaForCausalLM", "vaultgemma", head_dim=16, pad_token_id=0,
                              hidden_activation="gelu_pytorch_tanh", query_pre_attn_scalar=20,
                              sliding_window=10, tie_word_embeddings=True), spread=GEMMA),
    "gemma3n": Case(_gemma3n(), spread=GEMMA_3N),
    "gemma3n_sparse": Case({
        "architectures": ["Gemma3nForConditionalGeneration"],
        "model_type": "gemma3n",
        "text_config": _gemma3n(**_SPARSE),
    }, spread=GEMMA_3N, stand_in=StandIn(_gemma3n(**_SPARSE), stand_ins.gemma3n)),
    "gemma4_12b": Case({
        "architectures": ["Gemma4UnifiedForConditionalGeneration"],
        "model_type": "gemma4_unified",
        "text_config": gemma4(),
    }, spread=GEMMA_4, stand_in=StandIn(gemma4(), stand_ins.gemma3n)),
    "gemma4_12b_text": Case({
        **gemma4(vocab_size=31, num_hidden_layers=2,
                 layer_types=["sliding_attention", "full_attention"]),
        "architectures": ["Gemma4UnifiedForCausalLM"],
        "model_type": "gemma4_unified_text",
    }, spread=GEMMA_4, seed=1),
    "gemma4_e2b": Case({
        "architectures": ["Gemma4ForConditionalGeneration"],
        "model_type": "gemma4",
        "text_config": gemma4(**_E2B),
    }, spread=GEMMA_4, stand_in=StandIn(gemma4(**_E2B), stand_ins.gemma3n)),
    "internlm3": Case(_dense("InternLM3ForCausalLM", "internlm3", head_dim=16, qkv_bias=True,
                             bias=True)),
    "iquestcoder": Case(_dense("IQuestCoderForCausalLM", "iquestcoder", head_dim=16)),
    "exaone": Case(_dense("ExaoneForCausalLM", "exaone", num_layers=3,
                          activation_function="silu", layer_norm_epsilon=1e-5),
                   stand_in=StandIn(_dense("LlamaForCausalLM", "llama"), stand_ins.exaone)),
    "mimo": Case(_dense("MiMoForCausalLM", "mimo", head_dim=16),
                 stand_in=StandIn(_dense("Qwen2ForCausalLM", "qwen2", head_dim=16),
                                  stand_ins.same_names)),
    "minicpm": Case(_dense("MiniCPMForCausalLM", "minicpm", scale_emb=2.0, scale_depth=1.4,
                           dim_model_base=20), seed=1,
                    stand_in=StandIn(_dense("GraniteForCausalLM", "granite",
                                            embedding_multiplier=2.0, logits_scaling=2.0,
                                            attention_multiplier=10**-0.5,
                                            residual_multiplier=1.4 / 3**0.5),
                                     stand_ins.same_names)),
    "baichuan": Case(_dense("BaiChuanForCausalLM", "baichuan", num_key_value_heads=4), seed=3,
                     stand_in=StandIn(_dense("LlamaForCausalLM", "llama", num_key_value_heads=4),
                                      stand_ins.baichuan)),
    "decilm": Case(_dense("DeciLMForCausalLM", "nemotron-nas", vocab_size=31,
                          num_hidden_layers=4, num_key_value_heads=None, intermediate_size=None,
                          block_configs=[_block(2, 9.0), _block(None, 15.0), _block(4, 15.0),
                                         _block(2, None)]),
                   stand_in=StandIn(_dense("LlamaForCausalLM", "llama", vocab_size=31,
                                           num_hidden_layers=4, intermediate_size=512),
                                    stand_ins.decilm,
                                    zeros=("layers.1.self_attn", "layers.1.input_layernorm",
                                           "layers.3.mlp", "layers.3.post_attention_layernorm"),
                                    alterations=("layers_of_their_own_sizes",))),
    "internlm2": Case(_dense("InternLM2ForCausalLM", "internlm2", bias=True),
                      stand_in=StandIn(_dense("LlamaForCausalLM", "llama", attention_bias=True),
                                       stand_ins.internlm2)),
    "qwen": Case({
        "architectures": ["QWenLMHeadModel"],
        "model_type": "qwen",
        "hidden_size": 48,
        "intermediate_size": 112,
        "kv_channels": 12,
        "layer_norm_epsilon": 1e-5,
        "no_bias": True,
        "num_attention_heads": 4,
        "num_hidden_layers": 3,
        "rotary_emb_base": 10000,
        "rotary_pct": 1.0,
        "seq_length": 128,
        "tie_word_embeddings": False,
        "vocab_size": 67,
    }, stand_in=StandIn(_dense("Qwen2ForCausalLM", "qwen2", hidden_size=48, num_key_value_heads=4),
                        stand_ins.qwen)),
    "chatglm": Case({
        "architectures": ["ChatGLMModel"],
        "model_type": "chatglm",
        "add_bias_linear": False,
        "add_qkv_bias": True,
        "ffn_hidden_size": 56,
        "hidden_size": 40,
        "kv_channels": 16,
        "layernorm_epsilon": 1e-5,
        "multi_query_attention": True,
        "multi_query_group_num": 2,
        "num_attention_heads": 4,
        "num_layers": 3,
        "padded_vocab_size": 67,
        "post_layer_norm": True,
        "rmsnorm": True,
        "rope_ratio": 50,
        "seq_length": 128,
        "tie_word_embeddings": False,
        "vocab_size": 67,
    }, stand_in=StandIn(_dense("GlmForCausalLM", "glm", head_dim=16, pad_token_id=0,
                               rope_theta=500000.0), stand_ins.chatglm)),
}  # fmt: skip
