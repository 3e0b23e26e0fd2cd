"""What a benchmark found, on the terminal and in the file that was asked for."""

import json
from pathlib import Path
from typing import Any

from rich.console import Console


def report(console: Console, found: dict[str, Any], target: Path | None) -> None:
    """A line for each number, and all of it in `target`."""
    for name, value in found.items():
        if isinstance(value, float | int):
            shown = f"{value:,.3f}" if isinstance(value, float) else str(value)
            console.print(f"{name:26} {shown}")
    write_json(console, found, target)


def write_json(console: Console, found: dict[str, Any], target: Path | None) -> None:
    """All of it in `target`, if there is one."""
    if target is not None:
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(json.dumps(found, indent=2))
        console.print(f"written: {target}")


def print_paths(console: Console, paths: list[Path]) -> None:
    """Files that were written."""
    for path in paths:
        console.print(f"written: {path}")
