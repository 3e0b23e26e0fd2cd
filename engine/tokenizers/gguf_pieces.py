"""Vocabularies of GGUF files that encoders have, as `tokenizers` backends.

    bert   WordPiece   "▁walk" begins a word, "ing" goes on in one: "walk" and "##ing" of vocab.txt
    t5     unigram     "▁walk" and the logarithm of its probability; a table of replacements

Owns these two, and what goes around texts and between two of them. Which keys there are besides is
`gguf_tokenizer.py`'s.
Source: llama.cpp's `conversion/bert.py` and `llama-vocab.cpp`; the tokenizer.json of the models.
"""

from collections.abc import Mapping, Sequence

import numpy as np
from tokenizers import Tokenizer as Backend
from tokenizers import models, normalizers, processors

from engine.tokenizers.sentencepiece import (
    BYTE,
    CONTROL,
    SPACE,
    mark_spaces,
    scores_in_texts,
    single_spaces,
)
from engine.tokenizers.sentencepiece_file import check_replacements
from engine.tokenizers.wordpiece_file import word_pieces
from models.config.fields import Fields
from models.errors import CheckpointError

CASED = 0.01  # of the tokens have capitals, which texts in small letters would never meet
MAX_TABLE = 2**26  # bytes


def as_in_vocab_txt(tokens: Sequence[str], types: np.ndarray) -> list[str]:
    """ "▁walk", "ing" and the control token "[CLS]" as "walk", "##ing" and "[CLS]"."""
    return [
        token
        if kind == CONTROL or (token.startswith("[") and token.endswith("]"))  # "[unused0]"
        else token[1:]
        if token.startswith(SPACE)
        else f"##{token}"
        for token, kind in zip(tokens, types.tolist(), strict=True)
    ]


def read_word_pieces(fields: Fields, vocabulary: Mapping[str, int], unknown: str) -> Backend:
    """A BERT's, whose names are as vocab.txt has them; first files do not say its letters."""
    capitals = sum(not word.startswith("[") and word != word.lower() for word in vocabulary)
    small = capitals < CASED * len(vocabulary)
    lowercase = fields.flag("tokenizer.ggml.normalizer.lowercase", small)
    strip = fields.flag("tokenizer.ggml.normalizer.strip_accents", lowercase)
    return word_pieces(vocabulary, unknown=unknown, lowercase=lowercase, strip_accents=strip)


def read_unigram(
    fields: Fields, tokens: Sequence[str], types: np.ndarray, scores: np.ndarray, unknown: str
) -> Backend:
    """T5's or XLM-R's; raises CheckpointError for numbers or a table that cannot be."""
    if not np.isfinite(scores).all():
        raise CheckpointError(f"{fields.where} has a score that is no finite number.")
    scored = list(zip(tokens, scores_in_texts(scores.tolist(), types.tolist()), strict=True))
    fallback = bool((types == BYTE).any())
    backend = Backend(models.Unigram(scored, tokens.index(unknown), fallback))
    clean: list[normalizers.Normalizer] = []
    if table := _table(fields):
        check_replacements(table)
        clean.append(normalizers.Precompiled(table))
    if fields.flag("tokenizer.ggml.remove_extra_whitespaces", False):
        clean.append(single_spaces())
    prefix = fields.flag("tokenizer.ggml.add_space_prefix", True)
    split = not any(SPACE in token[1:] for token in tokens)
    mark_spaces(backend, "always" if prefix else "never", before=clean, split=split)
    return backend


def surround_pairs(
    backend: Backend, around: tuple[str | None, str | None], between: int, *, typed: bool = False
) -> None:
    """Put BOS and EOS around a text, and so many EOS between two; `typed` numbers the two."""
    bos, eos = around
    first = [one for one in (bos, "$A:0") if one is not None]
    ends = [] if eos is None else [eos]
    second = int(typed)
    special = sorted({one for one in around if one is not None})
    backend.post_processor = processors.TemplateProcessing(
        single=[*first, *ends],
        pair=[*first, *(ends * between), f"$B:{second}", *(f"{one}:{second}" for one in ends)],
        special_tokens=[(name, backend.token_to_id(name)) for name in special],
    )


def _table(fields: Fields) -> bytes:
    key = "tokenizer.ggml.precompiled_charsmap"
    found = fields.raw.get(key, np.zeros(0, np.uint8))
    if not isinstance(found, np.ndarray) or found.dtype.itemsize != 1 or len(found) > MAX_TABLE:
        raise CheckpointError(f"{fields.where}: {key} must be a table of bytes.")
    return found.tobytes()
