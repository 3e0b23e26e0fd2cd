"""Ctrl-C waits until what is being noted is noted."""

import signal
import threading

import pytest

from engine.interrupts import held_back


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
