"""How many requests of one key may be at work at a time; the next one is a 429.

Counts requests with a body (POST) from before the body is read until the answer is sent, and
WebSockets while they are open; a response in the background counts until it ends. The operator is
not limited.
"""

from collections import Counter
from collections.abc import Callable

from starlette.types import ASGIApp, Receive, Scope, Send

from serve.errors import LimitError, early_response
from serve.http.owner import owner_of
from serve.operations.metrics import Metrics
from serve.operations.operator_routes import OPERATOR_PATHS

_PLACE = "place"  # of the request's state


class KeyLimits:
    """Requests at work by key; keys with none take no memory."""

    def __init__(self, limit: int | None, metrics: Metrics) -> None:
        self._limit = limit
        self._metrics = metrics
        self._at_work: Counter[str] = Counter()

    def check(self, owner: str) -> None:
        """Raise LimitError if `owner` has no room for another request."""
        if self._limit is not None and self._at_work[owner] >= self._limit:
            self._metrics.rejected("key_limit")
            raise LimitError(
                f"This key has {self._limit} requests at work, as many as it may; try again when "
                "one has ended."
            )

    def take(self, owner: str) -> "Place":
        """Count one more request of `owner`."""
        return Place(self._at_work, owner)


class Place:
    """One request that counts until it is given back, which is done once."""

    def __init__(self, at_work: Counter[str], owner: str) -> None:
        self._at_work = at_work
        self._owner = owner
        at_work[owner] += 1
        self.kept = False  # by work that goes on behind the answer

    def give_back(self) -> None:
        """Count it no longer."""
        self._at_work[self._owner] -= 1
        if not self._at_work[self._owner]:
            del self._at_work[self._owner]


def keep_place(scope: Scope) -> Callable[[], None]:
    """Have the request count on behind its answer, until what this gives is called."""
    place: Place | None = scope.get("state", {}).get(_PLACE)
    if place is None:
        return lambda: None
    place.kept = True
    return place.give_back


class LimitKeys:
    """ASGI middleware, behind the keys: it must know whose request it is."""

    def __init__(self, app: ASGIApp, limits: KeyLimits) -> None:
        self._app = app
        self._limits = limits

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if not _counts(scope):
            await self._app(scope, receive, send)
            return
        owner = owner_of(scope)
        try:
            self._limits.check(owner)
        except LimitError as error:
            await early_response(scope["path"], error)(scope, receive, send)
            return
        place = scope.setdefault("state", {})[_PLACE] = self._limits.take(owner)
        try:
            await self._app(scope, receive, send)
        finally:
            if not place.kept:
                place.give_back()


def _counts(scope: Scope) -> bool:
    if scope["type"] != "http":
        return bool(scope["type"] == "websocket")
    path: str = scope["path"]
    operators = path.startswith("/admin/") or path in OPERATOR_PATHS
    return scope["method"] == "POST" and not operators and path[-7:] != "/cancel"
