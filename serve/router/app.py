"""The router's paths, and its life from the listening socket to the exit code."""

import asyncio
from collections.abc import Iterator

import msgspec
import uvicorn
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from models.errors import IngotError
from serve.errors import (
    RETRY_AFTER_SECONDS,
    handle_http_exception,
    handle_ingot_error,
    handle_unexpected,
)
from serve.http.auth import ApiKeys
from serve.http.hosts import ANY, AllowedHosts, allowed_hosts
from serve.http.http_protocol import HardenedProtocol
from serve.http.json_response import json_response
from serve.http.listener import bind, url_of
from serve.launcher import Server
from serve.router.backends import Backends
from serve.router.forward import Forward
from serve.router.metrics import RouterMetrics
from serve.router.settings import RouterSettings

UNVERSIONED = (
    "/generate", "/open_session", "/close_session", "/inference/v1/generate", "/tokenize",
    "/detokenize", "/parse_function_call",
    "/separate_reasoning", "/score", "/generative_scoring", "/rerank", "/v2/rerank", "/v2/embed",
    "/classify", "/encode", "/pooling", "/invocations", "/api/chat", "/api/generate", "/api/show",
    "/cohere/v2/chat", "/cohere/v2/chat/render",
)  # fmt: skip


def build_router(settings: RouterSettings, backends: Backends) -> Starlette:
    """The application before `backends`, whose health somebody else has to watch."""
    metrics = RouterMetrics(backends)
    forward = Forward(settings, backends, metrics)

    async def health(_: Request) -> Response:
        ready = sum(each.is_healthy for each in backends.all)
        good = bool(ready or settings.fallbacks)
        said = {"status": "ready" if good else "unavailable", "ready": ready}
        headers = None if good else {"retry-after": RETRY_AFTER_SECONDS}
        return json_response({**said, "backends": len(backends.all)}, 200 if good else 503, headers)

    async def alive(_: Request) -> Response:
        return json_response({"status": "alive"})

    return Starlette(
        routes=[
            *(Route(path, health) for path in ("/health", "/readyz")),
            Route("/livez", alive),
            Route("/metrics", metrics.route),
            Route("/v1/{path:path}", forward, methods=["GET", "POST", "DELETE"]),
            *(Route(path, forward, methods=["POST"]) for path in UNVERSIONED),
        ],
        middleware=[*_layers(settings)],
        exception_handlers={
            IngotError: handle_ingot_error,
            HTTPException: handle_http_exception,
            Exception: handle_unexpected,
        },
    )  # fmt: skip


def _layers(settings: RouterSettings) -> Iterator[Middleware]:
    if settings.allowed_hosts is not None and ANY not in settings.allowed_hosts:
        yield Middleware(AllowedHosts, hosts=settings.allowed_hosts)
    yield Middleware(ApiKeys, keys=settings.api_keys)


def run_router(settings: RouterSettings) -> int:
    """Serve until a signal; requests at work get `shutdown_timeout` to end. Returns 0."""
    listener = bind(settings.for_listener())
    hosts = allowed_hosts(settings.for_listener())
    settings = msgspec.structs.replace(settings, allowed_hosts=hosts)
    backends = Backends(settings.backends)
    server = Server(
        uvicorn.Config(
            build_router(settings, backends),
            http=HardenedProtocol,
            ws="none",
            lifespan="off",
            log_level=settings.uvicorn_log_level,
            server_header=False,
            proxy_headers=False,
        ),
        flush_seconds=settings.shutdown_timeout,
    )

    async def run() -> None:
        await backends.check()
        watch = asyncio.create_task(backends.watch())
        http = asyncio.create_task(server.serve(sockets=[listener]))
        leaving = asyncio.create_task(server.leaving.wait())
        with server.hearing():
            print(f"{url_of(listener, settings.for_listener())}/v1", flush=True)
            await asyncio.wait({http, leaving}, return_when=asyncio.FIRST_COMPLETED)
            server.should_exit = True
            await http
        watch.cancel()
        leaving.cancel()
        await asyncio.gather(watch, leaving, return_exceptions=True)

    asyncio.run(run())
    return 0
