"""What an operator may change of a server's own processes, under SGLang's names.

    POST /freeze_gc                                  nothing that is here is looked at for garbage
    POST /configure_logging {"log_requests": true}   a line a request, as with --enable-log-requests

Both processes freeze what they have when they are ready; after much has been opened that stays,
as sessions or adapters, an operator may have it done again, best while nothing runs.
"""

from typing import Literal

from msgspec import Struct
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Send

from engine.collector import keep_what_is_here
from engine.errors import RequestError
from serve.http.endpoint import GenerationRoute, send_json
from serve.http.hosts import check_operator
from serve.http.json_response import json_response
from serve.operations.logs import log_requests
from serve.protocol.decoding import CheckedRequest
from serve.service import Service


class FreezeGcRoute:
    """Has no body."""

    def __init__(self, service: Service) -> None:
        self._service = service

    async def __call__(self, _: Request) -> Response:
        """POST /freeze_gc."""
        check_operator(self._service.settings, "Freezing")
        self._service.client.freeze_garbage()
        keep_what_is_here()
        return json_response({"status": "frozen"})


class LoggingRequest(CheckedRequest, frozen=True, kw_only=True):
    """Whether each request is logged. `log_requests_level` can only be 0: logs have no texts."""

    needs = (("log_requests",),)
    log_requests: bool | None = None
    log_requests_level: int | None = None

    def check_shared(self) -> None:
        if self.log_requests is None:
            raise RequestError("log_requests must be true or false.", "log_requests")
        if self.log_requests_level:
            raise RequestError(
                "log_requests_level can only be 0: what is logged of a request is never its text.",
                "log_requests_level",
            )


class LoggingConfigured(Struct):
    """How it is now."""

    log_requests: bool
    status: Literal["configured"] = "configured"


class ConfigureLoggingRoute(GenerationRoute[LoggingRequest]):
    """Until the server ends."""

    kind = LoggingRequest
    writes = False
    computes = False

    async def answer(self, request: LoggingRequest, request_id: str, send: Send) -> None:
        check_operator(self.service.settings, "Logging")
        log_requests(bool(request.log_requests))
        await send_json(send, LoggingConfigured(bool(request.log_requests)))
