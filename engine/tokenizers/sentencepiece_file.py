"""A `tokenizer.model` of SentencePiece, as a `tokenizers` backend.

    pieces            texts, scores, types; a piece's place is its id
    trainer_spec      unigram or BPE, bytes for unknown letters, ids of <unk>, <s>, </s>
    normalizer_spec   a table of replacements ("①" -> "1"), spaces

Owns the message and which id a piece has in each class of tokenizer: XLM-R moves them by one, and
some others in ways of their own, so a class that is not known is refused. What is not read is also
refused: it would give other ids.
Source: sentencepiece_model.proto; transformers' tokenizers of the same names; tokenization_*.py of
chatglm3-6b, internlm2-chat-7b and Baichuan2-7B-Chat.
"""

import struct
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from tokenizers import AddedToken, models, normalizers, processors
from tokenizers import Tokenizer as Backend

from engine.tokenizers.protobuf import read_fields
from engine.tokenizers.sentencepiece import (
    CONTROL,
    NORMAL,
    SPACE,
    UNUSED,
    USER_DEFINED,
    Prefix,
    mark_spaces,
    merges_of_scores,
    scores_in_texts,
    single_spaces,
)
from engine.tokenizers.vocabulary_file import VocabularyFile, tokenizer_class
from models.errors import CheckpointError, UnsupportedError

UNIGRAM, BPE = 1, 2
T5_EXTRA_IDS = 100
MAX_PIECES = 2**21
_BOS = {"add_bos_token": True, "add_eos_token": False}
_EOS = {"add_bos_token": False, "add_eos_token": True}
_XLMR_FIRST = ("<s>", "<pad>", "</s>", "<unk>")  # in the place of "<unk>", "<s>", "</s>"
_XLMR_ROLES = {
    "unk_token": "<unk>", "bos_token": "<s>", "eos_token": "</s>", "pad_token": "<pad>",
    "cls_token": "<s>", "sep_token": "</s>", "mask_token": "<mask>",
}  # fmt: skip
_ROLES = {40: "unk_token", 41: "bos_token", 42: "eos_token", 43: "pad_token"}

_CHATGLM_NAMES = (
    "[MASK]", "[gMASK]", "[sMASK]", "sop", "eop",
    "<|system|>", "<|user|>", "<|assistant|>", "<|observation|>",
)  # fmt: skip
_CHATGLM_BEFORE = ("[gMASK]", "sop")

LLAMA, T5, XLMR, CHATGLM = "llama", "t5", "xlm-r", "chatglm"
CLASSES: Mapping[object, str] = {
    None: LLAMA,
    **dict.fromkeys(
        ("LlamaTokenizer", "CodeLlamaTokenizer", "GemmaTokenizer", "InternLMTokenizer",
         "InternLM2Tokenizer", "InternLM3Tokenizer", "BaichuanTokenizer", "OrionTokenizer",
         "YiTokenizer", "PreTrainedTokenizer"), LLAMA),
    **dict.fromkeys(("T5Tokenizer", "MT5Tokenizer"), T5),
    "XLMRobertaTokenizer": XLMR,
    "ChatGLMTokenizer": CHATGLM,
}  # fmt: skip
"""`tokenizer_class`, without its `Fast`, to how its pieces are numbered."""


@dataclass(slots=True)
class _Model:
    """What the message says; numbers as the .proto has them where it is silent."""

    pieces: list[str] = field(default_factory=list)
    scores: list[float] = field(default_factory=list)
    types: list[int] = field(default_factory=list)
    trainer: dict[int, Any] = field(
        default_factory=lambda: {3: UNIGRAM, 24: 0, 35: 0, 40: 0, 41: 1, 42: 2, 43: -1}
    )
    normalizer: dict[int, Any] = field(default_factory=lambda: {2: b"", 3: 1, 4: 1, 5: 1})


def read_sentencepiece(
    path: Path, config: Mapping[str, Any], named: Mapping[int, AddedToken]
) -> VocabularyFile:
    """Args:
        config: `tokenizer_config.json`.
        named: the tokens that the files beside it add, by id.

    Raises:
        CheckpointError: the file is malformed.
        UnsupportedError: it is of a kind that is not read.
    """
    name = tokenizer_class(config)
    if name not in CLASSES:
        raise UnsupportedError(
            f"How a {str(name)[:60]} numbers the pieces of {path} is not known; save the tokenizer "
            "as tokenizer.json, with transformers' save_pretrained."
        )
    try:
        model = _parse(path.read_bytes())
        _check(model, path)
        return _assembled(model, CLASSES[name], config, named)
    except (CheckpointError, UnsupportedError):
        raise
    except OSError as error:
        raise CheckpointError(f"Cannot read {path}: {error.strerror}.") from None
    except Exception as error:  # the Rust library raises nothing more precise
        raise CheckpointError(f"{path} is not a SentencePiece model: {error}.") from None


def _parse(data: bytes) -> _Model:
    model = _Model()
    for number, value in read_fields(data):
        if number not in (1, 2, 3):
            continue
        if not isinstance(value, bytes):
            raise ValueError(f"field {number} is no message")
        if len(model.pieces) > MAX_PIECES:
            raise ValueError(f"it has over {MAX_PIECES} pieces")
        if number == 1:
            piece: dict[int, Any] = {1: b"", 2: bytes(4), 3: NORMAL} | dict(read_fields(value))
            model.pieces.append(piece[1].decode())
            model.scores.append(struct.unpack("<f", piece[2])[0])
            model.types.append(piece[3])
        else:
            into = model.trainer if number == 2 else model.normalizer
            known = dict(read_fields(value))
            into |= {key: known[key] for key in into if key in known}
    for key in _ROLES:
        model.trainer[key] -= 2**64 if model.trainer[key] >= 2**63 else 0
    return model


def _check(model: _Model, path: Path) -> None:
    if not model.pieces or len(set(model.pieces)) != len(model.pieces):
        raise CheckpointError(f"{path} has no pieces, or one of them twice.")
    if not 0 <= model.trainer[40] < len(model.pieces):
        raise CheckpointError(f"{path} has no piece for what is unknown.")
    if not np.isfinite(model.scores).all():
        raise CheckpointError(f"{path} has a score that is no finite number.")
    for what, unread in (
        ("words or letters", model.trainer[3] not in (UNIGRAM, BPE)),
        ("spaces behind words", model.trainer[24]),
        ("spaces that are left as they are", not model.normalizer[5]),
        ("pieces that are not in use", model.trainer[3] == UNIGRAM and UNUSED in model.types),
    ):
        if unread:
            raise UnsupportedError(
                f"{path} is a SentencePiece model of {what}, which is not supported; save the "
                "tokenizer as tokenizer.json."
            )


def _assembled(
    model: _Model, numbering: str, config: Mapping[str, Any], named: Mapping[int, AddedToken]
) -> VocabularyFile:
    if numbering == XLMR:
        _renumber(model)
    _rename(model, named)
    special = (
        _XLMR_ROLES
        if numbering == XLMR
        else {
            role: model.pieces[model.trainer[key]]
            for key, role in _ROLES.items()
            if 0 <= model.trainer[key] < len(model.pieces)
        }
    )
    backend = Backend(_tokens(model, special["unk_token"]))
    prefix = _prefix(model, config)
    clean: list[normalizers.Normalizer] = []
    if model.normalizer[2]:
        check_replacements(model.normalizer[2])
        clean.append(normalizers.Precompiled(model.normalizer[2]))
    if model.normalizer[4]:
        clean.append(single_spaces())
    unigram = model.trainer[3] == UNIGRAM
    split = unigram and not any(SPACE in piece[1:] for piece in model.pieces)
    mark_spaces(backend, prefix, before=clean, split=split)
    added = _added(model, whole=prefix == "never")
    return _with_own_tokens(VocabularyFile(backend, added, special), numbering, model, config)


def check_replacements(table: bytes) -> None:
    """Raise ValueError where the trie or its texts are left; the Rust library does not look.

    A size, units of a double array (darts-clone), and the texts, each ending in a zero.
    """
    size = int.from_bytes(table[:4], "little")
    if size % 4 or not 4 <= size <= len(table) - 4:
        raise ValueError("its table of replacements is cut off")
    units = np.frombuffer(table, "<u4", size // 4, 4).astype(np.int64)
    texts = np.frombuffer(table[4 + size :] + b"\0", np.uint8)
    nodes = np.flatnonzero(units < 2**31)  # the others are places in the texts
    found = units[nodes]
    bases = nodes ^ ((found >> 10) << ((found & 512) >> 6))
    if ((bases | 255) >= len(units)).any():
        raise ValueError("its table of replacements leads out of itself")
    places = units[bases[(found & 256) > 0]] & 0x7FFFFFFF
    if (places >= len(texts)).any() or ((texts[places] & 0xC0) == 0x80).any():
        raise ValueError("its table of replacements names a text that is not there")


def _with_own_tokens(
    made: VocabularyFile, numbering: str, model: _Model, config: Mapping[str, Any]
) -> VocabularyFile:
    """Tokens that are no pieces, and those that go around a text."""
    size, added, around = len(model.pieces), dict(made.added), dict(_BOS)
    if numbering == XLMR:
        around = {}
        added[size - 1] = AddedToken("<mask>", lstrip=True, special=True)
        made.backend.post_processor = processors.RobertaProcessing(
            ("</s>", 2), ("<s>", 0), trim_offsets=False, add_prefix_space=False
        )
    elif numbering == T5:
        around = dict(_EOS)
        added |= _extra_ids(size, config)
    elif numbering == CHATGLM:
        around = {}
        ids = {name: size + place for place, name in enumerate(_CHATGLM_NAMES)}
        # "sop" is a token by itself, and none within "soprano"
        added |= {
            one: AddedToken(name, special=True, normalized=False, single_word=name.isalpha())
            for name, one in ids.items()
        }
        made.backend.post_processor = processors.TemplateProcessing(
            single=[*_CHATGLM_BEFORE, "$A"],
            special_tokens=[(name, ids[name]) for name in _CHATGLM_BEFORE],
        )
    return VocabularyFile(made.backend, added, {**around, **made.config})


def _renumber(model: _Model) -> None:
    """Fairseq's ids: four of its own, the pieces but for their first three, and <mask>."""
    model.pieces = [*_XLMR_FIRST, *model.pieces[3:], "<mask>"]
    model.scores = [*([0.0] * 4), *model.scores[3:], 0.0]
    model.types = [*([CONTROL] * 4), *model.types[3:], CONTROL]


def _rename(model: _Model, named: Mapping[int, AddedToken]) -> None:
    """InternLM2 calls its "[UNUSED_TOKEN_146]" "<|im_start|>" in tokenizer_config.json."""
    known = set(model.pieces)
    for one, token in named.items():
        if one < len(model.pieces) and token.content not in known:
            known -= {model.pieces[one]}
            known.add(token.content)
            model.pieces[one], model.types[one] = token.content, CONTROL


def _tokens(model: _Model, unknown: str) -> models.Model:
    fallback = bool(model.trainer[35])
    if model.trainer[3] == UNIGRAM:
        scored = list(zip(model.pieces, scores_in_texts(model.scores, model.types), strict=True))
        return models.Unigram(scored, model.pieces.index(unknown), fallback)
    types = np.array(model.types)
    joined = np.flatnonzero((types == NORMAL) | (types == USER_DEFINED)).tolist()
    return models.BPE(
        {piece: place for place, piece in enumerate(model.pieces)},
        merges_of_scores(model.pieces, joined, np.array(model.scores)),
        unk_token=unknown,
        fuse_unk=True,
        byte_fallback=fallback,
    )


def _prefix(model: _Model, config: Mapping[str, Any]) -> Prefix:
    """`legacy` false is transformers' name for a "▁" before the first text only."""
    wanted = config.get("add_prefix_space")
    if not (model.normalizer[3] if wanted is None else wanted):
        return "never"
    return "first" if config.get("legacy") is False else "always"


def _added(model: _Model, *, whole: bool) -> dict[int, AddedToken]:
    """Pieces that are found in a text as they are written, by id.

    Args:
        whole: whether nothing goes before a text, so that they are found among "▁" too.
    """
    return {
        place: AddedToken(
            model.pieces[place],
            special=kind == CONTROL,
            normalized=whole and kind == USER_DEFINED,
        )
        for place, kind in enumerate(model.types)
        if kind in (CONTROL, USER_DEFINED) and model.pieces[place]
    }


def _extra_ids(first: int, config: Mapping[str, Any]) -> dict[int, AddedToken]:
    """T5's sentinels, the last of which comes first."""
    count = config.get("extra_ids", T5_EXTRA_IDS)
    if not isinstance(count, int) or not 0 <= count <= 10_000:
        raise CheckpointError("extra_ids in tokenizer_config.json must be a number up to 10000.")
    return {
        first + place: AddedToken(f"<extra_id_{count - 1 - place}>", special=True, normalized=False)
        for place in range(count)
    }
