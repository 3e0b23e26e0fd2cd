"""What the operator has asked of the engine, and who waits for each answer. Knows no HTTP."""

import asyncio
from collections.abc import Sequence
from itertools import count

from msgspec.structs import replace

from engine.errors import RequestError
from engine.messages import Answer, Question
from models.errors import IngotError

Done = asyncio.Future[None]


class EngineCalls:
    """All of one engine."""

    def __init__(self) -> None:
        self._ids = count()
        self._waiters: dict[int, Done] = {}

    def start(self, question: Question) -> tuple[Question, Done]:
        """The question with a call's id, which is to be sent, and what is done once the engine has
        answered it."""
        call_id = next(self._ids)
        done: Done = asyncio.get_running_loop().create_future()
        self._waiters[call_id] = done
        return replace(question, call_id=call_id), done

    def see(self, answers: Sequence[Answer]) -> None:
        """Hand the engine's answers over."""
        for answer in answers:
            done = self._waiters.pop(answer.call_id, None)
            if done is None or done.done():  # who waited has gone
                continue
            if answer.error is None:
                done.set_result(None)
            else:
                done.set_exception(RequestError(answer.error, answer.param))

    def fail(self, error: IngotError) -> None:
        """End everything with `error`."""
        for done in self._waiters.values():
            if not done.done():
                done.set_exception(error)
        self._waiters.clear()
