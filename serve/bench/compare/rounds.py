"""Round by round through every engine, and what the rounds say: rates, ratios pair by pair, CPU.

A machine is not equally fast at all times, so that engines are only compared within a round: a
ratio is that of two runs one after the other, and what is printed is the middle of those ratios,
with the least and the largest. Odd rounds go through the engines backwards.
"""

import statistics
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from rich.table import Table

from serve.bench.compare.peers import Measured, Peer
from serve.bench.samples import Sample


@dataclass(frozen=True)
class Mode:
    """One way to ask: so many requests at a time."""

    name: str
    at_once: int
    samples: Callable[[int], Sequence[Sample]]  # of a round


@dataclass
class Comparison:
    """What all rounds of one mode gave; the first engine is the one that others are compared to."""

    mode: str
    runs: dict[str, list[Measured]] = field(default_factory=dict)

    def ratios(self, name: str) -> list[float]:
        """The first engine's rate by this one's, round by round."""
        first = next(iter(self.runs.values()))
        return [
            mine.rate / theirs.rate for mine, theirs in zip(first, self.runs[name], strict=True)
        ]

    def agreement(self, name: str) -> float:
        """Share of the words before the first that differs from the first engine's."""
        first = next(iter(self.runs.values()))
        pairs = [
            (a, b)
            for mine, theirs in zip(first, self.runs[name], strict=True)
            for a, b in zip(mine.words, theirs.words, strict=True)
        ]
        return sum(_same(a, b) for a, b in pairs) / max(1, sum(len(a) for a, _ in pairs))

    def as_json(self) -> dict[str, Any]:
        """For --output-json."""
        return {
            name: {
                "output_throughput": [run.rate for run in runs],
                "cpu_seconds_per_1k_output_tokens": [run.cpu for run in runs],
                "ratios": self.ratios(name),
                "same_words": self.agreement(name),
            }
            for name, runs in self.runs.items()
        }

    def table(self) -> Table:
        """A row for each engine."""
        first = next(iter(self.runs))
        made = Table(
            self.mode, "output tokens/s", f"{first} is faster by", "least", "most",
            "CPU s/1000 tokens", "same words", box=None, pad_edge=False,
        )  # fmt: skip
        for name, runs in self.runs.items():
            ratios = self.ratios(name)
            made.add_row(
                name,
                f"{statistics.median(run.rate for run in runs):.1f}",
                *(f"{x:.2f}" for x in (statistics.median(ratios), min(ratios), max(ratios))),
                f"{statistics.median(run.cpu for run in runs):.2f}",
                f"{self.agreement(name):.0%}",
            )
        return made


def run_rounds(
    peers: Sequence[Peer],
    modes: Iterable[Mode],
    rounds: int,
    said: Callable[[str], object] = lambda line: None,
) -> list[Comparison]:
    """Every mode `rounds` times through every engine, after a round that does not count.

    `said` is told what was measured as soon as it was.
    """
    found = []
    for mode in modes:
        comparison = Comparison(mode.name, {peer.name: [] for peer in peers})
        for peer in peers:
            said(f"{mode.name}: {peer.name} warms up")
            peer.run(mode.samples(-1), mode.at_once)
            peer.wait_until_quiet()
        for index in range(rounds):
            samples = mode.samples(index)
            for peer in peers if index % 2 == 0 else reversed(peers):
                measured = peer.run(samples, mode.at_once)
                comparison.runs[peer.name].append(measured)
                said(
                    f"{mode.name}, round {index + 1} of {rounds}: {peer.name} "
                    f"{measured.rate:.1f} output tokens/s"
                )
        found.append(comparison)
    return found


def _same(a: Sequence[str], b: Sequence[str]) -> int:
    pairs = enumerate(zip(a, b, strict=False))
    return next((i for i, (x, y) in pairs if x != y), min(len(a), len(b)))
