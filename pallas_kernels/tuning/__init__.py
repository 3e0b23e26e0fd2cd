"""Tile choices that were measured: one file a GPU, written by the run of `tests/gpu`.

    tuning/nvidia-h200.json   {"paged_decode": [{"facts": {"blocks": 512, "keys": 4096, "H": 128},
                                                 "tiling": {"splits": 4}}, ...]}

A kernel asks with the facts of what it is given and gets the tiling of the nearest shape that was
measured. Where none is near, or nobody has measured, the kernel chooses by rule; so it does, with
one warning, where the file is damaged.
"""

import json
import logging
import math
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

from pallas_kernels.case import Tiling

logger = logging.getLogger(__name__)

FOLDER = Path(__file__).parent
_NEAR = 2.0  # octaves, over all facts


def tuned(
    kernel: str, facts: Mapping[str, int], device_kind: str, folder: Path = FOLDER
) -> Tiling | None:
    """The tiling measured for the shape nearest to `facts`; None if none is within two octaves."""
    entries = _read(folder, file_name(device_kind)).get(kernel, [])
    near = [(distance(facts, entry["facts"]), entry["tiling"]) for entry in entries]
    apart, tiling = min(near, default=(math.inf, None), key=lambda pair: pair[0])
    return tiling if apart <= _NEAR else None


def distance(a: Mapping[str, int], b: Mapping[str, int]) -> float:
    """How many doublings lie between two shapes; infinite if they do not name the same facts."""
    if a.keys() != b.keys():
        return math.inf
    return sum(
        0.0 if a[name] == b[name] else abs(math.log2(max(a[name], 0.5) / max(b[name], 0.5)))
        for name in a
    )


def file_name(device_kind: str) -> str:
    """`NVIDIA H200` as it is written in names of files."""
    return device_kind.replace(" ", "-").lower()


@cache
def _read(folder: Path, name: str) -> dict[str, Any]:
    path = folder / f"{name}.json"
    if not path.exists():
        return {}
    try:
        content: dict[str, Any] = json.loads(path.read_text())
        valid = all(_is_entry(entry) for entries in content.values() for entry in entries)
    except (OSError, ValueError, AttributeError, TypeError):
        valid = False
    if not valid:
        logger.warning("%s is damaged; kernels choose their tiles by rule", path)
        return {}
    return content


def _is_entry(entry: Any) -> bool:
    """Whether it is {"facts": {...}, "tiling": {...}}, of integers."""
    parts = [entry["facts"], entry["tiling"]] if {"facts", "tiling"} <= set(entry) else [{"": ""}]
    return all(isinstance(number, int) for part in parts for number in part.values())
