"""What the operator may do to a running server, under the names of vLLM and SGLang; they need the
admin key.

    POST /reset_prefix_cache, /flush_cache      no prompt's beginning is found again
    POST /abort_request {"rid": "..."}          its client gets an error; {"abort_all": true}: all
    POST /abort_requests {"request_ids": [...]} the same of several, or of all; vLLM's
"""

from collections.abc import Iterable
from typing import Literal

from msgspec import Struct
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Send

from engine.errors import RequestError
from serve.http.endpoint import GenerationRoute, send_json
from serve.http.json_response import json_response
from serve.protocol.decoding import CheckedRequest
from serve.service import Service

RESETS = ("/reset_prefix_cache", "/flush_cache")
ABORT = "/abort_request"
LOAD, UNLOAD = "/v1/load_lora_adapter", "/v1/unload_lora_adapter"  # `serve.adapters.routes`
PAUSE, RESUME = "/pause", "/resume"  # `serve.operations.pause_routes`, as the next two
PAUSE_GENERATION, CONTINUE = "/pause_generation", "/continue_generation"
ABORT_REQUESTS = "/abort_requests"
START_PROFILE, STOP_PROFILE = "/start_profile", "/stop_profile"  # `serve.operations.profile_routes`
SLEEP, WAKE_UP = "/sleep", "/wake_up"  # `serve.operations.sleep_routes`, as the next three
RELEASE_CACHE = "/release_kv_cache_memory"
RELEASE, RESUME_MEMORY = "/release_memory_occupation", "/resume_memory_occupation"
SLEEPS = frozenset({SLEEP, WAKE_UP, RELEASE_CACHE, RELEASE, RESUME_MEMORY})
UPDATE_WEIGHTS = "/update_weights_from_disk"  # `serve.operations.weight_routes`, as the next one
RPC = "/collective_rpc"
FREEZE_GC, CONFIGURE_LOGGING = "/freeze_gc", "/configure_logging"  # `process_routes`
PROFILES = frozenset({START_PROFILE, STOP_PROFILE})
PAUSES = frozenset({PAUSE, RESUME, PAUSE_GENERATION, CONTINUE})
_SINGLE = frozenset(
    {ABORT, ABORT_REQUESTS, LOAD, UNLOAD, UPDATE_WEIGHTS, RPC, FREEZE_GC, CONFIGURE_LOGGING}
)
OPERATOR_PATHS = _SINGLE | PAUSES | PROFILES | SLEEPS | {*RESETS}
_ONLY = {"reset_running_requests": "false", "reset_external": "true", "timeout": "0"}


def refuse_others(rest: Iterable[str]) -> None:
    """Raise RequestError for the first parameter that nobody has taken out."""
    for name in rest:
        raise RequestError(f"There is no parameter {name[:64]!a}.", name[:64])


class ResetRoute:
    """Forgets what was computed, on the device and in the host tier. Requests that run go on, and
    keep what they have."""

    def __init__(self, service: Service) -> None:
        self._service = service

    async def __call__(self, request: Request) -> Response:
        for name, value in request.query_params.items():
            if value.lower() != _ONLY.get(name):
                raise RequestError(
                    f"{name[:64]!a} is not supported here with this value; leave it out.",
                    name[:64],
                )
        self._service.client.reset_prefix_cache()
        return json_response({"status": "reset"})


class AbortRequest(CheckedRequest, frozen=True, kw_only=True):
    """Which response is to end: the id that it shows, or all."""

    needs = (("rid",), ("abort_all",))
    rid: str | None = None
    abort_all: bool | None = None

    def check_shared(self) -> None:
        if bool(self.rid) == bool(self.abort_all):
            raise RequestError("Send either rid or abort_all.", "rid")


class Aborted(Struct):
    """How many prompts that were; 0 where none of that id is at work."""

    aborted: int
    object: Literal["abort"] = "abort"


class AbortResponseRoute(GenerationRoute[AbortRequest]):
    """Ends responses."""

    kind = AbortRequest
    writes = False
    computes = False

    async def answer(self, request: AbortRequest, request_id: str, send: Send) -> None:
        ended = self.service.client.flights.end_responses(request.rid or None)
        await send_json(send, Aborted(ended))


class AbortRequestsRequest(CheckedRequest, frozen=True, kw_only=True):
    """Which responses are to end; all, if none is named."""

    request_ids: list[str] | None = None


class AbortedRequests(Struct):
    """How many prompts that were."""

    aborted: int
    status: Literal["aborted"] = "aborted"


class AbortRequestsRoute(GenerationRoute[AbortRequestsRequest]):
    """Ends them."""

    kind = AbortRequestsRequest
    writes = False
    computes = False

    async def answer(self, request: AbortRequestsRequest, request_id: str, send: Send) -> None:
        named: list[str | None] = [*(request.request_ids or ())]
        ended = sum(self.service.client.flights.end_responses(each) for each in named or [None])
        await send_json(send, AbortedRequests(ended))
