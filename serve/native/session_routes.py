"""POST /open_session and /close_session, as SGLang has them."""

from msgspec import Struct
from starlette.types import Scope, Send

from engine.errors import RequestError
from serve.http.endpoint import GenerationRoute, send_json
from serve.http.owner import owner_of
from serve.protocol.decoding import MAX_ID_CHARS, CheckedRequest


class OpenSessionRequest(CheckedRequest, frozen=True, kw_only=True):
    """A session of a name of its own, or of one that is made up. `capacity_of_str_len` is for
    servers that reserve room; here there is as much as the model's context has."""

    session_id: str | None = None
    capacity_of_str_len: int | None = None
    streaming: bool | None = None  # each turn follows the one before it
    timeout: float | None = None  # seconds without a turn, after which it is closed

    def check_shared(self) -> None:
        if self.session_id is not None and not 0 < len(self.session_id) <= MAX_ID_CHARS:
            raise RequestError(
                f"session_id must have 1 to {MAX_ID_CHARS} characters.", "session_id"
            )
        if self.timeout is not None and self.timeout <= 0:
            raise RequestError("timeout must be above 0 seconds.", "timeout")
        if (self.capacity_of_str_len or 0) < 0:
            raise RequestError("capacity_of_str_len must not be negative.", "capacity_of_str_len")


class CloseSessionRequest(CheckedRequest, frozen=True, kw_only=True):
    """A session that is to be forgotten."""

    session_id: str


class Closed(Struct):
    """That it is."""

    success: bool = True


class OpenSessionRoute(GenerationRoute[OpenSessionRequest]):
    """Answers with the id, which is all of the body."""

    kind = OpenSessionRequest
    computes = False

    async def serve(self, request: OpenSessionRequest, scope: Scope, send: Send) -> None:
        await self.answer(request, scope["state"]["request_id"], send, owner_of(scope))

    async def answer(
        self, request: OpenSessionRequest, request_id: str, send: Send, owner: str = ""
    ) -> None:
        name = request.session_id or request_id
        streaming = bool(request.streaming)
        self.service.sessions.open(owner, name, streaming=streaming, timeout=request.timeout)
        await send_json(send, name)


class CloseSessionRoute(GenerationRoute[CloseSessionRequest]):
    """Turns that are at work are answered nevertheless."""

    kind = CloseSessionRequest
    computes = False

    async def serve(self, request: CloseSessionRequest, scope: Scope, send: Send) -> None:
        await self.answer(request, scope["state"]["request_id"], send, owner_of(scope))

    async def answer(
        self, request: CloseSessionRequest, request_id: str, send: Send, owner: str = ""
    ) -> None:
        self.service.sessions.close(owner, request.session_id)
        await send_json(send, Closed())
