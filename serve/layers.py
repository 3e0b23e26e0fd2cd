"""The layers between a connection and the routes.

RootPath ▸ MeasureHttp ▸ RequestIds ▸ RequestLog ▸ AllowedHosts ▸ CORS ▸ ApiKeys ▸ LimitKeys ▸
TraceContext ▸ Fallback ▸ routes
"""

from collections.abc import Iterator

from starlette.middleware import Middleware
from starlette.middleware.cors import CORSMiddleware

from serve.fallback.chain import FallbackChain
from serve.fallback.middleware import Fallback
from serve.http.auth import ApiKeys
from serve.http.hosts import ANY, AllowedHosts
from serve.http.key_limits import KeyLimits, LimitKeys
from serve.http.request_id import OWN_ID, RequestIds
from serve.http.request_log import RequestLog
from serve.operations.tracing import TraceContext
from serve.service import Service


def layers(service: Service, limits: KeyLimits) -> Iterator[Middleware]:
    """From the outermost to the innermost, but for the first two."""
    settings = service.settings
    yield Middleware(RequestIds, repeat=settings.enable_request_id_headers)
    yield Middleware(RequestLog)
    if settings.allowed_hosts is not None and ANY not in settings.allowed_hosts:
        yield Middleware(AllowedHosts, hosts=settings.allowed_hosts)
    if settings.allowed_origins:  # before the keys: a browser's question carries none
        yield Middleware(
            CORSMiddleware,
            allow_origins=settings.allowed_origins,
            allow_methods=["*"],
            allow_headers=["*"],
            expose_headers=["x-request-id", OWN_ID],
        )
    yield Middleware(ApiKeys, keys=settings.api_keys, admin_key=settings.admin_api_key)
    yield Middleware(LimitKeys, limits=limits)
    if service.traces is not None:
        yield Middleware(TraceContext)
    if settings.fallbacks:
        seconds = settings.try_timeout
        chain = FallbackChain(settings.fallbacks, seconds, service.metrics.fell_back)
        yield Middleware(Fallback, chain=chain, seconds=seconds)
