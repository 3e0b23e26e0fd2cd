"""The servers behind the router: which of them can be asked, and which one should be.

    a stored response         ─▶ the backend that keeps it
    a session_id              ─▶ the backend that had the last of that name, unless it is far busier
    a beginning that is known ─▶ the backend that has seen most of it, unless it is far busier
    anything else             ─▶ the backend with the fewest requests at work

Owns their state and the choice; it sends nothing but questions after their health.
"""

import asyncio
import logging
from collections import OrderedDict
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Literal

from serve.http.server_address import ServerAddress
from serve.router.prefixes import Beginning, SeenPrefixes
from serve.router.upstream import Call, UpstreamError, Waiting, ask

logger = logging.getLogger("ingot.router")

HEALTH_SECONDS = 2.0  # between two checks, and the time that one may take
MAX_SILENT = 3  # checks in a row without an answer, 10 s: the server hangs
WORTH = 0.3  # share of a beginning that must be known before it outweighs an idle backend
MANY_MORE = 16  # requests; a backend that has more than so many over the least is left alone ...
TIMES_MORE = 1.5  # ... if it has more than so many times as well
MAX_RESPONSES = 100_000  # whose backends are remembered; likewise of names

Choice = Literal["response", "session", "prefix", "load"]


@dataclass(eq=False)
class Backend:
    """One server."""

    url: str
    server: ServerAddress
    is_healthy: bool = False
    is_lost: bool = False  # which was said
    at_work: int = 0
    asked: int = 0
    silent: int = 0  # checks in a row of which nothing was heard
    waiting: Waiting = field(default_factory=Waiting)
    seen: SeenPrefixes = field(default_factory=SeenPrefixes)

    @contextmanager
    def working(self, beginning: Beginning) -> Iterator[None]:
        """While it has a request."""
        self.at_work += 1
        self.asked += 1
        self.seen.add(beginning.hashes)
        try:
            yield
        finally:
            self.at_work -= 1

    async def check(self) -> None:
        """Ask it whether it is ready; servers without /readyz have /health."""
        healthy = False
        for path in ("/readyz", "/health"):
            try:
                async with ask(self.server, Call("GET", path, (), b""), HEALTH_SECONDS) as answer:
                    healthy, self.silent = answer.status == 200, 0
                    if answer.status != 404:
                        break
            except UpstreamError as error:  # who drains may refuse connections, and still answer
                self.silent = self.silent + 1 if error.silent else 0
                break
        if healthy and not self.is_healthy:
            self.seen.clear()
        if not healthy and not self.is_lost:
            logger.warning("%s is not ready; it is asked nothing until it is.", self.url)
        elif healthy and self.is_lost:
            logger.warning("%s is ready.", self.url)
        self.is_healthy, self.is_lost = healthy, not healthy


class Backends:
    """All of them."""

    def __init__(self, urls: Collection[str]) -> None:
        self.all = [Backend(url, ServerAddress.parse(url)) for url in urls]
        self._responses: OrderedDict[str, Backend] = OrderedDict()
        self._families: OrderedDict[str, Backend] = OrderedDict()

    async def check(self) -> None:
        """Ask each whether it is ready; what was asked of one that hangs is asked of another."""
        await asyncio.gather(*(each.check() for each in self.all))
        if any(each.is_healthy for each in self.all):
            for each in self.all:
                if each.silent >= MAX_SILENT:
                    each.waiting.give_up(MAX_SILENT * HEALTH_SECONDS)

    async def watch(self) -> None:
        """Go on checking, for ever, whatever happens: who was lost has to be found again."""
        while True:
            try:
                await self.check()
            except Exception:
                logger.exception("A look after the servers failed.")
            await asyncio.sleep(HEALTH_SECONDS)

    def remember(self, response_id: str, backend: Backend) -> None:
        """`backend` keeps this response, or session."""
        _remember(self._responses, response_id, backend)

    def answered(self, beginning: Beginning, backend: Backend) -> None:
        """`backend` answers a request, and is the one to ask what belongs to it."""
        if beginning.family is not None:
            _remember(self._families, beginning.family, backend)

    def choose(
        self, beginning: Beginning, tried: Collection[Backend], response_id: str | None = None
    ) -> tuple[Backend, Choice] | None:
        """The backend to ask, and why; None if none is left."""
        kept = response_id or beginning.previous_response_id or beginning.session
        keeper = self._responses.get(kept or "")
        if keeper is not None:
            return None if keeper in tried else (keeper, "response")
        open_ones = [each for each in self.all if each.is_healthy and each not in tried]
        if not open_ones:
            return None
        least = min(open_ones, key=lambda each: (each.at_work, each.asked))
        most = max(least.at_work + MANY_MORE, TIMES_MORE * least.at_work)
        home = self._families.get(beginning.family or "")
        if home in open_ones and home.at_work <= most:
            return home, "session"
        best = max(open_ones, key=lambda each: (each.seen.match(beginning.hashes), -each.at_work))
        known = best.seen.match(beginning.hashes)
        if known and known >= WORTH * len(beginning.hashes) and best.at_work <= most:
            return best, "prefix"
        return least, "load"


def _remember(homes: OrderedDict[str, Backend], name: str, backend: Backend) -> None:
    """Of too many, what was remembered longest ago is forgotten."""
    homes[name] = backend
    homes.move_to_end(name)
    while len(homes) > MAX_RESPONSES:
        homes.popitem(last=False)
