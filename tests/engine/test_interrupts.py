"""Ctrl-C waits until what is being noted is noted."""

import os
import signal
import threading
import time
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest

from engine.calls import Call, Loop
from engine.compiling.programs import Programs
from engine.config import EngineConfig
from engine.interrupts import held_back
from engine.messages import StepReport
from engine.profiling.profiler import Profiler
from engine.prompts import Prompt
from engine.sampling.params import SamplingParams
from tests.fake_engine import FakeCore


@pytest.fixture(autouse=True)
def python_s_own_handler() -> Iterator[None]:
    """Also where a shell started the tests in the background, which ignores Ctrl-C."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


def test_an_interrupt_inside_is_raised_behind() -> None:
    noted = []
    with pytest.raises(KeyboardInterrupt), held_back():
        signal.raise_signal(signal.SIGINT)
        noted.append("all of it")
    assert noted
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_an_error_inside_is_that_error() -> None:
    with pytest.raises(ValueError, match="own"), held_back():
        raise ValueError("own")
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_a_thread_has_nothing_to_hold_back() -> None:
    def inside() -> None:
        with held_back():
            known.append(signal.getsignal(signal.SIGINT))

    known: list[object] = []
    thread = threading.Thread(target=inside)
    thread.start()
    thread.join()
    assert known == [signal.default_int_handler]


def test_a_process_that_ignores_it_goes_on_doing_so() -> None:
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        with held_back():
            signal.raise_signal(signal.SIGINT)
        assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGINT, before)


def test_what_an_interrupted_step_gave_another_call_is_there(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The step is done, and nobody has its report yet."""
    core = FakeCore(EngineConfig())
    loop = Loop(core, None, None, Profiler(None))  # type: ignore[arg-type]
    params = SamplingParams(max_tokens=5, detokenize=False)
    first, second = Call(loop), Call(loop)
    for call in (first, second):
        call.add(Prompt(ids=[72, 105]), params)
    step = core.step

    def interrupted() -> StepReport:
        report = step()
        signal.raise_signal(signal.SIGINT)
        return report

    monkeypatch.setattr(core, "step", interrupted)
    with pytest.raises(KeyboardInterrupt), first:
        list(first.deltas())
    monkeypatch.setattr(core, "step", step)
    written = [token for delta in second.deltas() for token in delta.token_ids]
    assert written == [72, 105, 72, 105, 72]


def test_a_thread_that_compiles_is_still_waited_for_at_the_end_of_the_interpreter() -> None:
    """XLA would crash under it. An interrupted `join` would take it for ended."""

    def lower(shape: object) -> Any:
        time.sleep(0.2)  # until it is waited for
        os.kill(os.getpid(), signal.SIGINT)
        go_on.wait(60)

    go_on, shapes = threading.Event(), SimpleNamespace(largest=lambda: ["a shape"])
    programs = Programs(shapes, lower)  # type: ignore[arg-type]
    before = set(threading.enumerate())
    with pytest.raises(KeyboardInterrupt):
        programs.compile_largest()
    left = set(threading.enumerate()) - before
    assert left and all(thread.is_alive() for thread in left)
    go_on.set()
    programs.close()
