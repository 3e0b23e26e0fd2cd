"""The rows of the table that have states; `cases.py` says how rows are made."""

from typing import Any

from tests.parity.case import Case, sizes
from tests.parity.weights import Spread

OFFSET = Spread(norm=0.0)  # of norms that add one


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
}  # fmt: skip
