"""The rows of the table that have experts; `cases.py` says how rows are made."""

from typing import Any

from tests.parity import stand_ins
from tests.parity.case import TIED, Case, StandIn, longrope, sizes
from tests.parity.dense_cases import GEMMA_4, gemma4


def _mixture(architecture: str, model_type: str, **changes: Any) -> dict[str, Any]:
    """A change to None leaves a key out."""
    keys = {
        "architectures": [architecture],
        "model_type": model_type,
        "hidden_act": "silu",
        "head_dim": 16,
        "rope_theta": 10000.0,
        "num_experts_per_tok": 3,
        **sizes(**changes),
    }
    return {key: value for key, value in keys.items() if value is not None}


def _routed(architecture: str, model_type: str, **changes: Any) -> dict[str, Any]:
    """Routing as DeepSeek V3 has it, without latents."""
    experts = {"n_routed_experts": 6, "n_shared_experts": 1, "moe_intermediate_size": 24}
    return _mixture(architecture, model_type, **experts | changes)


def _latent(architecture: str, model_type: str, **changes: Any) -> dict[str, Any]:
    return {
        "architectures": [architecture],
        "model_type": model_type,
        "hidden_act": "silu",
        "rope_theta": 10000.0,
        "num_experts_per_tok": 3,
        "n_routed_experts": 8,
        "n_shared_experts": 1,
        "moe_intermediate_size": 24,
        "first_k_dense_replace": 0,
        "q_lora_rank": 28,
        "kv_lora_rank": 20,
        "qk_nope_head_dim": 10,
        "qk_rope_head_dim": 8,
        "v_head_dim": 14,
        **sizes(num_key_value_heads=4, rms_norm_eps=1e-6, **changes),
    }


def _llama4(**changes: Any) -> dict[str, Any]:
    """Chunks of 32 tokens, the last layer of four without positions."""
    keys = {
        "num_experts_per_tok": 1,
        "num_local_experts": 6,
        "intermediate_size": 24,
        "intermediate_size_mlp": 56,
        "attention_chunk_size": 32,
        "floor_scale": 12,
        "attn_scale": 0.3,
        "num_hidden_layers": 5,
        "pad_token_id": 0,
    }
    return _mixture("Llama4ForCausalLM", "llama4_text", **keys | changes)


_MAVERICK = {"use_qk_norm": False, "interleave_moe_layer_step": 2, "num_experts_per_tok": 2}

MIXTURES = {
    "mixtral": Case(_mixture("MixtralForCausalLM", "mixtral", num_local_experts=5)),
    "qwen2_moe": Case(_mixture("Qwen2MoeForCausalLM", "qwen2_moe", num_experts=6, head_dim=10,
                               moe_intermediate_size=24, shared_expert_intermediate_size=36,
                               mlp_only_layers=[0]), seed=1),
    "qwen3_moe": Case(_mixture("Qwen3MoeForCausalLM", "qwen3_moe", num_experts=8,
                               moe_intermediate_size=24, norm_topk_prob=True,
                               decoder_sparse_step=2)),
    "olmoe": Case(_mixture("OlmoeForCausalLM", "olmoe", num_experts=6, head_dim=10)),
    "gpt_oss": Case(_mixture("GptOssForCausalLM", "gpt_oss", num_local_experts=6,
                             sliding_window=11, layer_types=["sliding_attention",
                             "full_attention", "sliding_attention"],
                             rope_theta=150000.0, rope_scaling={
        "rope_type": "yarn", "factor": 32.0, "beta_fast": 32.0, "beta_slow": 1.0,
        "truncate": False, "original_max_position_embeddings": 4096},
        max_position_embeddings=131072)),
    "deepseek_v2": Case(_latent("DeepseekV2ForCausalLM", "deepseek_v2", n_group=4, topk_group=2,
                                topk_method="group_limited_greedy", routed_scaling_factor=4.0)),
    "deepseek_v2_lite": Case(_latent("DeepseekV2ForCausalLM", "deepseek_v2", n_group=1,
                                     topk_group=1, topk_method="greedy", q_lora_rank=None,
                                     rope_scaling={
        "type": "yarn", "factor": 4.0, "original_max_position_embeddings": 32, "mscale": 0.707,
        "mscale_all_dim": 0.707, "beta_fast": 32, "beta_slow": 1})),
    "deepseek_v3": Case(_latent("DeepseekV3ForCausalLM", "deepseek_v3", n_group=2, topk_group=1,
                                first_k_dense_replace=1, routed_scaling_factor=2.5)),
    "deepseek_v3_yarn": Case(_latent("DeepseekV3ForCausalLM", "deepseek_v3", n_group=4,
                                     topk_group=3, q_lora_rank=None, rope_scaling={
        "type": "yarn", "factor": 4.0, "original_max_position_embeddings": 32, "mscale": 1.0,
        "mscale_all_dim": 1.0, "beta_fast": 32, "beta_slow": 1}, n_shared_experts=2)),
    "deepseek_v3_halves": Case(_latent("DeepseekV3ForCausalLM", "deepseek_v3", n_group=1,
                                       topk_group=1, vocab_size=31, num_hidden_layers=2,
                                       first_k_dense_replace=1, rope_interleave=False)),
    # 9 and 12 of up to 83 latents are seen
    "deepseek_v32": Case(_latent("DeepseekV32ForCausalLM", "deepseek_v32", n_group=2, topk_group=1,
                                 first_k_dense_replace=1, index_topk=9, index_n_heads=12,
                                 index_head_dim=14, rope_scaling={
        "type": "yarn", "factor": 4.0, "original_max_position_embeddings": 32, "mscale": 1.0,
        "mscale_all_dim": 1.0, "beta_fast": 32, "beta_slow": 1})),
    "glm_moe_dsa": Case(_latent("GlmMoeDsaForCausalLM", "glm_moe_dsa", index_topk=12,
                                index_n_heads=10, index_head_dim=18, attention_bias=True,
                                mlp_layer_types=["sparse", "dense", "sparse"],
                                indexer_types=["full", "shared", "full"])),
    "glm4_moe": Case(_routed("Glm4MoeForCausalLM", "glm4_moe", use_qk_norm=True, n_group=2,
                             attention_bias=True, first_k_dense_replace=1,
                             routed_scaling_factor=1.8)),
    "glm4_moe_lite": Case(_latent("Glm4MoeLiteForCausalLM", "glm4_moe_lite", q_lora_rank=None,
                                  mlp_layer_types=["sparse", "dense", "sparse"])),
    "dots1": Case(_routed("Dots1ForCausalLM", "dots1", attention_bias=True, n_shared_experts=2,
                          sliding_window=9, max_window_layers=1, first_k_dense_replace=2,
                          norm_topk_prob=False)),
    "solar_open": Case(_routed("SolarOpenForCausalLM", "solar_open")),
    "minimax_m2": Case(_mixture("MiniMaxM2ForCausalLM", "minimax_m2", num_local_experts=6,
                                rotary_dim=6)),
    "ernie4_5_moe": Case(_mixture("Ernie4_5_MoeForCausalLM", "ernie4_5_moe", moe_num_experts=6,
                                  num_experts_per_tok=None, moe_k=3, moe_intermediate_size=24,
                                  moe_layer_start_index=1, moe_layer_end_index=3,
                                  moe_layer_interval=2, num_hidden_layers=5, use_bias=True,
                                  pad_token_id=0)),
    "hunyuan_moe": Case(_mixture("HunYuanMoEV1ForCausalLM", "hunyuan_v1_moe", num_experts=5,
                                 num_experts_per_tok=None, moe_topk=[2, 2, 2],
                                 intermediate_size=24, pad_token_id=0,
                                 rope_scaling={"type": "dynamic", "alpha": 50.0, "factor": 1.0})),
    "gemma4_26b": Case(gemma4(enable_moe_block=True, num_experts=6, top_k_experts=3,
                              moe_intermediate_size=24), spread=GEMMA_4),
    "flex_olmo": Case(_mixture("FlexOlmoForCausalLM", "flex_olmo", num_experts=5, head_dim=10,
                               intermediate_size=24, pad_token_id=0)),
    "granite_moe": Case(_mixture("GraniteMoeForCausalLM", "granitemoe", num_local_experts=6,
                                 head_dim=None, intermediate_size=24, embedding_multiplier=3.0,
                                 attention_multiplier=0.2, residual_multiplier=0.4,
                                 logits_scaling=5.0, tie_word_embeddings=True), spread=TIED,
                        seed=2),
    "granite_moe_shared": Case(_mixture("GraniteMoeSharedForCausalLM", "granitemoeshared",
                                        num_local_experts=5, intermediate_size=24, head_dim=None,
                                        shared_intermediate_size=36, attention_bias=True)),
    # transformers has the short factors at any length, its authors the long ones in long contexts
    "phimoe": Case(_mixture("PhiMoEForCausalLM", "phimoe", num_local_experts=8, head_dim=None,
                            num_experts_per_tok=2, intermediate_size=24, router_jitter_noise=0.3,
                            attention_bias=True, lm_head_bias=True,
                            original_max_position_embeddings=96, rope_scaling={
        **longrope(5), "short_mscale": 1.2, "long_mscale": 1.2,
        "original_max_position_embeddings": 96}), context=96, seed=1),
    "phimoe_window": Case(_mixture("PhimoeForCausalLM", "phimoe", num_local_experts=5,
                                   head_dim=None, num_experts_per_tok=2, intermediate_size=24,
                                   sliding_window=9)),
    "exaone_moe": Case(_mixture("ExaoneMoeForCausalLM", "exaone_moe", num_hidden_layers=5,
                                num_experts=6, num_shared_experts=2, moe_intermediate_size=24,
                                sliding_window=9, sliding_window_pattern=4, pad_token_id=0)),
    "hy_v3": Case(_mixture("HYV3ForCausalLM", "hy_v3", num_experts=6, num_shared_experts=2,
                           moe_intermediate_size=24, router_scaling_factor=1.7,
                           attention_bias=True,
                           mlp_layer_types=["sparse", "dense", "sparse"])),
    "granite_moe_swa": Case(_mixture("GraniteMoeSWAForCausalLM", "granitemoe_swa", head_dim=None,
                                     num_hidden_layers=5, num_local_experts=5, sliding_window=9,
                                     intermediate_size=24, shared_intermediate_size=36,
                                     layer_rope_theta=[0, 10000.0, 500.0, 10000.0, 0],
                                     attention_multiplier=0.3, residual_multiplier=0.5)),
    # of the two bases transformers reads the outer one; published files have the inner one only
    "dbrx": Case({
        "architectures": ["DbrxForCausalLM"],
        "model_type": "dbrx",
        "vocab_size": 67,
        "d_model": 40,
        "n_heads": 4,
        "n_layers": 3,
        "max_seq_len": 128,
        "rope_theta": 500.0,
        "attn_config": {"clip_qkv": 0.8, "kv_n_heads": 2, "rope_theta": 500.0},
        "ffn_config": {"ffn_act_fn": {"name": "silu"}, "ffn_hidden_size": 24, "hidden_size": 40,
                       "moe_num_experts": 5, "moe_top_k": 2},
        "tie_word_embeddings": False,
    }),
    "deepseek": Case(_routed("DeepseekForCausalLM", "deepseek", n_shared_experts=2,
                             first_k_dense_replace=1),
                     stand_in=StandIn(_mixture("Ernie4_5_MoeForCausalLM", "ernie4_5_moe",
                                               num_experts_per_tok=None, moe_k=3,
                                               moe_num_experts=6, moe_intermediate_size=24,
                                               moe_num_shared_experts=2, moe_norm_min=1.0,
                                               moe_layer_start_index=1, pad_token_id=0),
                                      stand_ins.deepseek, zeros=("e_score_correction_bias",))),
    "youtu": Case(_latent("YoutuForCausalLM", "youtu", vocab_size=31, num_hidden_layers=2,
                          num_experts_per_tok=None, tie_word_embeddings=True), spread=TIED),
    "minicpm3": Case(_latent("MiniCPM3ForCausalLM", "minicpm3", vocab_size=31,
                             num_hidden_layers=2, scale_emb=2.0, scale_depth=1.1,
                             dim_model_base=20, tie_word_embeddings=True), spread=TIED, seed=1),
    "mellum": Case(_mixture("MellumForCausalLM", "mellum", vocab_size=31, num_experts=6,
                            moe_intermediate_size=24, sliding_window=9, rope_theta=None,
                            layer_types=["sliding_attention", "full_attention",
                                         "sliding_attention"],
                            mlp_layer_types=["dense", "sparse", "sparse"],
                            rope_parameters={
        "full_attention": {"rope_type": "yarn", "rope_theta": 500.0, "factor": 4.0,
                           "original_max_position_embeddings": 32},
        "sliding_attention": {"rope_type": "default", "rope_theta": 100.0}}), seed=1),
    "afmoe": Case(_mixture("AfmoeForCausalLM", "afmoe", vocab_size=31, num_experts=6,
                           num_shared_experts=2, moe_intermediate_size=24, sliding_window=9,
                           global_attn_every_n_layers=3, num_dense_layers=1, route_scale=1.7,
                           mup_enabled=True), seed=4),
    "flint": Case(_mixture("FlintForCausalLM", "flint", vocab_size=31, num_experts=6,
                           moe_intermediate_size=24, shared_expert_intermediate_size=36,
                           num_hidden_layers=5, mlp_only_layers=[0], sliding_window=9), seed=1),
    "cohere2_moe": Case(_mixture("Cohere2MoeForCausalLM", "cohere2_moe", vocab_size=31,
                                 num_experts=6, num_shared_experts=2, intermediate_size=24,
                                 prefix_dense_intermediate_size=56, first_k_dense_replace=1,
                                 expert_selection_fn="sigmoid", sliding_window=9,
                                 sliding_window_pattern=2, rms_norm_eps=None, pad_token_id=0,
                                 layer_norm_eps=1e-5, logit_scale=0.5,
                                 tie_word_embeddings=True), spread=TIED),
    "bailing_moe_v2": Case(_mixture("BailingMoeV2ForCausalLM", "bailing_moe", vocab_size=31,
                                    num_experts=6, num_shared_experts=1, n_group=2, topk_group=1,
                                    moe_intermediate_size=24, first_k_dense_replace=1,
                                    routed_scaling_factor=2.5, partial_rotary_factor=0.5,
                                    use_qk_norm=True, score_function="sigmoid"),
                           stand_in=StandIn(_routed("Glm4MoeForCausalLM", "glm4_moe",
                                                    vocab_size=31, n_group=2, topk_group=1,
                                                    first_k_dense_replace=1, use_qk_norm=True,
                                                    routed_scaling_factor=2.5,
                                                    partial_rotary_factor=0.5),
                                            stand_ins.bailing)),
    "llama4": Case(_llama4(), prompt_length=41),
    "llama4_maverick": Case({
        "architectures": ["Llama4ForConditionalGeneration"],
        "model_type": "llama4",
        "text_config": _llama4(**_MAVERICK),
    }, prompt_length=41, stand_in=StandIn(_llama4(**_MAVERICK), stand_ins.llama4)),
}  # fmt: skip
