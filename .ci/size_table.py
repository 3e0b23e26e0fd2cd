"""Prints how large the code's files and functions are, and fails on one that is too large.

    python .ci/size_table.py

Limits: a file has at most 450 lines, a function 60 (100 in `pallas_kernels`).
"""

import ast
import statistics
import sys
from collections.abc import Iterator
from pathlib import Path

PACKAGES = ("pallas_kernels", "models", "engine", "serve")
FILE_LIMIT, FUNCTION_LIMIT, KERNEL_LIMIT = 450, 60, 100
Sizes = list[tuple[int, str]]


def functions(path: Path) -> Iterator[tuple[int, str]]:
    """Lines and name of each function in a file, nested ones included."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            lines = (node.end_lineno or node.lineno) - node.lineno + 1
            yield lines, f"{path}:{node.lineno} {node.name}"


def row(name: str, kind: str, sizes: Sizes) -> str:
    """One line of the table: count, median, 90th percentile, longest."""
    lines = sorted(size for size, _ in sizes)
    p90 = lines[int(0.9 * (len(lines) - 1))]
    longest = max(sizes)
    return (
        f"{name:<16}{kind:<11}{len(lines):>5}{sum(lines):>8}"
        f"{statistics.median(lines):>8.0f}{p90:>6}{longest[0]:>6}  {longest[1]}"
    )


def main() -> int:
    """Print the table; 1 if a limit is broken."""
    too_long: list[str] = []
    print(f"{'package':<16}{'of':<11}{'count':>5}{'lines':>8}{'median':>8}{'p90':>6}{'max':>6}")
    for package in PACKAGES:
        paths = sorted(Path(package).rglob("*.py"))
        files = [(len(path.read_text().splitlines()), str(path)) for path in paths]
        found = [each for path in paths for each in functions(path)]
        limit = KERNEL_LIMIT if package == "pallas_kernels" else FUNCTION_LIMIT
        too_long += [
            f"{name}: {n} lines, at most {FILE_LIMIT}" for n, name in files if n > FILE_LIMIT
        ]
        too_long += [f"{name}: {n} lines, at most {limit}" for n, name in found if n > limit]
        print(row(package, "files", files))
        print(row("", "functions", found))
    for line in too_long:
        print(f"TOO LONG  {line}", file=sys.stderr)
    return 1 if too_long else 0


if __name__ == "__main__":
    raise SystemExit(main())
