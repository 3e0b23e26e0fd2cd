"""How Ctrl-C ends a command: one line, exit code 130, at once.

The process ends where it is, without Python's own end: that would wait until what is being compiled
is, and crash under native threads that somebody else started.
"""

import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress

INTERRUPTED = 130  # as shells say it, and as typer does


def leave(*_: object) -> None:
    """End this process; also a handler of signals."""
    with suppress(OSError):  # who read it has been interrupted, too
        sys.stdout.flush()
        # a terminal's line may turn and its cursor be hidden: `status` shows that
        clear = "\r\x1b[K\x1b[?25h" if sys.stderr.isatty() else ""
        print(f"{clear}interrupted", file=sys.stderr, flush=True)
    os._exit(INTERRUPTED)


@contextmanager
def leaving_at_once() -> Iterator[None]:
    """Ctrl-C inside ends the process, and raises nothing: what is raised in a callback of the
    garbage collector, of which JAX has one, is lost."""
    if signal.getsignal(signal.SIGINT) is not signal.default_int_handler:
        yield
        return
    signal.signal(signal.SIGINT, leave)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, signal.default_int_handler)
