"""Functions whose first argument is a state: run once, or for many arguments side by side.

In a batch each call has a thread, for it may read values and decide by them. Threads only ask; one
of them, the caller's, turns the engine, so that nothing in it needs a lock.
"""

import queue
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from functools import update_wrapper
from itertools import count
from typing import Any, Concatenate, Generic, ParamSpec, Protocol

from engine.errors import EngineError
from engine.language.backend import Answer, Ask, Backend, Requests
from engine.language.state import State
from models.errors import IngotError

_TURN = 0.1  # seconds until a thread that waits looks whether it waits in vain

P = ParamSpec("P")


class HasState(Protocol):
    """`LLM` or `Remote`."""

    def state(self, text: str = "") -> State: ...


class Function(Generic[P]):
    """A body that adds to a state; made by `function`."""

    def __init__(self, body: Callable[Concatenate[State, P], object]) -> None:
        self._body = body
        update_wrapper(self, body)

    def __call__(self, state: State, *args: P.args, **kwargs: P.kwargs) -> State:
        """Go on with a state that there is, as a part of another function."""
        self._body(state, *args, **kwargs)
        return state

    def run(self, model: HasState, *args: P.args, **kwargs: P.kwargs) -> State:
        """Call the body with a new state of `model`, and run what it asked for."""
        return self(model.state(), *args, **kwargs).run()

    def batch(
        self, model: HasState, calls: Sequence[Mapping[str, Any]], *, num_threads: int = 64
    ) -> list[State]:
        """One run for each mapping of keyword arguments, side by side; their states in order.

        An `IngotError` that leaves a body ends its state, is raised where that state is read, and
        harms no other. Any other exception is raised here, once all have ended.
        """
        if not calls:
            return []
        switchboard = _Switchboard()
        backend = model.state().backend
        with ThreadPoolExecutor(min(num_threads, len(calls)), "ingot-batch") as threads:
            futures = [threads.submit(self._one, switchboard, call) for call in calls]
            for future in futures:
                future.add_done_callback(switchboard.hang_up)
            try:
                switchboard.serve(backend, len(futures))
            except BaseException:
                for future in futures:
                    future.cancel()
                raise
        states = [future.result() for future in futures]
        for state in states:
            state.backend = backend
        return states

    def _one(self, switchboard: "_Switchboard", kwargs: Mapping[str, Any]) -> State:
        state = State(switchboard)
        try:
            self._body(state, **kwargs)  # type: ignore[call-arg]
        except IngotError as error:
            state.fail(error)
        return state.run()


def function(body: Callable[Concatenate[State, P], object]) -> Function[P]:
    """Decorator of `def ask(s: State, question: str) -> None`: `ask.run(llm, "Who are you?")`."""
    return Function(body)


class _Switchboard:
    """A backend for threads, whose requests are made by the one thread that serves it."""

    def __init__(self) -> None:
        self.calls: queue.SimpleQueue[_Call | None] = queue.SimpleQueue()
        self.failure: IngotError | None = None  # what ended the serving, and ends every request
        self._numbers = count()
        self._asked: dict[int, tuple[_Line, int]] = {}

    def requests(self) -> "_Line":
        return _Line(self)

    def hang_up(self, _: "Future[State]") -> None:
        """One of the threads has ended."""
        self.calls.put(None)

    def serve(self, backend: Backend, num_threads: int) -> None:
        """Make the requests of so many threads until all have ended."""
        try:
            with backend.requests() as requests:
                while num_threads:
                    if self._asked and self.calls.empty():
                        self._turn(requests)
                    elif (call := self.calls.get()) is None:
                        num_threads -= 1
                    else:
                        self._start(requests, *call)
        except BaseException as error:
            interrupted = EngineError("The batch was interrupted.")
            self.failure = error if isinstance(error, IngotError) else interrupted
            raise

    def _start(self, requests: Requests, line: "_Line", key: int, ask: Ask) -> None:
        number = next(self._numbers)
        try:
            requests.start(number, ask)
            self._asked[number] = line, key
        except IngotError as error:
            line.answers.put((key, error))

    def _turn(self, requests: Requests) -> None:
        for number, answer in requests.turn():
            line, key = self._asked.pop(number)
            line.answers.put((key, answer))


class _Line:
    """The requests of one thread."""

    def __init__(self, switchboard: _Switchboard) -> None:
        self._switchboard = switchboard
        self.answers: queue.SimpleQueue[tuple[int, Answer]] = queue.SimpleQueue()

    def start(self, key: int, ask: Ask) -> None:
        self._switchboard.calls.put((self, key, ask))

    def turn(self) -> list[tuple[int, Answer]]:
        """An answer, once there is one; raises what ended the serving."""
        try:
            return [self.answers.get(timeout=_TURN)]
        except queue.Empty:
            if self._switchboard.failure is not None:
                raise self._switchboard.failure from None
            return []

    def __enter__(self) -> "_Line":
        return self

    def __exit__(self, *_: object) -> None:
        """A thread waits for all that it asks; what it no longer waits for has failed."""


_Call = tuple[_Line, int, Ask]
