"""Files of tiktoken, as a `tokenizers` backend: every token in base64 with its rank.

    IQ== 0
    Ig== 1       qwen.tiktoken, hy.tiktoken, tiktoken.model, or Llama 3's tokenizer.model

A rank is the token's id, and of all neighbours those are joined first that make the lowest rank; a
word that is a token is that token. Owns the way from there to merges. What the file does not say,
how a text is split into words and what is special, is in `tiktoken_families`.
"""

import re
from base64 import b64decode
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tokenizers import AddedToken, decoders, models, processors
from tokenizers import Tokenizer as Backend

from engine.tokenizers.detokenizer import byte_letters
from engine.tokenizers.gguf_words import split_words
from engine.tokenizers.sentencepiece import check_lengths
from engine.tokenizers.tiktoken_families import Family, find_family, reserved
from engine.tokenizers.vocabulary_file import VocabularyFile
from models.errors import CheckpointError, UnsupportedError

MAX_SPECIAL = 2**16  # ids behind the ranks
_LINE = re.compile(rb"[A-Za-z0-9+/]+={0,2} \d{1,9}\s")


def holds_ranks(start: bytes) -> bool:
    """Whether a file that begins so is one of tiktoken's."""
    return _LINE.match(start) is not None


def read_tiktoken(
    path: Path, config: Mapping[str, Any], named: Mapping[int, AddedToken]
) -> VocabularyFile:
    """Args:
        config: `tokenizer_config.json`.
        named: the tokens that the files beside it add, by id.

    Raises:
        CheckpointError: the file is malformed.
        UnsupportedError: how its model splits words is not known.
    """
    try:
        tokens = _read_ranks(path.read_bytes())
    except OSError as error:
        raise CheckpointError(f"Cannot read {path}: {error.strerror}.") from None
    except ValueError as error:
        raise CheckpointError(f"{path} is no file of tiktoken: {error}.") from None
    family = find_family(path.name, config.get("tokenizer_class"), len(tokens))
    if family is None:
        raise UnsupportedError(
            f"{path} does not say how its model splits words; save the tokenizer as "
            "tokenizer.json, with transformers' save_pretrained."
        )
    try:
        backend = Backend(rank_model(tokens))
    except Exception as error:  # the Rust library raises nothing more precise
        raise CheckpointError(f"{path} is no file of tiktoken: {error}.") from None
    split_words(backend, family.words)
    backend.decoder = decoders.ByteLevel()
    added = _added(len(tokens), family, named, path)
    ids = {added[one].content: one for one in added}
    if family.before and ids.keys() >= {*family.before}:
        backend.post_processor = processors.TemplateProcessing(
            single=[*family.before, "$A"],
            special_tokens=[(name, ids[name]) for name in family.before],
        )
    return VocabularyFile(backend, added, family.config)


def _read_ranks(data: bytes) -> list[bytes]:
    """Tokens in the order of their ranks, which are 0, 1, 2, ...; raises ValueError."""
    lines = [line.split() for line in data.splitlines() if line]
    if any(len(line) != 2 for line in lines):
        raise ValueError("a line is not a token and its rank")
    tokens = {b64decode(token, validate=True): int(rank) for token, rank in lines}
    if sorted(tokens.values()) != list(range(len(lines))):
        raise ValueError("its ranks are not 0, 1, 2, ..., each of another token")
    if missing := [one for one in range(256) if bytes([one]) not in tokens]:
        raise ValueError(f"the byte {missing[0]} is no token")
    return sorted(tokens, key=tokens.__getitem__)


def rank_model(tokens: Sequence[bytes], before: Sequence[str] = ()) -> models.BPE:
    """Every way in which a token is made of two, those of lower ranks first.

    Args:
        tokens: by rank.
        before: names whose ids come before those of the ranks.

    Raises ValueError if tokens are too long to look for them.
    """
    check_lengths(tokens)
    ranks = {token: rank for rank, token in enumerate(tokens)}
    letters = byte_letters()
    names = [token.decode("latin-1").translate(letters) for token in tokens]
    merges: list[tuple[str, str]] = []
    for token in tokens:
        pairs = ((token[:cut], token[cut:]) for cut in range(1, len(token)))
        ways = sorted((ranks[a], ranks[b]) for a, b in pairs if a in ranks and b in ranks)
        merges += [(names[a], names[b]) for a, b in ways]
    vocabulary = {name: one for one, name in enumerate((*before, *names))}
    return models.BPE(vocabulary, merges, ignore_merges=True)


def _added(
    first: int, family: Family, named: Mapping[int, AddedToken], path: Path
) -> dict[int, AddedToken]:
    """Special tokens by id, without a hole."""
    taken = {token.content for token in named.values()}
    names = {one: name for one, name in family.names(first).items() if name not in taken}
    end = max([first - 1, *names, *named]) + 1
    if end - first > MAX_SPECIAL:
        raise CheckpointError(f"{path} has {first} ranks, and {path.parent} names token {end - 1}.")
    names = reserved(first, end - first) | names
    tokens = {one: AddedToken(name, special=True, normalized=False) for one, name in names.items()}
    return tokens | dict(named)
