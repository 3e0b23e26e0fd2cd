"""Tiny models with an encoder that are compared with transformers, and what their encoders read."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from tests.parity.case import Case
from tests.parity.weights import Spread, normal

FOLDER = Path(__file__).parent / "encdec_goldens"
ENCODED = 41  # tokens: more than the distances that have buckets of their own


def encoder_prompt(case: Case) -> list[int]:
    """What the encoder of a case reads."""
    vocab = case.config["vocab_size"]
    return [(3 + case.seed + 11 * i + 5 * i * i) % vocab for i in range(ENCODED)]


def spectrogram(case: Case) -> np.ndarray:
    """What the encoder of a case reads that hears: float32 [frames, mels]."""
    frames, mels = 2 * case.config["max_source_positions"], case.config["num_mel_bins"]
    return normal(case.seed, "spectrogram", (frames, mels)).astype(np.float32)


def _bart(**changes: Any) -> dict[str, Any]:
    return {
        "architectures": ["BartForConditionalGeneration"],
        "model_type": "bart",
        "vocab_size": 67,
        "d_model": 40,
        "encoder_layers": 2,
        "decoder_layers": 3,
        "encoder_attention_heads": 5,
        "decoder_attention_heads": 4,
        "encoder_ffn_dim": 48,
        "decoder_ffn_dim": 56,
        "activation_function": "gelu",
        "max_position_embeddings": 128,
        "scale_embedding": False,
        "bos_token_id": 0,
        "pad_token_id": 1,
        "eos_token_id": 2,
        "decoder_start_token_id": 2,
        "forced_bos_token_id": 0,
        "is_encoder_decoder": True,
        **changes,
    }


def _t5(**changes: Any) -> dict[str, Any]:
    return {
        "architectures": ["T5ForConditionalGeneration"],
        "model_type": "t5",
        "vocab_size": 67,
        "d_model": 40,
        "d_kv": 12,
        "d_ff": 56,
        "num_layers": 2,
        "num_decoder_layers": 3,
        "num_heads": 4,
        "relative_attention_num_buckets": 32,
        "relative_attention_max_distance": 128,
        "feed_forward_proj": "relu",
        "layer_norm_epsilon": 1e-6,
        "n_positions": 128,
        "decoder_start_token_id": 0,
        "pad_token_id": 0,
        "eos_token_id": 1,
        "is_encoder_decoder": True,
        **changes,
    }


def _whisper(**changes: Any) -> dict[str, Any]:
    return {
        "architectures": ["WhisperForConditionalGeneration"],
        "model_type": "whisper",
        "vocab_size": 67,
        "num_mel_bins": 6,
        "d_model": 40,
        "encoder_layers": 2,
        "decoder_layers": 3,
        "encoder_attention_heads": 5,
        "decoder_attention_heads": 4,
        "encoder_ffn_dim": 48,
        "decoder_ffn_dim": 56,
        "activation_function": "gelu",
        "max_source_positions": 41,
        "max_target_positions": 128,
        "scale_embedding": False,
        "bos_token_id": 0,
        "pad_token_id": 0,
        "eos_token_id": 0,
        "decoder_start_token_id": 1,
        "suppress_tokens": None,
        "begin_suppress_tokens": None,
        "is_encoder_decoder": True,
        **changes,
    }


_MBART = {"architectures": ["MBartForConditionalGeneration"], "model_type": "mbart"}
_TIED = Spread(embedding=0.4, gain=1.6)
_BART = Spread(embedding=0.5, gain=1.0)
_WIDE = Spread(embedding=1.0, gain=2.2)

CASES: Mapping[str, Case] = {
    "bart": Case(_bart(), seed=1, spread=_BART),
    "mbart": Case(
        _bart(**_MBART, scale_embedding=True, activation_function="relu"), seed=4, spread=_WIDE
    ),
    "whisper": Case(_whisper(), seed=3, spread=_BART),
    "t5": Case(_t5(), seed=1, spread=_TIED),
    "t5_gated_silu": Case(  # as UL2
        _t5(
            d_kv=10, d_ff=48, feed_forward_proj="gated-silu", tie_word_embeddings=False,
            num_layers=1, num_decoder_layers=2,
        ),
        seed=1,
    ),
    "mt5": Case(  # as T5 1.1 and FLAN-T5
        _t5(
            architectures=["MT5ForConditionalGeneration"], model_type="mt5",
            feed_forward_proj="gated-gelu", tie_word_embeddings=False, num_decoder_layers=2,
            relative_attention_num_buckets=12, relative_attention_max_distance=50,
        ),
        seed=1,
    ),
    "umt5": Case(
        _t5(
            architectures=["UMT5ForConditionalGeneration"], model_type="umt5",
            feed_forward_proj="gated-gelu", relative_attention_num_buckets=12,
            relative_attention_max_distance=50,
        ),
        seed=1, spread=Spread(embedding=0.4),  # float32 differs from float64 by 1e-4 with more
    ),
}  # fmt: skip
