"""A progress bar in terminals and notebooks, shown once work has taken a second."""

from time import monotonic

from rich import progress
from rich.console import Console

_PATIENCE = 1.0  # seconds before anything is shown
_INTERVAL = 0.1  # seconds between updates


class Progress:
    """Counts finished sequences and generated tokens; a context manager."""

    def __init__(self, total: int, *, enabled: bool) -> None:
        console = Console(stderr=True)
        self._enabled = enabled and (console.is_terminal or console.is_jupyter)
        self._bar = progress.Progress(
            progress.TextColumn("{task.description}"),
            progress.BarColumn(),
            progress.MofNCompleteColumn(),
            progress.TimeElapsedColumn(),
            progress.TextColumn("{task.fields[rate]}"),
            console=console,
            transient=True,
        )
        self._task = self._bar.add_task("generating", total=total, rate="")
        self._start = monotonic()
        self._shown = False
        self._tokens = self._finished = 0
        self._due = _PATIENCE

    def advance(self, tokens: int, finished: bool) -> None:
        """`tokens` more were generated, and perhaps they ended a request."""
        if not self._enabled:
            return
        self._tokens += tokens
        self._finished += finished
        seconds = monotonic() - self._start
        if seconds < self._due:
            return
        if not self._shown:
            self._shown = True
            self._bar.start()
        self._due = seconds + _INTERVAL
        rate = f"{self._tokens / seconds:.0f} tokens/s"
        self._bar.update(self._task, completed=self._finished, rate=rate)

    def __enter__(self) -> "Progress":
        return self

    def __exit__(self, *_: object) -> None:
        if self._shown:
            self._bar.stop()
