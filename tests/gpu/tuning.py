"""From times of tilings to the file that kernels read."""

import json
from itertools import groupby
from typing import Any

from pallas_kernels.cases import CASES
from pallas_kernels.tuning import FOLDER
from tests.gpu.records import Record


def write_tuning(gpu: str, records: list[Record]) -> None:
    """Write the fastest tiling of each case to `pallas_kernels/tuning/<gpu>.json`."""
    best = fastest(records)
    if best:
        (FOLDER / f"{gpu}.json").write_text(json.dumps(best, indent=1) + "\n")


def fastest(records: list[Record]) -> dict[str, list[dict[str, Any]]]:
    """By kernel: the facts of each case that was timed, and its fastest tiling."""
    facts = {(case.kernel, case.name): dict(case.facts()) for case in CASES}
    timed = [r for r in records if r["part"] == "tiles" and "us" in r and _of(r) in facts]
    found: dict[str, list[dict[str, Any]]] = {}
    for of, group in groupby(sorted(timed, key=_of), key=_of):
        tiling = min(group, key=lambda record: record["us"])["tiling"]
        found.setdefault(of[0], []).append({"facts": facts[of], "tiling": tiling})
    return found


def _of(record: Record) -> tuple[str, str]:
    return record["kernel"], record["case"]
