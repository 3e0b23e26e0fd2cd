"""The sentences for a config.json that contradicts its weights.

    lacks tensor 'model.layers.3...'       the weights have 3 layers, num_hidden_layers is 5
    has the shape [67, 40], not [99, 40]   vocab_size is 99

Owns finding the key of config.json that is most likely at fault, which is read again for it: the
checks know sizes and not their names. Refuses to know families.
"""

import re
from collections.abc import Iterable, Mapping
from itertools import combinations
from pathlib import Path
from typing import Any

from models.checkpoints.checkpoint import described, read_config, weights_tree
from models.checkpoints.orbax_tree import INSTEAD
from models.checkpoints.safetensors import Tensor
from models.config.fields import Fields
from models.errors import CheckpointError
from models.quantised.tensors import Readable

_NUMBERED = {
    "layer": re.compile(r"(?:layers|h|blocks?|layer)\.(\d+)\."),
    "expert": re.compile(r"experts\.(\d+)\."),
}
_COUNTS = ("heads", "experts", "groups")  # what keys end in whose value is how many there are
_SIZES = ("dim", "rank", "size")  # and how wide one is
_INSTEAD = "use the config.json that belongs to these weights"


def missing_tensor(name: str, held: Iterable[str], folder: Path) -> CheckpointError:
    """The model that config.json describes has this tensor, and the weights `held` have not."""
    if (tree := weights_tree(folder)) is not None:
        return CheckpointError(
            f"{described(tree)}, and none for {name!r}, which config.json calls for; {INSTEAD}."
        )
    return CheckpointError(
        f"{folder} lacks tensor {name!r}, which its config.json calls for"
        f"{_why_missing(name, held, _config(folder))}; {_INSTEAD}, or download them again."
    )


def surplus_tensor(name: str, needed: Iterable[str], folder: Path) -> CheckpointError:
    """The weights have this tensor, and the model that config.json describes has not."""
    raw, why = _config(folder), ""
    for kind in _NUMBERED:
        if count := _counted(name, needed, kind):
            named = {key: raw[key] for key in _nearest(raw, name) if kind in key}
            why = why or _said(_keys(named, count))
    return CheckpointError(
        f"{folder} has tensor {name!r}, for which the model its config.json describes has no place"
        f"{why}; {_INSTEAD}."
    )


def differing_copy(name: str, other: str, folder: Path) -> CheckpointError:
    """The weights have a head of their own, and config.json calls for the embedding's matrix."""
    return CheckpointError(
        f"{folder} has tensor {name!r}, which differs from {other!r}, and by its config.json the "
        "two are one (tie_word_embeddings is true, or absent where that means true); to read both "
        "add --hf-overrides '{\"tie_word_embeddings\": false}'."
    )


def wrong_shape(tensor: Readable, expected: tuple[int, ...], folder: Path) -> CheckpointError:
    """The tensor has another shape than config.json calls for."""
    raw = _config(folder)
    found = tensor.shape
    sizes = [
        size
        for axis, size in enumerate(expected)
        if len(found) != len(expected) or found[axis] != size
    ]
    keys = [key for size in sizes for key in _keys(raw, size)]
    return CheckpointError(
        f"Tensor {tensor.name!r} of {_file(tensor, folder)} has the shape {list(found)} and "
        f"config.json calls for {list(expected)}{_said(keys)}; {_INSTEAD}."
    )


def wrong_dtype(tensor: Readable, readable: Iterable[str], folder: Path) -> str:
    """The tensor holds numbers that mean nothing by themselves."""
    return (
        f"Tensor {tensor.name!r} of {_file(tensor, folder)} holds {tensor.dtype.name} and must "
        f"hold {', '.join(readable)}, for config.json has no quantization_config that says what "
        f"it means; use the checkpoint that was not quantised."
    )


def _config(folder: Path) -> dict[str, Any]:
    """config.json, in which the sizes of a model with images are one object deeper."""
    raw = read_config(folder)
    return {**raw, **Fields(raw).section("text_config").raw}


def _why_missing(name: str, held: Iterable[str], raw: Mapping[str, Any]) -> str:
    for kind in _NUMBERED:
        if count := _counted(name, held, kind):
            wanted = [
                k for k in _nearest(raw, name) if kind in k and _is_size(raw[k]) and raw[k] > count
            ]
            said = ", ".join(f"{key} is {raw[key]}" for key in wanted[:1])
            held_ones = f"{count} {kind}{'s' if count > 1 else ''}"
            return f" (the weights have {held_ones}{', and ' if said else ''}{said})"
    if name.endswith(".bias"):
        return _said([f"{key} is true" for key in raw if "bias" in key and raw[key] is True][:2])
    if "head" in name and raw.get("tie_word_embeddings") is False:
        return " (tie_word_embeddings is false)"
    return ""


def _keys(raw: Mapping[str, Any], size: int) -> list[str]:
    """ "vocab_size is 99"; or heads and their size, whose product it is, or parts that add up."""
    exact = [f"{key} is {size}" for key, value in raw.items() if _is_size(value) and value == size]
    if exact:
        return exact[:1]
    counts, sizes = (
        [(k, v) for k, v in raw.items() if k.endswith(ends) and _is_size(v) and v > 0]
        for ends in (_COUNTS, _SIZES)
    )
    pairs = list(combinations(sizes, 2))  # of latents: kv_lora_rank and qk_rope_head_dim
    made = [([n, one], n[1] * one[1]) for n in counts for one in sizes]
    made += [([one, other], one[1] + other[1]) for one, other in pairs]
    made += [([n, *pair], n[1] * (pair[0][1] + pair[1][1])) for n in counts for pair in pairs]
    found = [parts for parts, total in made if total == size]
    return [" and ".join(f"{key} is {value}" for key, value in parts) for parts in found[:1]]


def _is_size(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _said(what: list[str]) -> str:
    return f" ({', '.join(dict.fromkeys(what))})" if what else ""


def _number(name: str, kind: str) -> tuple[str, int]:
    """What is before the number of its layer or expert, and that number; -1 if it has none."""
    match = _NUMBERED[kind].search(name)
    return (name[: match.start(1)], int(match[1])) if match else ("", -1)


def _nearest(raw: Mapping[str, Any], name: str) -> list[str]:
    """The keys of config.json, those of the encoder or decoder that `name` is of before others."""
    stack, other = "decoder", "encoder"
    if name.find(stack) < 0 or 0 <= name.find(other) < name.find(stack):
        stack, other = other, stack
    return sorted(raw, key=lambda key: (stack not in key) + (other in key))


def _counted(name: str, names: Iterable[str], kind: str) -> int:
    """How many there are beside the one of `name`, if that is none of them; else 0."""
    place, number = _number(name, kind)
    found = [other for before, other in (_number(one, kind) for one in names) if before == place]
    count = 1 + max(found, default=-1)
    return count if number >= count else 0


def _file(tensor: Readable, folder: Path) -> str:
    return str(tensor.file.name) if isinstance(tensor, Tensor) else str(folder)
