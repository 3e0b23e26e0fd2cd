"""Letting go of memory and taking it again, under the names of vLLM and SGLang; for operators.

    POST /sleep?level=1&mode=abort|wait|keep           vLLM's: 0 pauses, 1 moves weights to the host
                                                       and drops the cache, 2 drops both
    POST /release_kv_cache_memory                      the cache alone, of a server that is paused
    POST /wake_up?tags=weights&tags=kv_cache           all, or some; requests go on with the last
    GET  /is_sleeping                                  {"is_sleeping": false}, also of a pause
    POST /release_memory_occupation {"tags": [...]}    SGLang's: all, or some; pauses are others
    POST /resume_memory_occupation {"tags": [...]}

What comes meanwhile waits, as in a pause. What stays, by `keep`, is computed anew from its
beginning and goes on where it was.
"""

from collections.abc import Sequence

from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Send

from engine.errors import RequestError
from engine.sleeping import (
    MEMORY_TAGS,
    WAKING_TAGS,
    check_enabled,
    check_level,
    check_mode,
    check_scheduling,
    check_tags,
    release_of_level,
    release_of_tags,
    restore_of_tags,
)
from serve.http.endpoint import GenerationRoute, send_json
from serve.http.hosts import check_operator
from serve.http.json_response import json_response
from serve.operations.operator_routes import refuse_others
from serve.operations.pause_routes import Done, held
from serve.operations.pause_routes import pause as pause_server
from serve.protocol.decoding import CheckedRequest
from serve.service import Service

SLEEPING = {"level": "integer", "mode": "string"}
WAKING = {"tags": "string"}


class SleepRoutes:
    """Those that have no body."""

    def __init__(self, service: Service) -> None:
        self._service = service

    async def sleep(self, request: Request) -> Response:
        """POST /sleep."""
        service, asked = self._service, dict(request.query_params)
        level, mode = _level(asked.pop("level", "1")), asked.pop("mode", "abort")
        refuse_others(asked)
        check_operator(service.settings, "Sleep")
        check_level(level, enabled=service.engine_config.enable_sleep_mode)
        check_mode(mode)
        with held(service), service.metrics.sleep.at_work("sleep"):
            await pause_server(service, mode, clear=False)
            if level:
                await service.pause.change_memory(service.client, release_of_level(level))
        return self._state()

    async def wake_up(self, request: Request) -> Response:
        """POST /wake_up."""
        service, asked = self._service, dict(request.query_params)
        asked.pop("tags", None)
        refuse_others(asked)
        check_operator(service.settings, "Sleep")
        tags = request.query_params.getlist("tags") or WAKING_TAGS
        check_tags(tags, WAKING_TAGS)
        with service.metrics.sleep.at_work("wake"):
            await _restore(service, tags)
        if service.client.resident:
            service.client.thaw()
            service.pause.end("paused")
        else:
            check_scheduling(tags)
        return self._state()

    async def release_kv_cache_memory(self, _: Request) -> Response:
        """POST /release_kv_cache_memory."""
        with self._service.metrics.sleep.at_work("release_kv_cache_memory"):
            await _release(self._service, ["kv_cache"])
        self._service.pause.begin("paused")
        return self._state()

    async def is_sleeping(self, _: Request) -> Response:
        """GET /is_sleeping."""
        return self._state()

    def _state(self) -> Response:
        return json_response({"is_sleeping": self._service.pause.is_open_ended})


class MemoryRequest(CheckedRequest, frozen=True, kw_only=True):
    """Which memory; all, if none is named."""

    tags: list[str] | None = None

    @property
    def wanted(self) -> Sequence[str]:
        return MEMORY_TAGS if self.tags is None else self.tags

    def check_shared(self) -> None:
        check_tags(self.wanted, MEMORY_TAGS)


class _MemoryRoute(GenerationRoute[MemoryRequest]):
    kind = MemoryRequest
    writes = False
    computes = False
    may_be_empty = True


class ReleaseMemoryRoute(_MemoryRoute):
    """SGLang's, of a server that has nothing to do, or is paused."""

    async def answer(self, request: MemoryRequest, request_id: str, send: Send) -> None:
        await _release(self.service, request.wanted)
        await send_json(send, Done("Memory is released."))


class ResumeMemoryRoute(_MemoryRoute):
    """Brings it back; who was paused stays so."""

    async def answer(self, request: MemoryRequest, request_id: str, send: Send) -> None:
        service = self.service
        check_operator(service.settings, "Sleep")
        await _restore(service, request.wanted)
        await send_json(send, Done("Memory is resumed."))


async def _release(service: Service, tags: Sequence[str]) -> None:
    """Raises RequestError while requests are at work that nobody has paused."""
    client = service.client
    check_operator(service.settings, "Sleep")
    check_enabled(service.engine_config.enable_sleep_mode)
    if client.num_sequences and not client.is_frozen:
        raise RequestError(
            f"{client.num_sequences} sequences are at work; POST /pause?mode=keep first, or end "
            "them, or wait for them."
        )
    await service.pause.change_memory(client, release_of_tags(tags))


async def _restore(service: Service, tags: Sequence[str]) -> None:
    """Of an engine that keeps its memory nothing is asked: one that gives vectors has no answer."""
    if service.engine_config.enable_sleep_mode:
        await service.pause.change_memory(service.client, restore_of_tags(tags))


def _level(given: str) -> int:
    try:
        return int(given)
    except ValueError:
        raise RequestError(f"level is 0, 1 or 2, got {given[:40]!a}.", "level") from None
