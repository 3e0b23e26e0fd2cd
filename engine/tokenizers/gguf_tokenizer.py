"""The tokenizer that a GGUF file holds, as a `tokenizers` backend.

    tokenizer.ggml.model   gpt2: byte-level BPE, with merges and `tokenizer.ggml.pre`, which names
                           how a text is split into words
                           llama: SentencePiece's BPE, whose merges follow from scores
                           gemma4: the same with merges, as Gemma 4's tokenizer.json has it
                           bert, t5: `gguf_pieces.py`'s
    tokenizer.chat_template, tokenizer.chat_template.<name>

Owns the keys and their checks. What is the same for files of Hugging Face is `tokenizer_files`'s.
Source: `Keys.Tokenizer` of the package gguf; llama.cpp's `llama-vocab.cpp`.
"""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from tokenizers import AddedToken, decoders, models
from tokenizers import Tokenizer as Backend

from engine.tokenizers.gguf_pieces import (
    as_in_vocab_txt,
    read_unigram,
    read_word_pieces,
    surround_pairs,
)
from engine.tokenizers.gguf_words import FIRST, WORDS, Words, split_words
from engine.tokenizers.sentencepiece import (
    CONTROL,
    NORMAL,
    USER_DEFINED,
    mark_spaces,
    merges_of_scores,
)
from engine.tokenizers.tokenizer_files import TokenizerFiles, surround
from models.config.fields import Fields
from models.errors import CheckpointError, UnsupportedError
from models.gguf.checkpoint import read_gguf_metadata

ROLES = {
    "bos": "bos_token", "eos": "eos_token", "unknown": "unk_token", "padding": "pad_token",
    "cls": "cls_token", "seperator": "sep_token", "mask": "mask_token",
}  # fmt: skip
BERT_ROLES = {"unk_token": "[UNK]", "cls_token": "[CLS]", "sep_token": "[SEP]"}
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
    kind = fields.option("tokenizer.ggml.model", _BUILD)
    tokens = _texts(fields, "tokenizer.ggml.tokens")
    types = _numbers(fields, "tokenizer.ggml.token_type", len(tokens), NORMAL)
    if kind == "bert":
        tokens = as_in_vocab_txt(tokens, types)
    vocabulary = {token: place for place, token in enumerate(tokens)}
    if not tokens or len(vocabulary) != len(tokens):
        raise CheckpointError(f"{path}: tokenizer.ggml.tokens is empty or names a token twice.")
    try:
        backend = _BUILD[kind](fields, tokens, vocabulary, types)
    except (CheckpointError, UnsupportedError):
        raise
    except Exception as error:  # the Rust library raises nothing more precise
        raise CheckpointError(f"{path} does not hold a vocabulary: {error}.") from None
    special = _special(fields, tokens)
    if kind == "bert":
        special = _bert_roles(special)
    backend.add_tokens(_added(tokens, types, special if kind != "bert" else {}))
    _surround(backend, fields, kind, special)
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
    words = WORDS[fields.option("tokenizer.ggml.pre", WORDS, _default_words(fields))]
    backend = Backend(models.BPE(vocabulary, _merges(fields), ignore_merges=words.whole))
    split_words(backend, words)
    backend.decoder = decoders.ByteLevel()
    return backend


def _default_words(fields: Fields) -> str:
    return FIRST.get(fields.text("general.architecture", ""), "default")


def _merges(fields: Fields) -> list[tuple[str, str]]:
    torn = (merge.partition(" ") for merge in _texts(fields, "tokenizer.ggml.merges"))
    return [(first, second) for first, _, second in torn]


def _sentencepiece(
    fields: Fields, tokens: list[str], vocabulary: dict[str, int], types: np.ndarray
) -> Backend:
    scores = _numbers(fields, "tokenizer.ggml.scores", len(tokens), 0).astype(np.float64)
    merges = merges_of_scores(tokens, np.flatnonzero(types == NORMAL).tolist(), scores)
    return _in_one(fields, tokens, vocabulary, merges)


def _merged(
    fields: Fields, tokens: list[str], vocabulary: dict[str, int], types: np.ndarray
) -> Backend:
    return _in_one(fields, tokens, vocabulary, _merges(fields))


def _in_one(
    fields: Fields,
    tokens: list[str],
    vocabulary: dict[str, int],
    merges: list[tuple[str, str]],
) -> Backend:
    """Of texts that are not split into words, with marks for their spaces."""
    unknown = fields.token_ids("tokenizer.ggml.unknown_token_id")
    model = models.BPE(
        vocab=vocabulary,
        merges=merges,
        unk_token=tokens[unknown[0]] if unknown and unknown[0] < len(tokens) else None,
        fuse_unk=True,
        byte_fallback=True,
    )
    backend = Backend(model)
    prefix = fields.flag("tokenizer.ggml.add_space_prefix", True)
    mark_spaces(backend, "always" if prefix else "never")
    return backend


def _word_pieces(
    fields: Fields, tokens: list[str], vocabulary: dict[str, int], types: np.ndarray
) -> Backend:
    special = _bert_roles(_special(fields, tokens))
    if missing := sorted({special[role] for role in BERT_ROLES} - vocabulary.keys()):
        raise CheckpointError(f"{fields.where} has no {missing[0]} in its vocabulary.")
    backend = read_word_pieces(fields, vocabulary, special["unk_token"])
    names = sorted(text for text in special.values())
    backend.add_special_tokens([AddedToken(one, normalized=False) for one in names])
    return backend


def _unigram(
    fields: Fields, tokens: list[str], vocabulary: dict[str, int], types: np.ndarray
) -> Backend:
    scores = _numbers(fields, "tokenizer.ggml.scores", len(tokens), 0).astype(np.float64)
    unknown = _special(fields, tokens).get("unk_token", "<unk>")
    if unknown not in vocabulary:
        raise CheckpointError(f"{fields.where} has no token for what is unknown.")
    backend = read_unigram(fields, tokens, types, scores, unknown)
    backend.add_special_tokens([AddedToken(unknown, special=True, normalized=False)])
    return backend


_BUILD: Mapping[str, Callable[[Fields, list[str], dict[str, int], np.ndarray], Backend]] = {
    "gpt2": _byte_level,
    "llama": _sentencepiece,
    "gemma4": _merged,
    "bert": _word_pieces,
    "t5": _unigram,
}


def _added(tokens: list[str], types: np.ndarray, special: Mapping[str, str]) -> list[AddedToken]:
    """Tokens that are found in a text as they are written, and of which some are special.

    A mask takes the space in front of it, but for BERT's.
    """
    mask = special.get("mask_token")
    return [
        AddedToken(
            tokens[place],
            special=bool(types[place] == CONTROL),
            normalized=False,
            lstrip=tokens[place] == mask,
        )
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


def _bert_roles(special: Mapping[str, str]) -> dict[str, str]:
    """BERT's, of which the first files do not name all; others call [CLS] BOS."""
    named = {"cls_token": special["bos_token"]} if "bos_token" in special else {}
    return BERT_ROLES | named | dict(special)


def _surround(backend: Backend, fields: Fields, kind: str, special: dict[str, str]) -> None:
    words = WORDS.get(fields.text("tokenizer.ggml.pre", _default_words(fields)), Words())
    around = _around(fields, kind, words)
    if kind == "bert":
        surround_pairs(backend, (special["cls_token"], special["sep_token"]), 1, typed=True)
    elif kind == "t5" or words.between:
        bos, eos = (
            special.get(role) if around[f"add_{role}"] else None
            for role in ("bos_token", "eos_token")
        )
        surround_pairs(backend, (bos, eos), words.between or (2 if bos else 1))
    else:
        surround(backend, around, special)


def _around(fields: Fields, kind: str, words: Words) -> dict[str, bool]:
    """Whether BOS and EOS go around a text, where no key says it as llama.cpp has it."""
    bos, eos = kind in ("llama", "gemma4") or words.bos, kind == "t5" or words.between > 0
    return {
        f"add_{role}_token": fields.flag(f"tokenizer.ggml.add_{role}_token", default)
        for role, default in (("bos", bos), ("eos", eos))
    }


def _templates(fields: Fields) -> dict[str, str]:
    keys = [key for key in fields.raw if key.startswith(f"{TEMPLATE}.")]
    found = {key.removeprefix(f"{TEMPLATE}."): fields.text(key) for key in keys}
    return found | ({"default": fields.text(TEMPLATE)} if TEMPLATE in fields else {})
