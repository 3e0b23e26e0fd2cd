"""Pictures of results: throughput against latency, and a run over time; PNG and SVG.

matplotlib is asked for when a picture is, and not before.
"""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from engine.errors import ConfigError
from serve.bench.load import Load

_WIDTH, _HEIGHT = 7.0, 4.0  # inches
_BINS = 60
_KINDS = (".png", ".svg")
_INK, _ACCENT, _SOFT = "#22313f", "#c0562f", "#3a7ca5"


def draw_run(load: Load, title: str, target: Path) -> list[Path]:
    """Output tokens a second and requests in flight, over the time of a run."""
    plt = _pyplot()
    good = [outcome for outcome in load.outcomes if outcome.success]
    if not good:
        raise ConfigError("There is nothing to draw: no request succeeded.")
    begin, width = min(outcome.start for outcome in good), max(load.duration, 1e-3) / _BINS
    tokens, running = [0.0] * _BINS, [0] * _BINS
    for outcome in good:
        time = outcome.start - begin + outcome.ttft
        for gap in (0.0, *outcome.itl):
            time += gap
            tokens[min(int(time / width), _BINS - 1)] += 1 / width
        first, last = outcome.start - begin, outcome.start - begin + outcome.latency
        for each in range(math.ceil(first / width), min(math.ceil(last / width), _BINS)):
            running[each] += 1  # when this bin begins
    edges = [width * number for number in range(_BINS + 1)]
    figure, axis = plt.subplots(figsize=(_WIDTH, _HEIGHT))
    axis.stairs(tokens, edges, color=_ACCENT, fill=True, alpha=0.35)
    axis.set_xlabel("seconds")
    axis.set_ylabel("output tokens / s", color=_ACCENT)
    other = axis.twinx()
    other.stairs(running, edges, color=_SOFT, baseline=None)
    other.set_ylabel("requests in flight", color=_SOFT)
    axis.set_xlim(0, edges[-1])
    axis.set_ylim(bottom=0)
    other.set_ylim(bottom=0)
    axis.set_title(title, loc="left", color=_INK)
    return _write(plt, figure, target)


def draw_sweep(
    results: Sequence[Mapping[str, Any]], name: str, values: Sequence[str], target: Path
) -> list[Path]:
    """One point a run: median time per output token against output tokens a second."""
    plt = _pyplot()
    figure, axis = plt.subplots(figsize=(_WIDTH, _HEIGHT))
    x = [result["output_throughput"] for result in results]
    y = [result["median_tpot_ms"] for result in results]
    axis.plot(x, y, marker="o", color=_ACCENT)
    for value, where in zip(values, zip(x, y, strict=True), strict=True):
        axis.annotate(
            value, where, textcoords="offset points", xytext=(-6, 6), ha="right", color=_INK
        )
    axis.set_xlabel("output tokens / s, all requests")
    axis.set_ylabel("ms per output token, median")
    axis.set_xlim(left=0, right=1.12 * max(x))
    axis.set_ylim(bottom=0, top=1.15 * max(y))
    axis.spines["right"].set_visible(False)
    axis.set_title(
        f"Throughput against latency, by {name.replace('-', ' ')}", loc="left", color=_INK
    )
    return _write(plt, figure, target)


def check_plots() -> None:
    """Raise ConfigError where no picture can be drawn; better before a run than after it."""
    _pyplot()


def _pyplot() -> Any:
    try:
        import matplotlib
    except ImportError:
        raise ConfigError("Pictures need matplotlib: pip install matplotlib.") from None
    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    return plt


def _write(plt: Any, figure: Any, target: Path) -> list[Path]:
    for axis in figure.axes:
        axis.spines[["top"]].set_visible(False)
    figure.tight_layout()
    target.parent.mkdir(parents=True, exist_ok=True)
    name = target.stem if target.suffix in _KINDS else target.name
    paths = [target.with_name(name + suffix) for suffix in _KINDS]
    for path in paths:
        figure.savefig(path, dpi=150)
    plt.close(figure)
    return paths
