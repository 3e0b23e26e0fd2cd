"""How an error looks to an HTTP client: OpenAI's body, the status, and the headers.

    {"error": {"message": "temperature must be ...", "type": "invalid_request_error",
               "param": "temperature", "code": null}}

On Anthropic's paths the same with `"type": "error"` beside `error`, as its clients expect; on
Ollama's and Cohere's the sentence alone, as `error` and as `message`.

Owns the mapping from exceptions to responses. What it does not know becomes a 500 that says
nothing about its cause; the cause is in the log.
"""

import logging
from collections.abc import Mapping

import msgspec
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response

from engine.errors import (
    ContextLengthError,
    EngineDeadError,
    EngineError,
    NotFoundError,
    OverloadedError,
    RequestError,
)
from engine.messages import RequestDelta
from engine.outputs import OutputDelta
from models.errors import IngotError
from serve.http.request_log import shown_path

RETRY_AFTER_SECONDS = "1"
CLOSE = {"connection": "close"}  # for answers that are sent before the body was read
logger = logging.getLogger("ingot.serve")

_TYPES = {
    400: "invalid_request_error",
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    429: "rate_limit_error",
    499: "aborted_error",
    503: "service_unavailable_error",
}


class ErrorDetail(msgspec.Struct, frozen=True):
    """What went wrong, and the request's field that is at fault."""

    message: str
    type: str
    param: str | None = None
    code: str | None = None


class ErrorBody(msgspec.Struct, frozen=True):
    """The whole body of a failed request."""

    error: ErrorDetail
    type: str | msgspec.UnsetType = msgspec.UNSET


class OllamaError(msgspec.Struct, frozen=True):
    """The same as Ollama's clients read it."""

    error: str


class CohereError(msgspec.Struct, frozen=True):
    """The same as Cohere's clients read it."""

    message: str


AnyError = ErrorBody | OllamaError | CohereError


class UnavailableError(OverloadedError):
    """The engine is loading or the server is leaving; another try, or another server, may work."""


class LimitError(OverloadedError):
    """This client has as much at work as it may; others are served."""

    status = 429


class AbortedError(IngotError):
    """The operator ended this request. No 5xx, which clients and fallbacks would try again."""

    status = 499


class ForbiddenError(IngotError):
    """Nobody who could send this request may be trusted with it."""

    status = 403


class TransportError(IngotError):
    """The HTTP message itself is unusable: its type, its size, its encoding, its pace."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


def error_of(delta: RequestDelta | OutputDelta) -> IngotError:
    """Why the engine refused the request, or failed at it."""
    sentence = delta.error or "The engine refused this request."
    return EngineError(sentence) if delta.internal else RequestError(sentence, delta.error_param)


def error_body(error: Exception) -> tuple[int, ErrorBody]:
    """The status and the body that tell a client about `error`."""
    param = error.param if isinstance(error, RequestError) else None
    code = _code(error, param)
    match error:
        case (
            RequestError() | OverloadedError() | EngineError() | AbortedError() | TransportError()
            | ForbiddenError()
        ):  # fmt: skip
            status = error.status
        case _:
            return 500, ErrorBody(ErrorDetail("The server failed.", "internal_server_error"))
    return status, ErrorBody(ErrorDetail(str(error), _type_of(status), param, code))


def _code(error: Exception, param: str | None) -> str | None:
    """What OpenAI's clients tell errors apart by."""
    match error:
        case NotFoundError():
            return f"{param or 'resource'}_not_found"
        case ContextLengthError():
            return "context_length_exceeded"
        case _:
            return None


def error_response(
    status: int, body: AnyError, headers: Mapping[str, str] | None = None
) -> Response:
    """`body` as JSON; a 429 and a 503 say when to come back."""
    all_headers = dict(headers or {})
    if status in (429, 503):
        all_headers["retry-after"] = RETRY_AFTER_SECONDS
    return Response(
        msgspec.json.encode(body), status, headers=all_headers, media_type="application/json"
    )


def error_kind(path: str) -> type[AnyError]:
    """What a failed request to that path is answered."""
    if path.startswith("/cohere/"):
        return CohereError
    return OllamaError if path.startswith("/api/") else ErrorBody


def of_path(path: str, body: ErrorBody) -> AnyError:
    """`body` as clients of that path expect it."""
    kind = error_kind(path)
    if kind is CohereError:
        return CohereError(body.error.message)
    if kind is OllamaError:
        return OllamaError(body.error.message)
    if path.startswith("/v1/messages"):
        return msgspec.structs.replace(body, type="error")
    return body


def early_response(path: str, error: Exception) -> Response:
    """What a layer before the routes answers; the body has not been read."""
    status, body = error_body(error)
    return error_response(status, of_path(path, body), CLOSE)


async def handle_ingot_error(request: Request, error: Exception) -> Response:
    """For Starlette: errors that Ingot raises on purpose."""
    status, body = error_body(error)
    if status == 500 and not isinstance(error, EngineDeadError):
        _log(request, str(error))
    return error_response(
        status,
        of_path(request.url.path, body),
        CLOSE if isinstance(error, TransportError) else None,
    )


async def handle_http_exception(request: Request, error: Exception) -> Response:
    """For Starlette: no such path, or no such method there."""
    if not isinstance(error, HTTPException):
        raise error
    allowed = (error.headers or {}).get("Allow", "").split(", ")  # of a path that there is
    others = " or ".join(sorted(each for each in allowed if each not in ("", "HEAD")))
    hint = f"; send {others}." if others else "."
    message = f"There is no {request.method[:16]} {request.url.path[:160]!a} here{hint}"
    body = ErrorBody(ErrorDetail(message, _type_of(error.status_code)))
    return error_response(error.status_code, of_path(request.url.path, body), error.headers)


async def handle_unexpected(request: Request, error: Exception) -> Response:
    """For Starlette: a mistake of ours. uvicorn logs the trace, and does not know whose it is."""
    _log(request, type(error).__name__)
    status, body = error_body(error)  # the layer that tells ids has not seen it
    name = _id_of(request)
    return error_response(
        status, of_path(request.url.path, body), {"x-request-id": name} if name else None
    )


def _log(request: Request, error: str) -> None:
    fields = {
        "request_id": _id_of(request),
        "method": request.method,
        "path": shown_path(request.scope),
        "error": error,
    }
    logger.error("%(method)s %(path)s failed: %(error)s %(request_id)s", fields)


def _id_of(request: Request) -> str:
    """The server's; "" where it makes none."""
    name: str = request.scope.get("state", {}).get("request_id", "")
    return name


def _type_of(status: int) -> str:
    return _TYPES.get(status, "internal_server_error" if status >= 500 else _TYPES[400])
