"""Programs are lowered one at a time, compiled side by side, and stood in for until they are there.

The compiler of most tests compiles nothing: it says who asked, and waits until a test lets it go.
"""

import threading
import time
from types import SimpleNamespace

import pytest

from engine.compiling import programs as module
from engine.compiling.programs import Programs
from engine.compiling.shapes import Shapes
from engine.errors import EngineError
from engine.sampling.params import SamplingParams
from tests.engine.conftest import make_core, run
from tests.programs_on_demand import compile_at_once

SHAPES = Shapes(8, 64, 128, 16, windows=(4, 2), loops=True)
PATIENCE = 60.0  # seconds, of something that takes none


class Compiler:
    """`lower` of `Programs`, and what it gives."""

    def __init__(self, fails=()):
        self.fails = fails
        self.lowering = self.compiling = 0
        self.most_lowered = 0
        self.at_once = threading.Semaphore(0)  # released by each that compiles
        self.go_on = threading.Event()

    def lower(self, shape):
        self.lowering += 1
        self.most_lowered = max(self.most_lowered, self.lowering)
        time.sleep(0.005)  # another thread has time to be here too
        lowered = SimpleNamespace(compile=lambda compiler_options: self.compile(shape))
        self.lowering -= 1
        return lowered

    def compile(self, shape):
        self.at_once.release()
        assert self.go_on.wait(PATIENCE)
        if str(shape) in self.fails:
            raise ValueError("too large")
        return f"run {shape}"


@pytest.fixture
def started(monkeypatch):
    """Programs of which the largest are ready, whose others are being compiled."""
    made = []

    compile_at_once(monkeypatch)

    def start(**given):
        compiler = Compiler(**given)
        programs = Programs(SHAPES, compiler.lower)
        made.append((programs, compiler))
        compiler.go_on.set()
        programs.compile_largest()
        compiler.go_on.clear()
        programs.compile_rest()
        return programs, compiler

    yield start
    for programs, compiler in made:
        compiler.go_on.set()
        programs.close()


def names(programs):
    return [str(program.shape) for program in programs.ready]


def test_a_step_runs_in_the_largest_until_its_own_is_there(started):
    programs, compiler = started()
    assert names(programs) == ["decode 8 rows", "mixed 64 tokens"]
    assert programs.find(1, True).run == "run decode 8 rows"
    assert programs.find(3, False).run == programs.find(9, True).run == "run mixed 64 tokens"
    assert programs.windows(1) == []
    with pytest.raises(EngineError, match="No program takes a step of 65 tokens"):
        programs.find(65, False)
    compiler.go_on.set()
    programs.wait()
    assert programs.find(1, True).run == "run decode 1 rows"
    assert programs.find(3, True).run == "run decode 4 rows"
    assert programs.find(3, False).run == "run mixed 16 tokens"
    assert programs.windows(3) == [4, 2]
    assert programs.find(3, True, 4).run == "run decode 4 rows, 4 steps"


def test_a_program_that_cannot_be_compiled_is_stood_in_for(started, caplog):
    programs, compiler = started(fails=("decode 2 rows", "mixed 16 tokens"))
    compiler.go_on.set()
    programs.wait()
    assert programs.find(2, True).run == "run decode 4 rows"
    assert programs.find(9, False).run == "run mixed 32 tokens"
    assert sum("a larger step stands in: too large" in r.getMessage() for r in caplog.records) == 2


def test_the_largest_must_be_there():
    compiler = Compiler(fails=("mixed 64 tokens",))
    compiler.go_on.set()
    with pytest.raises(ValueError, match="too large"):
        Programs(SHAPES, compiler.lower).compile_largest()


def test_they_are_lowered_one_by_one_and_compiled_in_threads_of_large_stacks(monkeypatch):
    sizes, stack_size = [], threading.stack_size
    monkeypatch.setattr(threading, "stack_size", lambda *size: sizes.append(size) or stack_size())
    compiler = Compiler()
    programs = Programs(SHAPES, compiler.lower)
    thread = threading.Thread(target=programs.compile_largest)
    thread.start()
    both = [compiler.at_once.acquire(timeout=PATIENCE) for _ in range(module._WORKERS)]
    compiler.go_on.set()
    thread.join()
    programs.close()
    assert both == [True, True] and compiler.most_lowered == 1
    assert sizes[0] == (64 * 2**20,) and sizes[-1] == (stack_size(),)  # for no other's threads


def test_what_is_not_begun_is_not_compiled_at_the_end(started):
    programs, compiler = started()
    for _ in range(2 + module._WORKERS):  # the largest, and those in the threads now
        assert compiler.at_once.acquire(timeout=PATIENCE)
    programs._stop.set()
    compiler.go_on.set()
    programs.close()
    assert not compiler.at_once.acquire(blocking=False) and programs.ready == []


def test_larger_steps_write_the_same(tiny_folder, core, monkeypatch):
    """A server that has just started: prompts and rows of every size in two programs."""
    prompts = [[5, 6, 7], [9] * 30, [11], [8, 9] * 10]
    params = [SamplingParams(max_tokens=9 + n, temperature=n % 2, seed=n) for n in range(4)]
    monkeypatch.setattr(Programs, "compile_rest", lambda self: None)
    early = make_core(tiny_folder)
    try:
        assert len(early.programs) == 2 < len(core.programs)
        for between in (0, 3):
            texts = [run(each, prompts, params, steps_between=between) for each in (early, core)]
            assert [t.ids for t in texts[0]] == [t.ids for t in texts[1]]
    finally:
        early.close()
