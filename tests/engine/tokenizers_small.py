"""Small tokenizers of the kinds that models use, built in place, and those of the outside data."""

import json
from pathlib import Path

import pytest
from tokenizers import AddedToken, decoders, models, normalizers, pre_tokenizers
from tokenizers import Tokenizer as Backend

from engine.tokenizers.detokenizer import byte_letters
from engine.tokenizers.tokenizer import Tokenizer

SPECIAL = ("<s>", "</s>")
WORDS = ("Hello", "world", "Once", "stop", "é", "日本")
REAL = ("tokenizers/gpt2", "tokenizers/qwen2.5", "tokenizers/phi-3", "weights/stories260K")


def _vocabulary(pieces: list[str]) -> dict[str, int]:
    return {piece: place for place, piece in enumerate(dict.fromkeys(pieces))}


def byte_level_backend() -> Backend:
    """256 letters, a few pairs, one added token with a space that is written as it is."""
    letters = list(byte_letters().values())
    merges = [("l", "l"), ("Ġ", "w"), ("o", "r"), ("Ã", "©"), ("ð", "Ł"), ("âĤ", "¬"), ("â", "Ĥ")]
    vocabulary = _vocabulary([*SPECIAL, *letters, *(a + b for a, b in merges)])
    backend = Backend(models.BPE(vocab=vocabulary, merges=merges))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    backend.add_special_tokens([AddedToken(name, normalized=False) for name in SPECIAL])
    backend.add_tokens([AddedToken("<a b>", normalized=False)])
    return backend


def sentencepiece_backend() -> Backend:
    """Llama's: "▁" for a space, a token for each byte, one leading space dropped."""
    letters = [chr(code) for code in range(33, 127)] + ["▁", "▁▁", "é"]
    merges = [("▁", "w"), ("l", "l"), ("▁", "▁")]
    tokens = [f"<0x{byte:02X}>" for byte in range(256)]
    vocabulary = _vocabulary([*SPECIAL, "<unk>", *tokens, *letters, *(a + b for a, b in merges)])
    backend = Backend(
        models.BPE(
            vocab=vocabulary, merges=merges, unk_token="<unk>", fuse_unk=True, byte_fallback=True
        )
    )
    backend.normalizer = normalizers.Sequence(
        [normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")]
    )
    backend.decoder = decoders.Sequence(
        [
            decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(),
            decoders.Strip(" ", 1, 0),
        ]
    )  # fmt: skip
    backend.add_special_tokens([AddedToken(name, normalized=False) for name in SPECIAL])
    return backend


def metaspace_backend() -> Backend:
    """T5's and Unigram's: "▁" begins a word, none at the very start."""
    vocabulary = _vocabulary([*SPECIAL, "▁", *(f"▁{word}" for word in WORDS), *WORDS])
    backend = Backend(models.WordLevel(vocab=vocabulary, unk_token="</s>"))
    backend.pre_tokenizer = pre_tokenizers.Metaspace()
    backend.decoder = decoders.Metaspace()
    backend.add_special_tokens([AddedToken(name, normalized=False) for name in SPECIAL])
    return backend


def bare_backend() -> Backend:
    """No decoder at all: tokens are joined by spaces."""
    backend = Backend(models.WordLevel(vocab=_vocabulary([*SPECIAL, *WORDS]), unk_token="</s>"))
    backend.pre_tokenizer = pre_tokenizers.Whitespace()
    backend.add_special_tokens([AddedToken(name, normalized=False) for name in SPECIAL])
    return backend


SMALL = {
    "byte_level": byte_level_backend,
    "sentencepiece": sentencepiece_backend,
    "metaspace": metaspace_backend,
    "bare": bare_backend,
}


def save(backend: Backend, folder: Path, **config: object) -> Path:
    """A model folder with `backend` and `config` as tokenizer_config.json."""
    backend.save(str(folder / "tokenizer.json"))
    named = {"bos_token": "<s>", "eos_token": "</s>"} | config
    (folder / "tokenizer_config.json").write_text(json.dumps(named))
    return folder


def load(folder: Path) -> Tokenizer:
    tokenizer = Tokenizer.load(folder)
    assert tokenizer is not None
    return tokenizer


def load_real(shared_data: Path, name: str) -> Tokenizer:
    if not (shared_data / name).is_dir():
        pytest.skip(f"no {name} in the test data")
    return load(shared_data / name)
