"""One line on the terminal while something takes long, and nothing where nobody watches."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.markup import escape


@contextmanager
def status(text: str) -> Iterator[Callable[[str], None]]:
    """Shows `text` while inside; what it gives shows another."""
    console = Console(stderr=True)
    if not console.is_terminal:
        yield lambda text: None
        return
    with console.status(escape(text)) as shown:
        yield lambda text: shown.update(escape(text))
