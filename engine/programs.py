"""The compiled steps: lowered one after another, compiled in threads, used as soon as ready.

Programs are compiled ahead of time and called as executables, so a request cannot cause a
compile: a shape without a program is an error, not a pause. The engine serves when the largest
program of each family is ready; until its own is, a step is padded up to one that is.
"""

import logging
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from time import perf_counter
from typing import Any

import jax

from engine.errors import EngineError
from engine.shapes import Shapes, StepShape

logger = logging.getLogger(__name__)

_WORKERS = 2
_STACK_BYTES = 64 * 2**20  # XLA's passes overflow the usual 8 MB on deep programs

Lower = Callable[[StepShape], jax.stages.Lowered]


@dataclass(frozen=True)
class Program:
    """One compiled step, and what it cost."""

    shape: StepShape
    run: Any  # the executable
    compile_seconds: float

    @property
    def temporary_bytes(self) -> int:
        """Device memory it needs while it runs, besides its arguments."""
        return int(self.run.memory_analysis().temp_size_in_bytes)


@dataclass
class Programs:
    """Executables by shape. `lower` traces one shape; it is called from one thread at a time."""

    shapes: Shapes
    lower: Lower
    _ready: dict[StepShape, Program] = field(default_factory=dict)
    _stop: threading.Event = field(default_factory=threading.Event)
    _background: threading.Thread | None = None

    def compile_largest(self) -> None:
        """Block until every step can run in some program."""
        self._compile(self.shapes.largest())

    def compile_rest(self) -> None:
        """Compile the other shapes in the background, the ones that traffic uses first."""
        rest = [s for s in [*self.shapes.decode(), *self.shapes.mixed()] if s not in self._ready]
        self._background = threading.Thread(
            target=self._compile_quietly, args=(rest,), name="ingot-compile", daemon=True
        )
        self._background.start()

    def wait(self) -> None:
        """Block until nothing is left to compile."""
        if self._background is not None:
            self._background.join()

    def close(self) -> None:
        """Compile nothing more, and wait for what is being compiled."""
        self._stop.set()
        self.wait()

    @property
    def ready(self) -> list[Program]:
        """What can run now, decode first, the smallest first."""
        programs = list(self._ready.values())
        return sorted(programs, key=lambda p: (not p.shape.decode, p.shape.tokens))

    def find(self, num_tokens: int, decode: bool) -> Program:
        """The smallest ready program that takes so many tokens, one a row if `decode`."""
        fitting = [s for s in list(self._ready) if self.shapes.fits(s, num_tokens, decode)]
        if not fitting:
            raise EngineError(f"No program takes a step of {num_tokens} tokens.")
        return self._ready[min(fitting, key=lambda s: (s.tokens, not s.decode))]

    def _compile_quietly(self, shapes: list[StepShape]) -> None:
        """A shape that fails is logged; steps of its size go on in a larger one."""
        try:
            self._compile(shapes)
        except Exception:
            logger.exception("a step program could not be compiled; larger ones stand in for it")

    def _compile(self, shapes: list[StepShape]) -> None:
        """Lower here, compile in threads."""
        previous = threading.stack_size(_STACK_BYTES)
        try:
            with ThreadPoolExecutor(_WORKERS, thread_name_prefix="ingot-xla") as pool:
                futures = []
                for shape in shapes:
                    if self._stop.is_set():
                        break
                    futures.append(pool.submit(self._finish, shape, self.lower(shape)))
                for future in futures:
                    future.result()
        finally:
            threading.stack_size(previous)

    def _finish(self, shape: StepShape, lowered: jax.stages.Lowered) -> None:
        if not self._stop.is_set():
            start = perf_counter()
            compiled = lowered.compile()
            self._ready[shape] = Program(shape, compiled, perf_counter() - start)
            logger.debug("program ready: %s", shape)
