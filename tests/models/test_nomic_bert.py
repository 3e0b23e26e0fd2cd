"""Nomic's embeddings: the first checkpoints' keys mean what transformers' do."""

import pytest

from models.architectures import nomic_bert
from models.errors import UnsupportedError

NEW = {
    "architectures": ["NomicBertModel"], "model_type": "nomic_bert", "vocab_size": 30528,
    "hidden_size": 768, "intermediate_size": 3072, "num_hidden_layers": 12,
    "num_attention_heads": 12, "max_position_embeddings": 2048, "hidden_act": "silu",
    "layer_norm_eps": 1e-12, "type_vocab_size": 2,
    "rope_parameters": {"rope_type": "default", "rope_theta": 1000.0},
}  # fmt: skip
FIRST = {
    "architectures": ["NomicBertModel"], "model_type": "nomic_bert", "vocab_size": 30528,
    "activation_function": "swiglu", "causal": False, "fused_bias_fc": True,
    "layer_norm_epsilon": 1e-12, "max_trained_positions": 2048, "mlp_fc1_bias": False,
    "mlp_fc2_bias": False, "n_embd": 768, "n_head": 12, "n_inner": 3072, "n_layer": 12,
    "n_positions": 8192, "parallel_block": False, "prenorm": False, "qkv_proj_bias": False,
    "rotary_emb_base": 1000, "rotary_emb_fraction": 1.0, "rotary_emb_interleaved": False,
    "rotary_emb_scale_base": None, "rotary_scaling_factor": None, "type_vocab_size": 2,
    "use_rms_norm": False,
}  # fmt: skip


def test_the_first_keys_describe_the_same_model():
    assert nomic_bert.config(FIRST) == nomic_bert.config(NEW)
    half = nomic_bert.config(FIRST | {"rotary_emb_fraction": 0.5}).layer_kinds[0].rope
    assert half is not None and (half.dim, half.theta) == (32, 1000.0)


@pytest.mark.parametrize(
    "changes", [{"qkv_proj_bias": True}, {"moe_every_n_layers": 2}, {"activation_function": "gelu"}]
)
def test_what_only_other_models_of_this_code_have_is_refused(changes):
    [name] = changes
    with pytest.raises(UnsupportedError, match=name):
        nomic_bert.config(FIRST | changes)
