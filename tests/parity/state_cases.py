"""The rows of the table that have states; `cases.py` says how rows are made."""

from typing import Any

from tests.parity import stand_ins
from tests.parity.case import GEMMA, TIED, Case, StandIn, sizes
from tests.parity.weights import Spread

OFFSET = Spread(norm=0.0)  # of norms that add one
MILD = Spread(embedding=0.15, gain=0.7)  # for blocks without sums, which amplify what rounds
TIED_OFFSET = Spread(norm=0.0, embedding=0.1, gain=1.6)


def _pure(architecture: str, model_type: str, **changes: Any) -> dict[str, Any]:
    keys = {
        "architectures": [architecture], "model_type": model_type, "vocab_size": 67,
        "hidden_size": 40, "num_hidden_layers": 3, "state_size": 12, "conv_kernel": 4,
        "bos_token_id": 1, "eos_token_id": 2, "hidden_act": "silu",
    }  # fmt: skip
    return keys | changes


def _hybrid(architecture: str, model_type: str, **changes: Any) -> dict[str, Any]:
    return {
        "architectures": [architecture], "model_type": model_type, "hidden_act": "silu",
        **sizes(num_hidden_layers=4, **changes),
    }  # fmt: skip


_EXPERTS = {
    "mamba_num_heads": 6, "mamba_head_dim": 14, "n_groups": 3, "ssm_state_size": 12,
    "mlp_hidden_act": "relu2", "layer_norm_epsilon": 1e-5, "n_routed_experts": 6,
    "num_experts_per_tok": 3, "moe_intermediate_size": 24, "n_shared_experts": 1,
    "moe_shared_expert_intermediate_size": 36, "routed_scaling_factor": 2.5, "n_group": 3,
    "topk_group": 2, "norm_topk_prob": True,
}  # fmt: skip

_QWEN3_5 = _hybrid(
    "Qwen3_5ForCausalLM", "qwen3_5_text", head_dim=16, partial_rotary_factor=0.5,
    rope_theta=10000.0, linear_num_key_heads=3, linear_num_value_heads=6, linear_key_head_dim=14,
    linear_value_head_dim=10, linear_conv_kernel_dim=3,
    layer_types=["full_attention", "linear_attention", "linear_attention", "full_attention"],
)  # fmt: skip
_QWEN3_5_MOE = _hybrid(
    "Qwen3_5MoeForCausalLM", "qwen3_5_moe_text", head_dim=16, partial_rotary_factor=0.25,
    rope_theta=10000.0, linear_num_key_heads=2, linear_num_value_heads=4, linear_key_head_dim=12,
    linear_value_head_dim=14, num_experts=6, num_experts_per_tok=3, moe_intermediate_size=24,
    shared_expert_intermediate_size=36,
)  # fmt: skip

_ZAMBA2 = _hybrid(
    "Zamba2ForCausalLM", "zamba2", n_mamba_heads=6, mamba_expand=3, mamba_d_state=12,
    mamba_ngroups=2, vocab_size=31, mamba_d_conv=3, num_key_value_heads=4, adapter_rank=6,
) | {"hidden_act": "gelu", "tie_word_embeddings": True}  # fmt: skip
_TYPES = ["hybrid", "mamba", "hybrid", "hybrid"]

STATES = {
    "mamba2": Case(_pure("Mamba2ForCausalLM", "mamba2", num_heads=6, head_dim=20, expand=3,
                         n_groups=3)),
    "qwen3_next": Case(_hybrid("Qwen3NextForCausalLM", "qwen3_next", head_dim=16,
                               partial_rotary_factor=0.25, rope_theta=10000.0,
                               linear_num_key_heads=2, linear_num_value_heads=6,
                               linear_key_head_dim=10, linear_value_head_dim=14,
                               linear_conv_kernel_dim=4, num_experts=6, num_experts_per_tok=3,
                               moe_intermediate_size=24, shared_expert_intermediate_size=36,
                               mlp_only_layers=[1]), spread=OFFSET),
    "qwen3_5": Case(_QWEN3_5, spread=OFFSET),
    "qwen3_5_images": Case({
        "architectures": ["Qwen3_5ForConditionalGeneration"],
        "model_type": "qwen3_5",
        "tie_word_embeddings": True,
        "text_config": {k: v for k, v in _QWEN3_5.items() if k != "tie_word_embeddings"},
    }, spread=TIED_OFFSET,
       stand_in=StandIn(_QWEN3_5 | {"tie_word_embeddings": True}, stand_ins.gemma3n)),
    "mamba": Case(_pure("MambaForCausalLM", "mamba", time_step_rank=5, use_bias=True), seed=1),
    "falcon_mamba": Case(_pure("FalconMambaForCausalLM", "falcon_mamba", conv_kernel=3,
                               mixer_rms_eps=1e-3, tie_word_embeddings=False)),
    "jamba": Case(_hybrid("JambaForCausalLM", "jamba", num_experts=5, num_experts_per_tok=2,
                          attn_layer_period=3, attn_layer_offset=1, expert_layer_period=2,
                          expert_layer_offset=1, mamba_d_state=12, mamba_d_conv=4,
                          mamba_expand=2, mamba_dt_rank=7)),
    "bamba": Case(_hybrid("BambaForCausalLM", "bamba", head_dim=16, attn_layer_indices=[1, 3],
                          mamba_n_heads=6, mamba_d_head=20, mamba_expand=3, mamba_n_groups=2,
                          mamba_d_state=12, mamba_d_conv=4), positions=True),
    "granite_hybrid": Case(_hybrid("GraniteMoeHybridForCausalLM", "granitemoehybrid",
                                   mamba_n_heads=6, mamba_d_head="auto", mamba_expand=3,
                                   mamba_n_groups=1, mamba_d_state=12, num_local_experts=6,
                                   num_experts_per_tok=3, intermediate_size=24,
                                   shared_intermediate_size=36, embedding_multiplier=3.0,
                                   attention_multiplier=0.2, residual_multiplier=0.4,
                                   logits_scaling=5.0, layer_types=["mamba", "attention",
                                   "mamba", "mamba"])),
    "granite_hybrid_dense": Case(_hybrid("GraniteMoeHybridForCausalLM", "granitemoehybrid",
                                         mamba_n_heads=4, mamba_d_head=20, mamba_n_groups=2,
                                         mamba_d_state=12, num_local_experts=0,
                                         shared_intermediate_size=36, mamba_proj_bias=True,
                                         position_embedding_type="rope", rope_theta=10000.0,
                                         layer_types=["attention", "mamba", "mamba",
                                         "attention"])),
    "falcon_h1": Case(_hybrid("FalconH1ForCausalLM", "falcon_h1", mamba_n_heads=6, mamba_d_head=14,
                              mamba_d_ssm=84, mamba_n_groups=2, mamba_d_state=12,
                              mamba_rms_norm=False, rope_theta=10000.0, key_multiplier=0.6,
                              attention_in_multiplier=0.8, attention_out_multiplier=1.3,
                              ssm_in_multiplier=1.2, ssm_out_multiplier=0.7,
                              ssm_multipliers=[0.9, 0.7, 1.1, 1.3, 0.8],
                              mlp_multipliers=[1.2, 0.6], embedding_multiplier=2.0,
                              lm_head_multiplier=0.4)),
    "falcon_h1_norm": Case(_hybrid("FalconH1ForCausalLM", "falcon_h1", mamba_n_heads=4,
                                   mamba_d_head=20, mamba_d_ssm=80, mamba_n_groups=2,
                                   mamba_d_state=12, mamba_rms_norm=True, projectors_bias=True,
                                   mamba_norm_before_gate=True, attention_bias=True), seed=1),
    "nemotron_h": Case(_hybrid("NemotronHForCausalLM", "nemotron_h", head_dim=16,
                               hybrid_override_pattern="M-M*-", mamba_num_heads=6,
                               mamba_head_dim=14, n_groups=3, ssm_state_size=12,
                               mlp_hidden_act="relu2", layer_norm_epsilon=1e-5)),
    # most steps are shorter than the shortest; of those of one token transformers cuts none
    "nemotron_h_steps": Case(_hybrid("NemotronHForCausalLM", "nemotron_h", head_dim=16,
                                     vocab_size=31, hybrid_override_pattern="M*M",
                                     mamba_num_heads=6, mamba_head_dim=14, n_groups=3,
                                     ssm_state_size=12, mlp_hidden_act="relu2",
                                     time_step_min=0.9), whole=True),
    "nemotron_3": Case(_hybrid("NemotronHForCausalLM", "nemotron_h", head_dim=16,
                               hybrid_override_pattern="ME*E", **_EXPERTS)),
    "nemotron_3_latent": Case(_hybrid("NemotronHForCausalLM", "nemotron_h", head_dim=16,
                                      hybrid_override_pattern="E*-ME", moe_latent_size=28,
                                      **_EXPERTS | {"n_group": 1, "topk_group": 1})),
    "lfm2": Case(_hybrid("Lfm2ForCausalLM", "lfm2", layer_types=["conv", "full_attention", "conv",
                         "conv"], conv_L_cache=3, block_multiple_of=8, intermediate_size=84,
                         conv_bias=True, rope_theta=10000.0, norm_eps=1e-5,
                         tie_word_embeddings=True), spread=TIED, seed=1),
    "lfm2_moe": Case(_hybrid("Lfm2MoeForCausalLM", "lfm2_moe", layer_types=["conv", "conv",
                             "full_attention", "conv"], conv_L_cache=4, num_dense_layers=1,
                             num_experts=6, num_experts_per_tok=2, moe_intermediate_size=24,
                             rope_theta=10000.0, norm_eps=1e-5, tie_word_embeddings=True),
                     spread=TIED),
    "qwen3_5_moe": Case(_QWEN3_5_MOE, spread=OFFSET),
    "qwen3_5_moe_images": Case({
        "architectures": ["Qwen3_5MoeForConditionalGeneration"],
        "model_type": "qwen3_5_moe",
        "text_config": _QWEN3_5_MOE,
    }, spread=OFFSET, stand_in=StandIn(_QWEN3_5_MOE, stand_ins.qwen3_5_moe)),
    "olmo_hybrid": Case(_hybrid("OlmoHybridForCausalLM", "olmo_hybrid", vocab_size=31,
                                pad_token_id=0, linear_num_key_heads=2, linear_num_value_heads=6,
                                linear_key_head_dim=10, linear_value_head_dim=14,
                                linear_conv_kernel_dim=3, layer_types=["linear_attention",
                                "full_attention", "linear_attention", "full_attention"],
                                rope_parameters={"rope_theta": None, "rope_type": "default"})),
    "kimi_linear": Case({
        "architectures": ["KimiLinearForCausalLM"], "model_type": "kimi_linear", "vocab_size": 31,
        "hidden_size": 40, "intermediate_size": 56, "num_hidden_layers": 4, "hidden_act": "silu",
        "num_attention_heads": 4, "num_key_value_heads": 4, "kv_lora_rank": 20, "head_dim": 10,
        "qk_nope_head_dim": 10, "qk_rope_head_dim": 8, "v_head_dim": 14, "q_lora_rank": None,
        "num_experts": 6, "num_experts_per_token": 3, "moe_intermediate_size": 24,
        "num_expert_group": 2, "topk_group": 1, "moe_renormalize": True, "num_shared_experts": 1,
        "moe_router_activation_func": "sigmoid", "first_k_dense_replace": 1, "mla_use_nope": True,
        "routed_scaling_factor": 2.4, "rms_norm_eps": 1e-5, "model_max_length": 128,
        "bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0, "tie_word_embeddings": False,
        "linear_attn_config": {"full_attn_layers": [2], "kda_layers": [1, 3, 4], "num_heads": 3,
                               "head_dim": 14, "short_conv_kernel_size": 3},
    }),
    "recurrent_gemma": Case({
        "architectures": ["RecurrentGemmaForCausalLM"], "model_type": "recurrent_gemma",
        "vocab_size": 31, "hidden_size": 48, "intermediate_size": 112, "num_hidden_layers": 4,
        "num_attention_heads": 4, "num_key_value_heads": 1, "lru_width": 52, "conv1d_width": 3,
        "block_types": ["recurrent", "attention", "recurrent"], "attention_window_size": 9,
        "logits_soft_cap": 4.0, "bos_token_id": 2, "eos_token_id": 1,
    }, spread=GEMMA, positions=True, seed=2),
    "zamba2": Case(_ZAMBA2 | {"layers_block_type": ["mamba", "hybrid", "hybrid", "mamba"],
                              "use_mem_rope": True, "rope_theta": 10000.0},
                   spread=MILD, positions=True),
    "zamba2_two_blocks": Case(_ZAMBA2 | {"layers_block_type": _TYPES,
                                         "num_mem_blocks": 2, "add_bias_linear": True,
                                         "use_shared_attention_adapter": True},
                              spread=MILD, positions=True),
    "qwen3_5_moe_single": Case({
        "architectures": ["Qwen3_5MoeForConditionalGeneration"],
        "model_type": "qwen3_5_moe",
        "text_config": _QWEN3_5_MOE,
    }, spread=OFFSET, stand_in=StandIn(_QWEN3_5_MOE, stand_ins.gemma3n)),
}  # fmt: skip
