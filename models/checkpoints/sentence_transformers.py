"""What a sentence-transformers folder says about how texts become vectors.

    modules.json                  which modules run, in which folders
    1_Pooling/config.json         which hidden states are pooled
    sentence_bert_config.json     the longest text, and whether letters are lowered
    tokenizer_config.json         the longest text, where the former does not say
    config.json                   of cross-encoders: what is done to their scores
    config_sentence_transformers.json   what is put before a query, a document, ...

A GGUF file says which states are pooled, and nothing of lengths: llama.cpp makes them 1.

Owns these files. Imports no JAX; what is done is `models/pooling.py`'s.
"""

import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from models.checkpoints.checkpoint import CONFIG, read_config, read_list, read_object
from models.config.fields import MAX_TOKENS, Fields
from models.errors import CheckpointError, UnsupportedError
from models.gguf.checkpoint import is_gguf

MODULES = "modules.json"
SETTINGS = "sentence_bert_config.json"
TOKENIZER = "tokenizer_config.json"
PROMPTS = "config_sentence_transformers.json"
NO_LIMIT = 1e30  # as transformers writes it; others write more
Pooling = Literal["CLS", "LAST", "MEAN", "ALL", "STEP"]
Activation = Literal["normalize", "identity", "sigmoid", "softmax"]
_POOLINGS: Mapping[str, Pooling] = {
    "pooling_mode_cls_token": "CLS",
    "pooling_mode_mean_tokens": "MEAN",
    "pooling_mode_lasttoken": "LAST",
}
_NAMES: Mapping[str, Pooling] = {"cls": "CLS", "mean": "MEAN", "lasttoken": "LAST"}
_ACTIVATIONS: Mapping[str, Activation] = {
    "Identity": "identity",
    "Sigmoid": "sigmoid",
    "Softmax": "softmax",
}
_PROBLEMS = ("single_label_classification", "multi_label_classification", "regression")


@dataclass(frozen=True)
class SentenceTransformer:
    """Pooling "CLS", "MEAN" or "LAST", whether vectors get length 1, and what texts may be."""

    pooling: Pooling
    normalize: bool
    max_tokens: int | None
    lower_case: bool


def read_sentence_transformer(folder: Path) -> SentenceTransformer | None:
    """None where the folder is of no sentence-transformers model.

    Raises:
        CheckpointError: a file is missing or malformed.
        UnsupportedError: a module or a kind of pooling is none of those that are known.
    """
    if not (folder / MODULES).is_file():
        return None
    kinds = _modules(folder)
    settings = Fields(_optional(folder / SETTINGS), str(folder / SETTINGS))
    limited = "max_seq_length" in settings
    return SentenceTransformer(
        pooling=_pooling(folder, kinds["Pooling"]),
        normalize="Normalize" in kinds,
        max_tokens=settings.integer("max_seq_length", high=MAX_TOKENS) if limited else None,
        lower_case=settings.flag("do_lower_case", False),
    )


def longest_text(folder: Path) -> int | None:
    """Tokens of it, by sentence-transformers' file, else by the tokenizer's; None if neither says.

    Raises CheckpointError for files that are malformed.
    """
    said = read_sentence_transformer(folder)
    if said is not None and said.max_tokens is not None:
        return said.max_tokens
    path = folder / TOKENIZER
    fields = Fields(_optional(path), str(path))
    tokens = fields.number("model_max_length", NO_LIMIT, high=sys.float_info.max)
    return int(tokens) if tokens <= MAX_TOKENS else None


def said_of_pooling(folder: Path, raw: Mapping[str, Any]) -> SentenceTransformer | None:
    """The same of a folder or a GGUF file, whose config.json `raw` is; raises likewise."""
    if not is_gguf(folder):
        return read_sentence_transformer(folder)
    known = {name: name for name in _NAMES.values()}
    pooling = raw.get("pooling_type")
    return SentenceTransformer(known[pooling], True, None, False) if pooling in known else None


def read_prompts(folder: Path) -> Mapping[str, str]:
    """What goes before a text of each kind: {"query": "query: ", "document": ""}.

    From config.json (`task_instructions`), else from sentence-transformers' file.
    Nothing for models that pool only what stands behind it (`include_prompt` false).

    Raises CheckpointError for files that are malformed.
    """
    if is_gguf(folder):
        return {}
    named = read_config(folder).get("task_instructions")
    said = named or _optional(folder / PROMPTS).get("prompts")
    poolings = map(_optional, folder.glob("*_Pooling/config.json"))
    if not isinstance(said, dict) or any(each.get("include_prompt") is False for each in poolings):
        return {}
    return {name: text for name, text in said.items() if isinstance(text, str)}


def score_activation(raw: Mapping[str, Any], num_labels: int) -> Activation:
    """What turns a classifier's scores into probabilities: identity, sigmoid or softmax.

    Cross-encoders name it in config.json; others have a sigmoid for one class or classes that do
    not exclude each other, a softmax for several, and a regression has none.

    Raises UnsupportedError for another function or problem.
    """
    fields = Fields(raw)
    section = fields.section("sentence_transformers")
    for where, key in (
        (section, "activation_fn"),
        (fields, "sbert_ce_default_activation_function"),
    ):
        if key in where:
            name = where.text(key).rsplit(".", 1)[-1]
            if name not in _ACTIVATIONS:
                raise UnsupportedError(
                    f"{where.where}: {key} is {name[:60]!r}, which is not supported; use one of "
                    f"{', '.join(_ACTIVATIONS)}."
                )
            return _ACTIVATIONS[name]
    problem = fields.option("problem_type", _PROBLEMS, _PROBLEMS[0])
    if problem == "regression":
        return "identity"
    if num_labels == 1 or problem == "multi_label_classification":
        return "sigmoid"
    return "softmax"


def _modules(folder: Path) -> dict[str, str]:
    """Kind -> folder: {"Transformer": "", "Pooling": "1_Pooling", "Normalize": "2_Normalize"}."""
    entries = read_list(folder / MODULES)
    kinds: dict[str, str] = {}
    for entry in entries:
        fields = Fields(entry if isinstance(entry, dict) else {}, str(folder / MODULES))
        path = fields.raw.get("path") or ""
        if not isinstance(path, str) or Path(path).is_absolute() or ".." in Path(path).parts:
            raise CheckpointError(f"{MODULES} of {folder} has a path that leaves the folder.")
        kinds[fields.text("type").rsplit(".", 1)[-1]] = path
    unknown = kinds.keys() - {"Transformer", "Pooling", "Normalize"}
    if unknown or not {"Transformer", "Pooling"} <= kinds.keys() or kinds["Transformer"]:
        listed = ", ".join(sorted(kinds))[:200]
        raise UnsupportedError(
            f"{MODULES} of {folder} lists {listed or 'nothing'}; supported are a Transformer in "
            "the folder itself, a Pooling, and a Normalize behind it."
        )
    return kinds


def _pooling(folder: Path, path: str) -> Pooling:
    where = folder / path / CONFIG
    fields = Fields(read_object(where), str(where))
    if "pooling_mode" in fields:
        return _NAMES[fields.option("pooling_mode", _NAMES)]
    used = [
        key for key in fields.raw if key.startswith("pooling_mode_") and fields.flag(key, False)
    ]
    if len(used) != 1 or used[0] not in _POOLINGS:
        raise UnsupportedError(
            f"{where} asks for {', '.join(used) or 'no pooling'}; supported is one of "
            f"{', '.join(_POOLINGS)}."
        )
    return _POOLINGS[used[0]]


def _optional(path: Path) -> dict[str, Any]:
    return read_object(path) if path.is_file() else {}
