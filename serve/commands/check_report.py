"""What `ingot check` shows of its answers, and the rules that all kinds of models have in common.

Owns the tables, the tolerances, and a prompt for models without a tokenizer.
"""

from collections.abc import Iterable
from typing import TYPE_CHECKING

from rich.console import Console
from rich.markup import escape
from rich.table import Table

if TYPE_CHECKING:
    from engine import LLM
    from engine.check.comparing import Difference
    from engine.check.soundness import Finding

WITHOUT_TOKENIZER = 16  # tokens of a prompt that is made of ids
TOLERANCES = {"float32": 1e-3}  # of the deviation; the others compute in 8 or 11 bits
LOOSE = 0.1
_MARKS = {"ok": "[green]ok[/]", "failed": "[red]failed[/]", "skipped": "[yellow]skipped[/]"}


def tolerance_of(llm: "LLM") -> float:
    """How far apart the model and its reference may be where nobody says it."""
    return TOLERANCES.get(llm.info.dtype, LOOSE)


def prompt_ids(llm: "LLM", prompt: str) -> list[int]:
    """Ids of a prompt, or without a tokenizer some from all over the vocabulary."""
    tokenizer = llm.get_tokenizer()
    if tokenizer is not None:
        return tokenizer.encode(prompt)
    step = max(1, llm.info.vocab_size // WITHOUT_TOKENIZER)
    return [(number * step + 1) % llm.info.vocab_size for number in range(WITHOUT_TOKENIZER)]


def same_ids(ours: list[int], theirs: list[int]) -> "Finding":
    """Whether a prompt has the ids that transformers gives it."""
    from engine.check.soundness import Finding

    if ours == theirs:
        return Finding("prompt's ids", "ok", f"{len(ours)} are equal")
    return Finding("prompt's ids", "failed", f"{ours} here and {theirs} there")


def not_compared(console: Console, why: str) -> None:
    """Say what is missing for a comparison."""
    console.print(f"[yellow]not compared:[/] {escape(why)}.", highlight=False)


def show_first_far(console: Console, rows: "list[Difference]", tolerance: float) -> None:
    """Where two traces part, if they do; in red if they end apart."""
    far = next((row.name for row in rows if not row.within(tolerance)), None)
    if far is not None:
        colour = "yellow" if rows[-1].within(tolerance) else "red"
        console.print(
            f"[{colour}]more than {tolerance:g} of the deviation apart, first in:[/] {far}",
            highlight=False,
        )


def show_findings(console: Console, findings: "Iterable[Finding]") -> None:
    table = Table(show_header=False, box=None, padding=(0, 2, 0, 0))
    table.add_column(style="dim", no_wrap=True)
    table.add_column(no_wrap=True)
    table.add_column(overflow="fold")
    for finding in findings:
        table.add_row(finding.name, _MARKS[finding.verdict], escape(finding.text))
    console.print(table)


def show_differences(
    console: Console, name: str, rows: "list[Difference]", tolerance: float
) -> None:
    console.print(f"\n[bold]beside {escape(name)}[/]", highlight=False)
    table = Table(box=None, padding=(0, 2, 0, 0))
    table.add_column("layer", no_wrap=True)
    table.add_column("max |d|", justify="right")
    table.add_column("relative", justify="right")
    for row in rows:
        style = "green" if row.within(tolerance) else "red"
        table.add_row(row.name, f"{row.largest:.2e}", f"[{style}]{row.relative:.2e}[/]")
    console.print(table)
