"""A random Whisper whose windows are of two seconds, and files for it."""

import io
import json
from pathlib import Path

import numpy as np
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers

FRAMES, MELS = 200, 16
SPECIAL = (
    "endoftext", "startoftranscript", "en", "de", "translate", "transcribe", "startoflm",
    "startofprev", "nospeech", "notimestamps",
)  # fmt: skip
TIMES = FRAMES // 2 + 1


def write_speech_model(folder: Path) -> None:
    """config.json, generation_config.json and a tokenizer of bytes; no weights."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokenizer = Tokenizer(models.BPE({letter: i for i, letter in enumerate(alphabet)}, []))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens([AddedToken(f"<|{name}|>") for name in SPECIAL])
    tokenizer.add_tokens([AddedToken(f"<|{0.02 * i:.2f}|>") for i in range(TIMES)])
    tokenizer.save(str(folder / "tokenizer.json"))
    config = {
        "architectures": ["WhisperForConditionalGeneration"], "model_type": "whisper",
        "vocab_size": 256 + len(SPECIAL) + TIMES, "num_mel_bins": MELS, "d_model": 32,
        "encoder_layers": 1, "decoder_layers": 2, "encoder_attention_heads": 4,
        "decoder_attention_heads": 4, "encoder_ffn_dim": 48, "decoder_ffn_dim": 48,
        "max_source_positions": FRAMES // 2, "max_target_positions": 64,
        "eos_token_id": 256, "decoder_start_token_id": 257, "bos_token_id": 256,
    }  # fmt: skip
    (folder / "config.json").write_text(json.dumps(config))
    generation = {
        "suppress_tokens": [65, 257, 262], "is_multilingual": True,
        "alignment_heads": [[0, 1], [1, 2]],
    }  # fmt: skip
    (folder / "generation_config.json").write_text(json.dumps(generation))


def tone(seconds: float, rate: int = 16_000, channels: int = 1) -> np.ndarray:
    """A rising tone, float32 [samples, channels]."""
    time = np.arange(round(seconds * rate)) / rate
    wave = 0.4 * np.sin(2 * np.pi * (300 + 200 * time) * time)
    return np.repeat(wave[:, None], channels, axis=1).astype(np.float32)


def file_of(samples: np.ndarray, rate: int = 16_000, kind: str = "WAV") -> bytes:
    """The samples in a file of that format."""
    import soundfile

    target = io.BytesIO()
    soundfile.write(target, samples, rate, format=kind)
    return target.getvalue()
