"""BERT's vocab.txt: the pieces of BERT's own algorithm, and what goes around a text."""

import json
from pathlib import Path
from typing import Any

import pytest

from engine.tokenizers.tokenizer import Tokenizer
from models.errors import CheckpointError, ModelError, UnsupportedError
from tests.engine.tokenizers_small import load

LINES = [
    "[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "cafe", "café", "un", "##aff", "##able", "ing",
    "##ing", "!", "日", "本", "\u2028", "Un",
]  # fmt: skip


def write(folder: Path, lines: list[str], **config: Any) -> Path:
    (folder / "vocab.txt").write_text("\n".join(lines) + "\n", encoding="utf-8", newline="")
    (folder / "tokenizer_config.json").write_text(json.dumps(config))
    return folder


def pieces(tokenizer: Tokenizer, text: str) -> list[str]:
    return [LINES[one] for one in tokenizer.encode(text, add_special_tokens=False)]


def test_words_are_taken_apart_from_the_left(tmp_path: Path) -> None:
    tokenizer = load(write(tmp_path, LINES))
    assert pieces(tokenizer, "Unaffable!") == ["un", "##aff", "##able", "!"]
    assert pieces(tokenizer, "CAFÉ caféing") == ["cafe", "cafe", "##ing"]
    assert pieces(tokenizer, "日本 unx [MASK]") == ["日", "本", "[UNK]", "[MASK]"]
    assert tokenizer.encode_pair("ing", "un") == ([2, 10, 3, 7, 3], [0, 0, 0, 1, 1])
    assert tokenizer.decode(tokenizer.encode("unaffable ing")) == "unaffable ing"
    assert tokenizer.special_ids == {0, 1, 2, 3, 4} and tokenizer.vocab_size == len(LINES)


def test_letters_are_left_as_they_are_where_the_folder_says_so(tmp_path: Path) -> None:
    tokenizer = load(write(tmp_path, LINES, do_lower_case=False, tokenizer_class="BertTokenizer"))
    assert pieces(tokenizer, "Un café 日本") == ["Un", "café", "日", "本"]
    whole = load(write(tmp_path, LINES, tokenize_chinese_chars=False))
    assert pieces(whole, "日本") == ["[UNK]"]


@pytest.mark.parametrize(
    ("lines", "config", "error", "message"),
    [
        (LINES, {"tokenizer_class": "MPNetTokenizer"}, UnsupportedError, "What a MPNetTokenizer"),
        (LINES, {"strip_accents": "yes"}, CheckpointError, "must be true or false"),
        (["a"], {}, CheckpointError, r"is no vocabulary of BERT: it has no \[CLS\]"),
    ],
)
def test_what_is_wrong_is_said(
    tmp_path: Path, lines: list[str], config: Any, error: type[ModelError], message: str
) -> None:
    with pytest.raises(error, match=message):
        Tokenizer.load(write(tmp_path, lines, **config))
