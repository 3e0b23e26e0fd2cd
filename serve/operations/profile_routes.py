"""Tracing what the engine does, under the names of vLLM and SGLang; for operators.

    POST /start_profile {"num_steps": 20}    all fields may be left out, and the body with them
    POST /stop_profile                       written once this has answered

What is written where is `engine.profiling.profiler`'s.
"""

from typing import Literal

from msgspec import Struct
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Send

from engine.errors import RequestError
from engine.profiling.request import ProfileRequest
from serve.http.endpoint import GenerationRoute, send_json
from serve.http.hosts import check_operator
from serve.http.json_response import json_response
from serve.protocol.decoding import CheckedRequest
from serve.service import Service


class StartProfileRequest(ProfileRequest, CheckedRequest, frozen=True, kw_only=True):
    """What is traced, and how long."""


class ProfileChanged(Struct):
    """That it is so."""

    status: Literal["profiling", "stopped"]


class StartProfileRoute(GenerationRoute[StartProfileRequest]):
    """Steps are traced from now on, or from a later one."""

    kind = StartProfileRequest
    writes = False
    computes = False
    may_be_empty = True

    async def answer(self, request: StartProfileRequest, request_id: str, send: Send) -> None:
        _check(self.service)
        await self.service.client.start_profile(request)
        await send_json(send, ProfileChanged("profiling"))


class StopProfileRoute:
    """Has no body."""

    def __init__(self, service: Service) -> None:
        self._service = service

    async def __call__(self, _: Request) -> Response:
        """POST /stop_profile."""
        _check(self._service)
        await self._service.client.stop_profile()
        return json_response(ProfileChanged("stopped"))


def _check(service: Service) -> None:
    """Raises RequestError where nothing can be traced, ForbiddenError where nobody knows who
    asks."""
    if service.engine_config.profiler_config is None:
        raise RequestError(
            "Nothing is traced here; start this server with --profiler-config "
            """'{"torch_profiler_dir": "DIR"}'."""
        )
    check_operator(service.settings, "Tracing")
