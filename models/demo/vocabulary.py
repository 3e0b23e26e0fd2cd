"""The tokenizer of the demo model, and the two tokenizer files of its folder.

A byte-level BPE of 2048 tokens that can write any text. Words with a capital never carry the space
before them and digits stand alone, so a name or a number is the same tokens in a question, in JSON
and after "I am": copying is then easy even for a tiny model.
"""

import json
from collections.abc import Iterable
from pathlib import Path

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers, trainers

from models.demo.template import CHAT_TEMPLATE, END

SIZE = 2048
END_OF_TEXT = "<|endoftext|>"
SPECIAL = (END_OF_TEXT, "<|im_start|>", END)
MARKS = ("<tool_call>", "</tool_call>")  # added tokens that stay in decoded text

PIECES = "|".join(
    (
        r"'(?:s|t|re|ve|m|ll|d)(?!\p{L})",
        r" I(?!\p{L})",
        r" ?\p{Ll}+",
        r"\p{Lu}+\p{Ll}*",
        r" ?[\p{Lo}\p{Lm}\p{Lt}]+",
        r"\p{N}",
        r"[.,!?]\"? (?=\p{Lu})",
        r" ?[^\s\p{L}\p{N}]+",
        r"\s*[\r\n]+",
        r"\s+(?!\S)",
        r"\s+",
    )
)


def train_tokenizer(texts: Iterable[str]) -> Tokenizer:
    """A tokenizer whose merges are learned from `texts`; the same texts give the same tokenizer."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(PIECES), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=SIZE - len(MARKS),
        special_tokens=list(SPECIAL),
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    tokenizer.add_tokens([AddedToken(mark, special=False, normalized=False) for mark in MARKS])
    return tokenizer


def token_id(tokenizer: Tokenizer, token: str) -> int:
    """The id of a token; raises ValueError if the tokenizer has none of that name."""
    found = tokenizer.token_to_id(token)
    if found is None:
        raise ValueError(f"the tokenizer has no token {token!r}; use one of `train_tokenizer`.")
    return found


def save_tokenizer(tokenizer: Tokenizer, folder: Path) -> None:
    """Writes `tokenizer.json` and `tokenizer_config.json` (with the chat template) to `folder`."""
    tokenizer.save(str(folder / "tokenizer.json"))
    settings = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "model_max_length": 1024,
        "eos_token": END,
        "pad_token": END_OF_TEXT,
        "bos_token": None,
        "unk_token": None,
        "clean_up_tokenization_spaces": False,
        "chat_template": CHAT_TEMPLATE,
    }
    text = json.dumps(settings, indent=2, ensure_ascii=False)
    (folder / "tokenizer_config.json").write_text(text + "\n", encoding="utf-8")
