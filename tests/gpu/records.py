"""What was seen on a GPU: records, one JSON object a line while a run lasts, one file after it.

{"part": "kernels", "kernel": "paged_decode", "case": "gpt2", "us": 61.2, ...}
"""

import json
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).parent / "results"
Record = dict[str, Any]


@dataclass(frozen=True)
class Log:
    """The lines of one run."""

    path: Path

    def add(self, part: str, **values: Any) -> None:
        """Append a record; it is on the disk when this returns."""
        with self.path.open("a") as file:
            file.write(json.dumps({"part": part, **values}) + "\n")
            file.flush()
            os.fsync(file.fileno())

    def records(self) -> Iterator[Record]:
        """All that were written whole; the last line of a killed process may be half of one."""
        for line in self.path.read_text().splitlines() if self.path.exists() else ():
            try:
                yield json.loads(line)
            except ValueError:
                continue


def write_result(path: Path, records: list[Record]) -> None:
    """The file of a run; readers see the old one or the new one."""
    temporary = path.with_suffix(".part")
    lines = ",\n".join(" " + json.dumps(record) for record in records)
    temporary.write_text(f"[\n{lines}\n]\n")
    temporary.replace(path)


def newest_result(folder: Path = RESULTS) -> tuple[str, list[Record]] | None:
    """The name and the records of the latest run, by the date that ends its name."""
    files = sorted(folder.glob("*.json"), key=lambda path: path.stem[-10:])
    return (files[-1].stem, json.loads(files[-1].read_text())) if files else None
