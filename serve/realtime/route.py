"""WS /v1/realtime: who may connect, and how many."""

from urllib.parse import parse_qsl, urlsplit

from starlette.datastructures import Headers
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send
from starlette.websockets import WebSocket

from engine.errors import OverloadedError, RequestError
from models.errors import IngotError
from serve.audio.speech import speech_of
from serve.errors import ForbiddenError, TransportError, UnavailableError, early_response
from serve.generation.cache_namespace import namespace
from serve.http.http_protocol import UPGRADED
from serve.http.owner import owner_of
from serve.http.websockets import has_websockets
from serve.realtime.session import RealtimeSession
from serve.service import Service

REALTIME = UPGRADED
MAX_CONNECTIONS = 64
_INTENT = ("intent", "transcription")  # as OpenAI's clients say


async def say_to_upgrade(request: Request) -> Response:
    """GET of the path by a client that asks for no WebSocket, or gets none."""
    if not has_websockets():
        raise RequestError(
            "This server has no WebSockets: it was installed without the extra 'audio' "
            "(pip install 'ingot[audio]')."
        )
    raise TransportError(
        426,
        f"{REALTIME} is a WebSocket: connect with an upgrade, and to the server itself, for a "
        "router passes none on.",
    )


class RealtimeRoute:
    """Speech that is heard while it is spoken, by a model that hears."""

    def __init__(self, service: Service) -> None:
        self._service = service
        self._open = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            model = self._checked(scope)
        except IngotError as error:
            await early_response(scope["path"], error)(scope, receive, send)
            return
        service, socket = self._service, WebSocket(scope, receive, send)
        isolated = service.settings.isolate_prefix_cache
        salt = namespace(owner_of(scope)) if isolated else ""
        self._open += 1
        try:
            with service.metrics.websockets.open():
                await socket.accept()
                name = f"sess-{scope['state']['request_id']}"
                await RealtimeSession(service, socket, name, salt, model).run()
        finally:
            self._open -= 1

    def _checked(self, scope: Scope) -> str | None:
        """The model that the address names; raises an IngotError for who cannot be served."""
        check_origin(Headers(scope=scope), self._service.settings.allowed_origins)
        state = self._service.client.state
        if state != "ready":
            raise UnavailableError(f"The engine is {state}; try again soon, or another server.")
        if self._open >= MAX_CONNECTIONS:
            raise OverloadedError(f"{MAX_CONNECTIONS} clients are connected; try again soon.")
        model = None
        for name, value in parse_qsl(scope["query_string"].decode("latin-1")):
            if name == "model":
                model = value
            elif (name, value) != _INTENT:
                raise RequestError(f"There is no {name[:60]!a} in the address; model may be.")
        speech_of(self._service, model)
        return model


def check_origin(headers: Headers, allowed: tuple[str, ...]) -> None:
    """Raise ForbiddenError for a page of another site: browsers ask nobody before they connect.
    Programs have no origin."""
    origin = headers.get("origin")
    if origin is None or "*" in allowed or origin in allowed:
        return
    if urlsplit(origin).netloc.lower() != headers.get("host", "").lower():
        raise ForbiddenError(
            f"Pages of {origin[:100]!a} may not connect; --allowed-origins says which may."
        )
