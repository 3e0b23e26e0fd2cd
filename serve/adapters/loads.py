"""Adapters that the engine is reading, and who waits for each. Knows neither HTTP nor names."""

import asyncio
from collections.abc import Sequence
from itertools import count

from engine.adapters.request import LoRARequest
from engine.errors import RequestError
from engine.messages import AdapterRead, LoadAdapter
from models.errors import IngotError

Loaded = asyncio.Future[None]


class AdapterLoads:
    """All of one engine."""

    def __init__(self) -> None:
        self._ids = count()
        self._waiters: dict[int, Loaded] = {}

    def start(self, lora: LoRARequest) -> tuple[LoadAdapter, Loaded]:
        """The message to send, and what is done once the engine has answered it."""
        message = LoadAdapter(next(self._ids), lora)
        loaded: Loaded = asyncio.get_running_loop().create_future()
        self._waiters[message.load_id] = loaded
        return message, loaded

    def see(self, answers: Sequence[AdapterRead]) -> None:
        """Hand the engine's answers over."""
        for answer in answers:
            loaded = self._waiters.pop(answer.load_id, None)
            if loaded is None or loaded.done():  # who waited has gone
                continue
            if answer.error is None:
                loaded.set_result(None)
            else:
                loaded.set_exception(RequestError(answer.error, "lora_path"))

    def fail(self, error: IngotError) -> None:
        """End everything with `error`."""
        for loaded in self._waiters.values():
            if not loaded.done():
                loaded.set_exception(error)
        self._waiters.clear()
