"""Pausing a server and going on, under the names of vLLM and SGLang; for operators.

    POST /pause?mode=abort|wait|keep&clear_cache=true             vLLM's
    POST /pause_generation {"mode": "abort|in_place|retract"}     SGLang's
    POST /resume, /continue_generation                            what came meanwhile is begun
    GET  /is_paused                                               {"is_paused": false}

What is at work ends with an error (`abort`), is waited for (`wait`) or stays where it is and goes
on afterwards (`keep`, `in_place`, `retract`). Of /pause nothing of what was computed is found again
unless `clear_cache` is false: what stays is computed anew, too. With /pause_generation what was
computed is kept; `retract` gives the pages back, so that /flush_cache may forget them.
"""

import asyncio
from collections.abc import Awaitable, Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import Literal

from msgspec import Struct
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Send

from engine.errors import RequestError
from engine.sleeping import check_can_end, check_mode
from models.errors import IngotError
from serve.http.endpoint import GenerationRoute, send_json
from serve.http.hosts import check_operator
from serve.http.json_response import json_response
from serve.operations.operator_routes import CONTINUE, PAUSE, RESUME, refuse_others
from serve.protocol.decoding import CheckedRequest
from serve.service import Service

_END_SECONDS = 10.0  # for what is ended; a client that does not read may take longer to hear of it
_SGLANG = ("abort", "in_place", "retract")
PAUSING = {"mode": "string", "wait_for_inflight_requests": "boolean", "clear_cache": "boolean"}
_FLAGS: Mapping[str, bool] = {"true": True, "1": True, "false": False, "0": False}


class PauseRequest(CheckedRequest, frozen=True, kw_only=True):
    """What becomes of requests at work."""

    mode: str | None = None

    def check_shared(self) -> None:
        check_mode(self.mode or "abort", _SGLANG)


class Done(Struct):
    """That it is so."""

    message: str
    status: Literal["ok"] = "ok"


class PauseRoutes:
    """Those that have no body."""

    def __init__(self, service: Service) -> None:
        self._service = service

    def paths(self) -> Mapping[str, Callable[[Request], Awaitable[Response]]]:
        """What POST leads to."""
        return {
            PAUSE: self.pause,
            RESUME: self.resume,
            CONTINUE: self.continue_generation,
        }

    async def pause(self, request: Request) -> Response:
        """POST /pause."""
        asked = dict(request.query_params)
        mode = asked.pop("mode", "abort")
        if _flag(asked, "wait_for_inflight_requests", False):  # the older way to say it
            mode = "wait"
        clear = _flag(asked, "clear_cache", True)
        refuse_others(asked)
        check_mode(mode)
        await pause(self._service, mode, clear=clear)
        return json_response({"status": "paused"})

    async def resume(self, _: Request) -> Response:
        """POST /resume."""
        self._go_on()
        return json_response({"status": "resumed"})

    async def continue_generation(self, _: Request) -> Response:
        """POST /continue_generation."""
        self._go_on()
        return json_response({"message": "Generation goes on.", "status": "ok"})

    def _go_on(self) -> None:
        self._service.client.thaw()
        self._service.pause.end()

    async def is_paused(self, _: Request) -> Response:
        """GET /is_paused."""
        return json_response({"is_paused": self._service.pause.is_for("paused")})


class PauseGenerationRoute(GenerationRoute[PauseRequest]):
    """SGLang's, which keeps what it has computed."""

    kind = PauseRequest
    writes = False
    computes = False

    async def answer(self, request: PauseRequest, request_id: str, send: Send) -> None:
        await pause(self.service, request.mode or "abort", clear=False)
        await send_json(send, Done("Generation is paused."))


async def pause(service: Service, mode: str, *, clear: bool) -> None:
    """Have requests wait, and those at work end, be waited for or be frozen; raises ForbiddenError
    where nobody knows who asks."""
    check_operator(service.settings, "Pausing")
    client = service.client
    if mode == "wait":
        check_can_end(at_work=client.num_sequences > 0, resident=client.resident)
    with held(service):
        if mode in ("abort", "wait"):
            client.thaw()  # what an earlier pause has frozen would never end
        if mode == "abort":
            client.flights.end_responses(None)
            with suppress(TimeoutError):
                await asyncio.wait_for(client.wait_until_idle(), _END_SECONDS)
        elif mode == "wait":
            await client.wait_until_idle()
        else:
            await client.freeze(retract=clear or mode == "retract")
        if clear:
            client.reset_prefix_cache()


@contextmanager
def held(service: Service) -> Iterator[None]:
    """From now on requests wait; if what follows fails, only those of an earlier pause."""
    before = service.pause.is_for("paused")
    service.pause.begin()
    try:
        yield
    except IngotError:
        if not before:
            service.client.thaw()
            service.pause.end()
        raise


def _flag(asked: dict[str, str], name: str, usual: bool) -> bool:
    """A parameter that is true or false; it is taken out."""
    given = asked.pop(name, None)
    if given is not None and given.lower() not in _FLAGS:
        raise RequestError(f"{name} must be true or false, got {given[:40]!a}.", name)
    return usual if given is None else _FLAGS[given.lower()]
