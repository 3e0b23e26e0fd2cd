"""The README's table of architectures, and what each was checked against.

    python -m tests.parity.table      rewrites it from the tables of tiny models

A test holds the README to it.
"""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from tests.parity.case import Case
from tests.parity.cases import CASES
from tests.parity.encdec_cases import CASES as ENCODER_CASES
from tests.parity.pooling_cases import CASES as POOLING_CASES
from tests.parity.pooling_cases import PoolingCase

README = Path(__file__).parents[2] / "README.md"
BEGIN, END = "<!-- architectures -->\n", "<!-- end of architectures -->"
_HEAD = "| equal to, in float32 | `architectures` in config.json |\n|---|---|\n"


def readme_table() -> str:
    """What belongs between the marks: for each reference, the architectures that equal it."""
    equal: dict[str, set[str]] = defaultdict(set)
    for name, reference in _checked({**CASES, **ENCODER_CASES}, POOLING_CASES):
        equal[reference].add(name)
    return _HEAD + "".join(
        f"| {reference} | {', '.join(f'`{name}`' for name in sorted(names))} |\n"
        for reference, names in sorted(equal.items(), key=lambda row: (-len(row[1]), row[0]))
    )


def rewrite(text: str, table: str) -> str:
    """A README with this table between its marks."""
    before, rest = text.split(BEGIN)
    _, after = rest.split(END)
    return before + BEGIN + table + END + after


def _checked(
    cases: Mapping[str, Case], pooling: Mapping[str, PoolingCase]
) -> Iterator[tuple[str, str]]:
    for case in cases.values():
        yield _architecture(case.config), _reference(case)
    for each in pooling.values():
        if each.body is not None:
            yield _architecture(each.config), "its authors' head over transformers' states"
            continue
        kind = "classes and scores" if each.classifies else "vectors"
        yield _architecture(each.config), f"transformers' {kind}"


def _reference(case: Case) -> str:
    if case.stand_in is None:
        return "transformers' logits and greedy tokens"
    model = _architecture(case.stand_in.config)
    altered = _sentence(case.stand_in.alterations)
    return f"those of its `{model}`, tensors renamed{altered}"


def _sentence(alterations: Iterable[str]) -> str:
    said = " and ".join(name.replace("_", " ") for name in alterations)
    return f", given {said}" if said else ""


def _architecture(config: Mapping[str, Any]) -> str:
    (name,) = config["architectures"]
    return str(name)


if __name__ == "__main__":
    README.write_text(rewrite(README.read_text(), readme_table()))
