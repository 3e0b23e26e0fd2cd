"""The compiled steps: lowered one after another, compiled in threads, used as soon as ready.

Programs are compiled ahead of time and called as executables, so a request cannot cause a
compile: a shape without a program is an error, not a pause. The engine serves when the largest
program of each family is ready; until its own is, a step is padded up to one that is.
"""

import logging
import threading
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from time import perf_counter
from typing import Any

import jax

from engine.compiling.shapes import Shapes, StepShape
from engine.errors import EngineError

logger = logging.getLogger(__name__)

_WORKERS = 2
_THREAD_NAME = "ingot-compile"
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
        """Device memory it needs while it runs, and for its results, besides its arguments."""
        memory = self.run.memory_analysis()
        results = memory.output_size_in_bytes - memory.alias_size_in_bytes
        return int(memory.temp_size_in_bytes + max(0, results))


@dataclass
class Programs:
    """Executables by shape. `lower` traces one shape; never two at a time."""

    shapes: Shapes
    lower: Lower
    options: dict[str, str | bool] = field(default_factory=dict)  # of XLA
    num_unexpected_compiles: int = 0  # inside steps
    _ready: dict[StepShape, Program] = field(default_factory=dict)
    _taking: dict[int, Program] = field(default_factory=dict)  # by the step's rows of logits
    _late: dict[int, Program] = field(default_factory=dict)  # by the rows that are sampled
    _num_late: int = 0  # of both, once all are ready
    _failures: list[BaseException] = field(default_factory=list)
    _lowering: threading.Lock = field(default_factory=threading.Lock)
    _serving: int | None = None  # the thread that is inside a step
    _stop: threading.Event = field(default_factory=threading.Event)
    _ended: list[threading.Event] = field(default_factory=list)  # of each thread

    def compile_largest(self) -> None:
        """Block until every step can run in some program; raises what XLA raises."""
        self._start(self.shapes.largest())
        self.wait()
        if self._failures:
            raise self._failures[0]

    def compile_rest(self) -> None:
        """Compile the other shapes in the background, the ones that traffic uses first."""
        shapes = [*self.shapes.decode(), *self.shapes.mixed(), *self.shapes.windowed()]
        rest = [shape for shape in shapes if shape not in self._ready]
        late = self.shapes.sampled_late()
        self._num_late = len(late)
        jax.monitoring.register_event_duration_secs_listener(self._watch)
        self._start(rest + late)

    def wait(self) -> None:
        """Block until nothing is left to compile.

        Not by `Thread.join`: one that Ctrl-C interrupts takes the thread for ended (CPython 3.11
        and 3.12), and the interpreter ends under it.
        """
        for ended in self._ended:
            ended.wait()

    def close(self) -> None:
        """Compile nothing more, wait for what is being compiled, and let go of it all."""
        self._stop.set()
        self.wait()
        with suppress(AssertionError, ValueError):  # it never listened, or was closed before
            jax.monitoring.unregister_event_duration_listener(self._watch)
        self._ready.clear()
        self._taking.clear()
        self._late.clear()

    @property
    def ready(self) -> list[Program]:
        """What can run now, decode first, the smallest first."""
        programs = list(self._ready.values())
        return sorted(programs, key=lambda p: (not p.shape.decode, p.shape.window, p.shape.tokens))

    def windows(self, rows: int) -> list[int]:
        """Numbers of turns of the programs that are ready and pad so many rows least, falling."""
        shape = self.shapes.smallest_decode(rows)
        return [w for w in self.shapes.windows if replace(shape, window=w) in self._ready]

    @property
    def samples_late(self) -> bool:
        """Whether rows of every step can be sampled after it: those programs are ready."""
        return len(self._taking) + len(self._late) == self._num_late > 0

    def taking(self, rows: int) -> Program:
        """What takes some of the rows of a step's logits."""
        return self._taking[rows]

    def late(self, rows: int) -> Program:
        """What samples so many rows that were taken."""
        return self._late[min(size for size in self._late if size >= rows)]

    def find(self, num_tokens: int, decode: bool, window: int = 1) -> Program:
        """The smallest ready program that takes so many tokens, one a row if `decode`."""
        fitting = [s for s in list(self._ready) if self.shapes.fits(s, num_tokens, decode, window)]
        if not fitting:
            raise EngineError(f"No program takes a step of {num_tokens} tokens.")
        return self._ready[min(fitting, key=lambda s: (s.tokens, not s.decode))]

    @contextmanager
    def serving(self) -> Iterator[None]:
        """Whatever this thread compiles inside is unexpected."""
        self._serving = threading.get_ident()
        try:
            yield
        finally:
            self._serving = None

    def _start(self, shapes: list[StepShape]) -> None:
        """Compile in threads; no daemons, for XLA crashes an interpreter that ends under it."""
        pending = deque(shapes)
        previous = threading.stack_size(_STACK_BYTES)
        try:
            for _ in range(_WORKERS):
                ended = threading.Event()
                work = threading.Thread(target=self._run, args=(pending, ended), name=_THREAD_NAME)
                work.start()
                self._ended.append(ended)
        finally:
            threading.stack_size(previous)

    def _run(self, pending: deque[StepShape], ended: threading.Event) -> None:
        try:
            self._work(pending)
        finally:
            ended.set()

    def _work(self, pending: deque[StepShape]) -> None:
        """Take shapes until none is left, the programs are closed, or the interpreter ends."""
        while not self._stop.is_set() and threading.main_thread().is_alive():
            try:
                with self._lowering:
                    if not pending:
                        return
                    shape = pending.popleft()
                    lowered = self.lower(shape)
                start = perf_counter()
                compiled = lowered.compile(compiler_options=self.options)
                program = Program(shape, compiled, perf_counter() - start)
                if shape.takes:
                    self._taking[shape.rows] = program
                elif shape.late:
                    self._late[shape.tokens] = program
                else:
                    self._ready[shape] = program
            except Exception as error:
                self._failures.append(error)
                logger.warning("%s: not compiled, a larger step stands in: %s", shape, error)

    def _watch(self, event: str, duration_secs: float, **_: str | int) -> None:
        """A step compiles nothing; if one does, it is counted and logged."""
        if "backend_compile" in event and threading.get_ident() == self._serving:
            self.num_unexpected_compiles += 1
            logger.warning("a step compiled something, in %.2f s", duration_secs)
