"""Reads the tokenizer files of a model folder into a `tokenizers` backend.

Owns the file names, their many spellings (a token is "</s>" or {"content": "</s>", ...}; chat
templates are a string, a list of named ones, or files of their own) and the checks of all of
them. Knows nothing of what is done with the tokenizer.

    tokenizer.json                   the whole tokenizer, or instead of it
    vocab.json + merges.txt          byte-level BPE, the GPT-2 way, or
    tokenizer.model, spiece.model    SentencePiece's pieces, or tiktoken's ranks, or
    *.tiktoken, tiktoken.model       tiktoken's ranks, or
    tekken.json                      the same with Mistral's special tokens, or
    vocab.txt                        BERT's pieces of words
    tokenizer_config.json            special tokens, chat template, BOS and EOS around a text
    special_tokens_map.json          special tokens, where the former does not name them
    added_tokens.json                tokens added to vocab.json: {"<tool_call>": 151657}
    chat_template.jinja              the template; goes before the one in tokenizer_config.json
    additional_chat_templates/*.jinja
"""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tokenizers import AddedToken, Regex, decoders, models, normalizers, pre_tokenizers, processors
from tokenizers import Tokenizer as Backend

from engine.tokenizers.gguf_words import QWEN2_WORDS
from engine.tokenizers.sentencepiece_file import read_sentencepiece
from engine.tokenizers.tekken_file import read_tekken
from engine.tokenizers.tiktoken_file import holds_ranks, read_tiktoken
from engine.tokenizers.vocabulary_file import VocabularyFile
from engine.tokenizers.wordpiece_file import read_wordpiece
from models.errors import CheckpointError, UnsupportedError

GPT2_END = "<|endoftext|>"  # its files are older than tokenizer_config.json and name no tokens
SPECIAL_ROLES = (
    "bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token", "mask_token",
)  # fmt: skip
_GPT2_CLASSES = (None, "GPT2Tokenizer", "GPT2TokenizerFast")
_QWEN2_CLASSES = ("Qwen2Tokenizer", "Qwen2TokenizerFast")
_BINARY = (
    "*.tiktoken", "tiktoken.model", "tokenizer.model", "spiece.model", "sentencepiece.bpe.model",
    "spm.model",
)  # fmt: skip
MAX_BYTES = 2**26  # of such a file
_UNREAD = ("tokenizer.model.*", "vocab.json", "merges.txt")


@dataclass(frozen=True, slots=True)
class TokenizerFiles:
    """What the files of a folder say."""

    backend: Backend
    special_tokens: dict[str, str]  # {"eos_token": "</s>"}
    chat_templates: dict[str, str]  # {"default": "{% for ...", "tool_use": ...}


def read_tokenizer(folder: Path) -> TokenizerFiles | None:
    """None when the folder has no tokenizer; `CheckpointError` when what it has is malformed."""
    config = _read_object(folder / "tokenizer_config.json")
    added = _added_tokens(folder, config)
    found = _read_vocabulary(folder, config, added)
    if found is None:
        return None
    backend = found.backend
    _add_tokens(backend, {**found.added, **added}, folder)
    said = {**found.config, **_read_object(folder / "special_tokens_map.json"), **config}
    special_tokens = _special_tokens(said)
    _mark_special(backend, special_tokens, folder)
    surround(backend, said, special_tokens)
    backend.no_truncation()
    backend.no_padding()
    return TokenizerFiles(backend, special_tokens, _chat_templates(folder, config))


def has_tokenizer_files(folder: Path) -> bool:
    """Whether there is what `read_tokenizer` reads first."""
    return bool(
        _present(folder, ("tokenizer.json", *_BINARY, "tekken.json", "vocab.txt"))
    ) or _is_bpe(folder)


def _is_bpe(folder: Path) -> bool:
    return (folder / "vocab.json").is_file() and (folder / "merges.txt").is_file()


def _read_text(path: Path) -> str | None:
    try:
        return path.read_text(encoding="utf-8")
    except FileNotFoundError:
        return None
    except (OSError, UnicodeDecodeError) as error:
        raise CheckpointError(f"{path} cannot be read as UTF-8 text: {error}.") from None


def _read_object(path: Path) -> dict[str, Any]:
    """{} when the file is absent."""
    text = _read_text(path)
    if text is None:
        return {}
    try:
        value = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise CheckpointError(f"{path} is not valid JSON: {error}.") from None
    if not isinstance(value, dict):
        raise CheckpointError(f"{path} must hold a JSON object, not {type(value).__name__}.")
    return value


def _read_vocabulary(
    folder: Path, config: dict[str, Any], added: dict[int, AddedToken]
) -> VocabularyFile | None:
    text = _read_text(folder / "tokenizer.json")
    if text is not None:
        return VocabularyFile(_whole(text, folder / "tokenizer.json"))
    if _is_bpe(folder):
        return _read_byte_level_bpe(folder, config)
    if files := _present(folder, _BINARY):
        if _starts_with_ranks(files[0]):
            return read_tiktoken(files[0], config, added)
        return read_sentencepiece(files[0], config, added)
    if (folder / "tekken.json").is_file():
        return read_tekken(folder / "tekken.json")
    if (folder / "vocab.txt").is_file():
        return read_wordpiece(folder / "vocab.txt", config)
    if files := _present(folder, _UNREAD):
        raise UnsupportedError(
            f"{files[0]} is of a kind of tokenizer that is not read; save the tokenizer as "
            "tokenizer.json, with transformers' save_pretrained."
        )
    return None


def _present(folder: Path, patterns: tuple[str, ...]) -> list[Path]:
    return [path for one in patterns for path in sorted(folder.glob(one)) if path.is_file()]


def _starts_with_ranks(path: Path) -> bool:
    try:
        if path.stat().st_size > MAX_BYTES:
            raise CheckpointError(f"{path} has over {MAX_BYTES} bytes, as no tokenizer has.")
        with path.open("rb") as file:
            return path.suffix == ".tiktoken" or holds_ranks(file.read(4096))
    except OSError as error:
        raise CheckpointError(f"Cannot read {path}: {error.strerror}.") from None


def _whole(text: str, path: Path) -> Backend:
    try:
        return Backend.from_str(text)
    except Exception as error:  # the Rust library raises nothing more precise
        raise CheckpointError(f"{path} is not a tokenizer: {error}.") from None


def _read_byte_level_bpe(folder: Path, config: dict[str, Any]) -> VocabularyFile:
    vocab, merges = folder / "vocab.json", folder / "merges.txt"
    try:
        model = models.BPE.from_file(str(vocab), str(merges))
    except Exception as error:  # as above
        raise CheckpointError(f"{vocab} and {merges} are not a vocabulary: {error}.") from None
    backend = Backend(model)
    prefix = config.get("add_prefix_space") is True
    name = config.get("tokenizer_class")
    defaults: dict[str, Any] = {}
    if name in _GPT2_CLASSES:
        backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=prefix)
        if backend.token_to_id(GPT2_END) is not None:
            defaults = dict.fromkeys(("bos_token", "eos_token", "unk_token"), GPT2_END)
    elif name in _QWEN2_CLASSES:
        backend.normalizer = normalizers.NFC()
        words = pre_tokenizers.Split(Regex(QWEN2_WORDS), behavior="isolated")
        letters = pre_tokenizers.ByteLevel(add_prefix_space=prefix, use_regex=False)
        backend.pre_tokenizer = pre_tokenizers.Sequence([words, letters])
    else:
        raise UnsupportedError(
            f"{folder} has vocab.json and merges.txt, but how a {str(name)[:60]} splits words is "
            "not known; save the tokenizer as tokenizer.json."
        )
    backend.decoder = decoders.ByteLevel()
    return VocabularyFile(backend, config=defaults)


def _added_tokens(folder: Path, config: dict[str, Any]) -> dict[int, AddedToken]:
    """Tokens that the other files add to the vocabulary, by id."""
    path = folder / "tokenizer_config.json"
    known = config.get("added_tokens_decoder", {})
    if not isinstance(known, dict):
        raise CheckpointError(f"added_tokens_decoder in {path} must be an object.")
    tokens: dict[int, AddedToken] = {}
    for token, token_id in _read_object(folder / "added_tokens.json").items():
        tokens[_id(token_id, folder / "added_tokens.json")] = AddedToken(token, normalized=False)
    for token_id, entry in known.items():
        tokens[_id(token_id, path)] = _added_token(entry, path)
    return tokens


def _id(value: object, path: Path) -> int:
    if isinstance(value, int | str) and str(value).isdecimal() and len(str(value)) < 10:
        return int(value)
    raise CheckpointError(f"{path} names {str(value)[:40]!r}, which is no token id.")


def _added_token(entry: object, path: Path) -> AddedToken:
    flags = ("single_word", "lstrip", "rstrip", "normalized", "special")
    if not isinstance(entry, dict) or not isinstance(entry.get("content"), str):
        raise CheckpointError(f"An entry of added_tokens_decoder in {path} has no text `content`.")
    return AddedToken(
        entry["content"], **{flag: bool(entry[flag]) for flag in flags if flag in entry}
    )


def _add_tokens(backend: Backend, tokens: dict[int, AddedToken], folder: Path) -> None:
    """Ids are given out in order, so a token that gets another id than its file says is found."""
    known = _added_names(backend)
    backend.add_tokens([tokens[id] for id in sorted(tokens) if tokens[id].content not in known])
    for token_id, token in tokens.items():
        if (actual := backend.token_to_id(token.content)) != token_id:
            raise CheckpointError(
                f"The files of {folder} disagree: token {token.content!r} has id {actual} in the "
                f"vocabulary and {token_id} among the added tokens."
            )


def _added_names(backend: Backend) -> set[str]:
    return {token.content for token in backend.get_added_tokens_decoder().values()}


def _special_tokens(config: dict[str, Any]) -> dict[str, str]:
    """Role -> text; each value is a string, {"content": string} or null."""
    tokens: dict[str, str] = {}
    for role in SPECIAL_ROLES:
        value = config.get(role)
        text = value.get("content") if isinstance(value, dict) else value
        if isinstance(text, str):
            tokens[role] = text
        elif value is not None:
            raise CheckpointError(
                f"{role} in tokenizer_config.json must be a string or an object with `content`."
            )
    return tokens


def _mark_special(backend: Backend, special_tokens: dict[str, str], folder: Path) -> None:
    """Make special what the files call so; a token without an id has no column to be sampled."""
    known = _added_names(backend)
    missing = {role for role, text in special_tokens.items() if backend.token_to_id(text) is None}
    for role in missing & {"bos_token", "eos_token"}:
        raise CheckpointError(
            f"{role} {special_tokens[role]!r} of {folder} is not in its vocabulary."
        )
    names = {text for role, text in special_tokens.items() if role not in missing} - known
    backend.add_special_tokens([AddedToken(name, normalized=False) for name in sorted(names)])


def surround(backend: Backend, config: dict[str, Any], special_tokens: dict[str, str]) -> None:
    """Where the files say whether BOS and EOS go around a text, that is how it is."""
    flags = {"bos_token": config.get("add_bos_token"), "eos_token": config.get("add_eos_token")}
    if all(flag is None for flag in flags.values()):
        return
    wanted = {role: special_tokens.get(role) for role, flag in flags.items() if flag}
    bos, eos = wanted.get("bos_token"), wanted.get("eos_token")
    names = sorted({token for token in (bos, eos) if token is not None})
    backend.post_processor = processors.TemplateProcessing(
        single=[token for token in (bos, "$A", eos) if token is not None],
        special_tokens=[(name, backend.token_to_id(name)) for name in names],
    )


def _chat_templates(folder: Path, config: dict[str, Any]) -> dict[str, str]:
    path = folder / "tokenizer_config.json"
    templates = _named_templates(config.get("chat_template"), path)
    for name, file in _template_files(folder):
        text = _read_text(file)
        if text is not None:
            templates[name] = text
    return templates


def _named_templates(value: object, path: Path) -> dict[str, str]:
    """From "{% for ..." or [{"name": "default", "template": "{% for ..."}]."""
    match value:
        case None:
            return {}
        case str():
            return {"default": value}
        case list():
            entries = [entry for entry in value if isinstance(entry, dict)]
            named = {entry.get("name"): entry.get("template") for entry in entries}
            if len(named) == len(value) and all(
                isinstance(text, str) for pair in named.items() for text in pair
            ):
                return named  # type: ignore[return-value]
    raise CheckpointError(f"chat_template in {path} must be a string or a list of named templates.")


def _template_files(folder: Path) -> Iterator[tuple[str, Path]]:
    yield "default", folder / "chat_template.jinja"
    for file in sorted((folder / "additional_chat_templates").glob("*.jinja")):
        yield file.stem, file
