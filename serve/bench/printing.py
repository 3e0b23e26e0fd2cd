"""What a benchmark found, on the terminal and in the file that was asked for."""

import json
from pathlib import Path
from typing import Any

from rich.console import Console

_UNITS = {"avg_latency": " (s)", "elapsed_time": " (s)"}


def report(console: Console, found: dict[str, Any], target: Path | None) -> None:
    """A line for each number, and all of it in `target`."""
    rows = [(name, value) for name, value in found.items() if isinstance(value, float | int)]
    rows += [(f"  p{share}", value) for share, value in found.get("percentiles", {}).items()]
    for name, value in rows:
        shown = f"{value:,.3f}" if isinstance(value, float) else f"{value:,}"
        console.print(f"{name + _UNITS.get(name, ''):26} {shown}", highlight=False)
    write_json(console, found, target)


def write_json(console: Console, found: dict[str, Any], target: Path | None) -> None:
    """All of it in `target`, if there is one."""
    if target is not None:
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(json.dumps(found, indent=2))
        print_paths(console, [target])


def print_paths(console: Console, paths: list[Path]) -> None:
    """Files that were written, each on a line of its own however long it is."""
    for path in paths:
        console.print(f"written: {path}", soft_wrap=True, highlight=False, markup=False)
