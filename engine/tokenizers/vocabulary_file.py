"""What a file with a vocabulary says of a tokenizer, before the files beside it are read."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from tokenizers import AddedToken
from tokenizers import Tokenizer as Backend


@dataclass(frozen=True, slots=True)
class VocabularyFile:
    """A tokenizer without what `tokenizer_config.json` and its neighbours add."""

    backend: Backend
    added: Mapping[int, AddedToken] = field(default_factory=dict)
    """Tokens that are found in a text as they are written, by id; the other files may differ."""
    config: Mapping[str, Any] = field(default_factory=dict)
    """What is so where `tokenizer_config.json` does not say it: {"eos_token": "</s>"}."""


def tokenizer_class(config: Mapping[str, Any]) -> str | None:
    """What `tokenizer_config.json` says that it is one of, without its `Fast`."""
    return str(config.get("tokenizer_class") or "").removesuffix("Fast") or None
