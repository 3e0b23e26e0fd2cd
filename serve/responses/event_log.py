"""The events of a response that is made in the background and streamed: kept as they come, so that
a client may read along, leave, and go on reading where it was."""

import asyncio
from collections.abc import AsyncIterator, Iterable, Iterator

from serve.responses.protocol import ResponseEvent

Events = list[ResponseEvent]


class EventLog:
    """Event number n of a response is the n-th here."""

    def __init__(self) -> None:
        self.events: Events = []
        self._closed = False
        self._changed = asyncio.Event()

    def add(self, event: ResponseEvent) -> None:
        """Keep one more, and tell those who wait for it."""
        self.events.append(event)
        self._wake()

    def close(self) -> None:
        """There will be no more."""
        self._closed = True
        self._wake()

    async def after(self, number: int) -> AsyncIterator[Events]:
        """Events behind that number, those that are still to come included; from -1 on all."""
        at = max(0, number + 1)
        while True:
            changed = self._changed
            if at < len(self.events):
                news = self.events[at:]
                at += len(news)
                yield news
            elif self._closed:
                return
            else:
                await changed.wait()

    def _wake(self) -> None:
        self._changed.set()
        self._changed = asyncio.Event()


class AsLogged:
    """Shows events as they are."""

    def of(self, events: Events) -> Iterable[ResponseEvent]:
        """They."""
        return events

    def last(self) -> Iterator[ResponseEvent]:
        """Nothing more."""
        return iter(())
