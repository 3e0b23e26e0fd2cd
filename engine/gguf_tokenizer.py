"""The tokenizer that a GGUF file holds, as a `tokenizers` backend.

    tokenizer.ggml.model   gpt2: byte-level BPE, with merges and `tokenizer.ggml.pre`, which names
                           how a text is split into words
                           llama: SentencePiece's BPE, whose merges follow from scores
    tokenizer.chat_template, tokenizer.chat_template.<name>

Owns the keys and their checks. What is the same for files of Hugging Face is `tokenizer_files`'s.
Source: `Keys.Tokenizer` of the package gguf; llama.cpp's `llama-vocab.cpp`.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from tokenizers import AddedToken, decoders, models
from tokenizers import Tokenizer as Backend

from engine.gguf_words import WORDS, Words, split_words
from engine.sentencepiece import CONTROL, NORMAL, USER_DEFINED, mark_spaces, merges_of_scores
from engine.tokenizer_files import TokenizerFiles, surround
from models.errors import CheckpointError, UnsupportedError
from models.fields import Fields
from models.gguf.checkpoint import read_gguf_metadata

ROLES = {"bos": "bos_token", "eos": "eos_token", "unknown": "unk_token", "padding": "pad_token"}
TEMPLATE = "tokenizer.chat_template"

Metadata = Mapping[str, Any]


def read_gguf_tokenizer(path: Path) -> TokenizerFiles | None:
    """None when the file has no tokenizer.

    Raises:
        CheckpointError: what it has is malformed.
        UnsupportedError: it is of a kind that is not read.
    """
    fields = Fields(read_gguf_metadata(path), str(path))
    if "tokenizer.ggml.model" not in fields:
        return None
    kind = fields.option("tokenizer.ggml.model", ("gpt2", "llama"))
    tokens = _texts(fields, "tokenizer.ggml.tokens")
    vocabulary = {token: place for place, token in enumerate(tokens)}
    if not tokens or len(vocabulary) != len(tokens):
        raise CheckpointError(f"{path}: tokenizer.ggml.tokens is empty or names a token twice.")
    types = _numbers(fields, "tokenizer.ggml.token_type", len(tokens), NORMAL)
    build = _byte_level if kind == "gpt2" else _sentencepiece
    try:
        backend = build(fields, tokens, vocabulary, types)
    except (CheckpointError, UnsupportedError):
        raise
    except Exception as error:  # the Rust library raises nothing more precise
        raise CheckpointError(f"{path} does not hold a vocabulary: {error}.") from None
    backend.add_tokens(_added(tokens, types))
    special = _special(fields, tokens)
    surround(backend, _around(fields, kind), special)
    return TokenizerFiles(backend, special, _templates(fields))


def _texts(fields: Fields, key: str) -> list[str]:
    values = fields.raw.get(key, [])
    if not isinstance(values, list):
        raise CheckpointError(f"{fields.where}: {key} must be a list of strings.")
    return values


def _numbers(fields: Fields, key: str, count: int, default: int) -> np.ndarray:
    values = fields.raw.get(key, np.full(count, default))
    if not isinstance(values, np.ndarray) or len(values) != count:
        raise CheckpointError(f"{fields.where}: {key} must be {count} numbers, one for each token.")
    return values


def _byte_level(
    fields: Fields, tokens: list[str], vocabulary: dict[str, int], types: np.ndarray
) -> Backend:
    words = WORDS[fields.option("tokenizer.ggml.pre", WORDS, "default")]
    torn = (merge.partition(" ") for merge in _texts(fields, "tokenizer.ggml.merges"))
    merges = [(first, second) for first, _, second in torn]
    backend = Backend(models.BPE(vocabulary, merges, ignore_merges=words.whole))
    split_words(backend, words)
    backend.decoder = decoders.ByteLevel()
    return backend


def _sentencepiece(
    fields: Fields, tokens: list[str], vocabulary: dict[str, int], types: np.ndarray
) -> Backend:
    scores = _numbers(fields, "tokenizer.ggml.scores", len(tokens), 0).astype(np.float64)
    unknown = fields.token_ids("tokenizer.ggml.unknown_token_id")
    model = models.BPE(
        vocab=vocabulary,
        merges=merges_of_scores(tokens, np.flatnonzero(types == NORMAL).tolist(), scores),
        unk_token=tokens[unknown[0]] if unknown and unknown[0] < len(tokens) else None,
        fuse_unk=True,
        byte_fallback=True,
    )
    backend = Backend(model)
    prefix = fields.flag("tokenizer.ggml.add_space_prefix", True)
    mark_spaces(backend, "always" if prefix else "never")
    return backend


def _added(tokens: list[str], types: np.ndarray) -> list[AddedToken]:
    """Tokens that are found in a text as they are written, and of which some are special."""
    return [
        AddedToken(tokens[place], special=bool(types[place] == CONTROL), normalized=False)
        for place in np.flatnonzero((types == CONTROL) | (types == USER_DEFINED))
        if tokens[place]
    ]


def _special(fields: Fields, tokens: list[str]) -> dict[str, str]:
    special: dict[str, str] = {}
    for theirs, role in ROLES.items():
        for one in fields.token_ids(f"tokenizer.ggml.{theirs}_token_id"):
            if one >= len(tokens):
                raise CheckpointError(
                    f"{fields.where}: tokenizer.ggml.{theirs}_token_id is {one}, and the last "
                    f"token is {len(tokens) - 1}."
                )
            special[role] = tokens[one]
    return special


def _around(fields: Fields, kind: str) -> dict[str, bool]:
    """Whether BOS and EOS go around a text, where no key says it as llama.cpp has it."""
    words = WORDS.get(fields.text("tokenizer.ggml.pre", "default"), Words())
    bos = kind == "llama" or words.bos
    return {
        f"add_{role}_token": fields.flag(f"tokenizer.ggml.add_{role}_token", default)
        for role, default in (("bos", bos), ("eos", False))
    }


def _templates(fields: Fields) -> dict[str, str]:
    keys = [key for key in fields.raw if key.startswith(f"{TEMPLATE}.")]
    found = {key.removeprefix(f"{TEMPLATE}."): fields.text(key) for key in keys}
    return found | ({"default": fields.text(TEMPLATE)} if TEMPLATE in fields else {})
