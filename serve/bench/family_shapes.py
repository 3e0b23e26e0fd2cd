"""One small model of each family, of about as many active parameters as the others.

Owns their config.json and what a step of each has to compute with and to move. Knows no engine.

active   parameters that a token is multiplied by: of experts those that it takes, of embeddings
         none, but for one that is the head as well, and of what reads a prompt once none
moved    numbers that a step of `rows` tokens has to read or to write: parameters, of experts all
         that some token takes, as many as a router without preferences would choose; and the rows'
         states, which are read and written
"""

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from models.config.decoder import ModelConfig
from models.flatten import Leaf

Config = dict[str, Any]

_HEAD = 64  # numbers of a head


@dataclass(frozen=True)
class Size:
    """What all families of a run have in common; the width is a multiple of 128."""

    hidden: int = 512
    layers: int = 8
    vocab: int = 8192

    @property
    def heads(self) -> int:
        return self.hidden // _HEAD


def _common(architecture: str, model_type: str, size: Size) -> Config:
    return {
        "architectures": [architecture],
        "model_type": model_type,
        "vocab_size": size.vocab,
        "hidden_size": size.hidden,
        "num_hidden_layers": size.layers,
        "num_attention_heads": size.heads,
        "num_key_value_heads": size.heads // 2,
        "intermediate_size": size.hidden * 11 // 4,
        "hidden_act": "silu",
        "max_position_embeddings": 2048,
        "rms_norm_eps": 1e-5,
        "rope_theta": 10000.0,
        "tie_word_embeddings": False,
        "eos_token_id": 2,
    }


def _dense(size: Size) -> Config:
    return _common("LlamaForCausalLM", "llama", size)


def _mixture(size: Size) -> Config:
    """2 of 8 experts, each half as wide as the dense model's MLP."""
    return _common("MixtralForCausalLM", "mixtral", size) | {
        "intermediate_size": size.hidden * 11 // 8,
        "num_local_experts": 8,
        "num_experts_per_tok": 2,
    }


def _latent(size: Size) -> Config:
    """DeepSeek V3 without experts, so that its attention is what differs."""
    return _common("DeepseekV3ForCausalLM", "deepseek_v3", size) | {
        "q_lora_rank": size.hidden // 2,
        "kv_lora_rank": size.hidden // 4,
        "qk_nope_head_dim": _HEAD,
        "qk_rope_head_dim": _HEAD // 2,
        "v_head_dim": _HEAD,
        "first_k_dense_replace": size.layers,
        "moe_intermediate_size": size.hidden,
    }


def _scan(size: Size) -> Config:
    """Bamba: three layers of Mamba-2 to one of attention."""
    return _common("BambaForCausalLM", "bamba", size) | {
        "intermediate_size": size.hidden * 31 // 16,
        "attn_layer_indices": list(range(3, size.layers, 4)),
        "mamba_expand": 2,
        "mamba_n_heads": 2 * size.heads,
        "mamba_d_head": _HEAD,
        "mamba_d_state": 64,
    }


def _selective(size: Size) -> Config:
    """Mamba, whose layers have no MLP: there are more of them."""
    return {
        "architectures": ["MambaForCausalLM"],
        "model_type": "mamba",
        "vocab_size": size.vocab,
        "hidden_size": size.hidden,
        "num_hidden_layers": size.layers * 7 // 4,
        "state_size": 16,
        "tie_word_embeddings": False,
        "eos_token_id": 2,
    }


def _delta(size: Size) -> Config:
    """Qwen3.5: three layers of the gated delta rule to one of attention with a gate."""
    return _common("Qwen3_5ForCausalLM", "qwen3_5_text", size) | {
        "intermediate_size": size.hidden * 17 // 8,
        "head_dim": _HEAD,
        "linear_num_key_heads": size.heads,
        "linear_num_value_heads": size.heads,
        "linear_key_head_dim": _HEAD,
        "linear_value_head_dim": _HEAD,
    }


def _convolved(size: Size) -> Config:
    """LFM2: three short convolutions to one layer of attention."""
    attends = (number % 4 == 3 for number in range(size.layers))
    return _common("Lfm2ForCausalLM", "lfm2", size) | {
        "intermediate_size": size.hidden * 5 // 2,
        "block_auto_adjust_ff_dim": False,
        "conv_L_cache": 3,
        "layer_types": ["full_attention" if attend else "conv" for attend in attends],
    }


def _recurrent(size: Size) -> Config:
    """RecurrentGemma: two layers of RG-LRU to one of attention with one head of keys."""
    return _common("RecurrentGemmaForCausalLM", "recurrent_gemma", size) | {
        "intermediate_size": size.hidden * 11 // 2,  # of both halves
        "hidden_act": "gelu_pytorch_tanh",
        "num_key_value_heads": 1,
        "lru_width": size.hidden,
        "conv1d_width": 4,
        "attention_window_size": 2048,
        "embeddings_scale_by_sqrt_dim": True,
    }


def _crossed(size: Size) -> Config:
    """T5 1.1, whose layers attend to what an encoder has read besides."""
    return {
        "architectures": ["T5ForConditionalGeneration"],
        "model_type": "t5",
        "vocab_size": size.vocab,
        "d_model": size.hidden,
        "d_kv": _HEAD,
        "d_ff": size.hidden * 7 // 4,
        "num_layers": 1,
        "num_decoder_layers": size.layers,
        "num_heads": size.heads,
        "feed_forward_proj": "gated-gelu",
        "n_positions": 2048,
        "tie_word_embeddings": False,
        "decoder_start_token_id": 0,
        "eos_token_id": 2,
    }


def _legacy(size: Size) -> Config:
    return {
        "architectures": ["GPT2LMHeadModel"],
        "model_type": "gpt2",
        "vocab_size": size.vocab,
        "n_embd": size.hidden,
        "n_layer": size.layers,
        "n_head": size.heads,
        "n_positions": 2048,
        "eos_token_id": 2,
    }


# the first is what others are compared with
FAMILIES: Mapping[str, Callable[[Size], Config]] = {
    "dense": _dense,
    "experts": _mixture,
    "latent": _latent,
    "mamba": _selective,
    "mamba2": _scan,
    "delta": _delta,
    "conv": _convolved,
    "rglru": _recurrent,
    "cross": _crossed,
    "gpt2": _legacy,
}


@dataclass(frozen=True)
class Count:
    """Parameters of one model, and what a step of it moves."""

    total: int
    active: int
    moved: int


def count(config: ModelConfig, leaves: Iterable[Leaf], rows: int) -> Count:
    """The parameters of a model of these leaves, and what a step of `rows` tokens moves."""
    mixture = config.mixture
    taken = mixture.per_token / mixture.num_experts if mixture else 1.0
    total, active, read = 0, 0.0, 0.0
    for leaf in leaves:
        size = math.prod(leaf.shape)
        total += size
        if _looked_up(leaf, config) or _encodes(leaf):
            continue
        routed = "expert" in leaf.axes
        active += size * taken if routed else size
        read += size * (1 - (1 - taken) ** rows) if routed else size
    return Count(total, round(active), round(read) + 2 * rows * _state_size(config))


def _state_size(config: ModelConfig) -> int:
    """Numbers that a row keeps beside its pages."""
    mixer, layers = config.mixer, sum(kind.mixer for kind in config.layer_kinds)
    if mixer is None:
        return 0
    return layers * (math.prod(mixer.scan or (0,)) + (mixer.conv_width - 1) * mixer.conv_channels)


def _looked_up(leaf: Leaf, config: ModelConfig) -> bool:
    """Whether only a row of it for each token is read."""
    tables = {"position_embedding"} if config.tied_head else {"position_embedding", "embedding"}
    return not tables.isdisjoint(leaf.paths)


def _encodes(leaf: Leaf) -> bool:
    """Whether it is used when a request begins, and in no step."""
    return all(path.startswith("encoder.") or ".cross.kv." in path for path in leaf.paths)
