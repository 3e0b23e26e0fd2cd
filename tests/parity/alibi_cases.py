"""Rows of families whose positions are linear biases (ALiBi)."""

from collections.abc import Mapping
from typing import Any

from tests.parity import stand_ins
from tests.parity.case import TIED, Case, StandIn, sizes


def _falcon(**changes: Any) -> dict[str, Any]:
    return {
        "architectures": ["FalconForCausalLM"],
        "model_type": "falcon",
        "alibi": True,
        "bias": True,
        "bos_token_id": 1,
        "eos_token_id": 2,
        "hidden_size": 40,
        "layer_norm_epsilon": 1e-5,
        "multi_query": False,
        "num_attention_heads": 4,
        "num_hidden_layers": 3,
        "parallel_attn": False,
        "vocab_size": 67,
        **changes,
    }


def _mpt(**changes: Any) -> dict[str, Any]:
    return {
        "architectures": ["MPTForCausalLM"],
        "model_type": "mpt",
        "attn_config": {"alibi": True, "alibi_bias_max": 8, "clip_qkv": None},
        "bos_token_id": 1,
        "d_model": 48,
        "eos_token_id": 2,
        "max_seq_len": 128,
        "n_heads": 6,
        "n_layers": 3,
        "vocab_size": 69,
        **changes,
    }


def _baichuan(**changes: Any) -> dict[str, Any]:
    return {
        "architectures": ["BaichuanForCausalLM"],
        "model_type": "baichuan",
        "hidden_act": "silu",
        **sizes(num_key_value_heads=None, **changes),
    }


def _llama(*alterations: str, **changes: Any) -> StandIn:
    heads = changes.get("num_attention_heads", 4)
    changes = {"num_key_value_heads": heads, **changes}
    config = {"architectures": ["LlamaForCausalLM"], "model_type": "llama", **sizes(**changes)}
    return StandIn(config, stand_ins.baichuan, alterations=alterations)


_13B = {"hidden_size": 60, "intermediate_size": 54, "num_attention_heads": 6}
_NEW = {"model_max_length": 128, "max_position_embeddings": None}

ALIBI: Mapping[str, Case] = {
    "bloom": Case({
        "architectures": ["BloomForCausalLM"],
        "model_type": "bloom",
        "bos_token_id": 1,
        "eos_token_id": 2,
        "hidden_size": 48,
        "layer_norm_epsilon": 1e-5,
        "n_head": 6,
        "n_layer": 3,
        "vocab_size": 69,
    }, spread=TIED),
    "mpt": Case(_mpt(), spread=TIED),
    "mpt_clipped": Case(_mpt(architectures=["MptForCausalLM"], n_heads=4, attn_config={
        "alibi": True, "clip_qkv": 1.5, "softmax_scale": 0.4}), spread=TIED),
    # its other implementation in transformers counts the biases twice
    "falcon_rw": Case(_falcon(), spread=TIED, attention="sdpa"),
    "baichuan_13b": Case(_baichuan(**_13B, **_NEW), stand_in=_llama("linear_biases", **_13B)),
    "baichuan2_7b": Case(_baichuan(z_loss_weight=0), stand_in=_llama("head_of_unit_rows")),
    "baichuan2_13b": Case(_baichuan(**_13B, **_NEW, z_loss_weight=0),
                          stand_in=_llama("linear_biases", "head_of_unit_rows", **_13B)),
}  # fmt: skip
