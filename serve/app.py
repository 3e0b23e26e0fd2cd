"""The HTTP application: which path leads where, through which layers.

RootPath ▸ MeasureHttp ▸ RequestIds ▸ RequestLog ▸ AllowedHosts ▸ CORS ▸ ApiKeys ▸ LimitKeys ▸
TraceContext ▸ Fallback ▸ routes
"""

from collections.abc import Iterator

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.middleware.cors import CORSMiddleware
from starlette.routing import Route
from starlette.types import ASGIApp

from models.errors import IngotError
from serve.admin import FILES, PAGES, AbortRoute, AdminState, Pages
from serve.audio.form import AUDIO_PATHS, FORM
from serve.audio.protocol import AudioRequest, TextDelta, Transcript
from serve.audio.routes import AudioRoute
from serve.auth import ApiKeys
from serve.chat import ChatRoute
from serve.completions import CompletionsRoute
from serve.errors import handle_http_exception, handle_ingot_error, handle_unexpected
from serve.fallback.chain import FallbackChain
from serve.fallback.middleware import Fallback
from serve.generate import Generated, GenerateRequest, GenerateRoute
from serve.health import HealthRoutes
from serve.hosts import ANY, AllowedHosts
from serve.http_metrics import MeasureHttp
from serve.key_limits import KeyLimits, LimitKeys
from serve.logs import ADMIN_STATE
from serve.messages.protocol import (
    AnthropicMessage,
    CountRequest,
    MessagesRequest,
    StreamEvent,
    TokenCount,
)
from serve.messages.routes import CountTokensRoute, MessagesRoute
from serve.models_route import ModelsRoutes
from serve.openapi import OpenApiRoute, Operation
from serve.pooling.protocol import (
    ClassifiedList,
    ClassifyRequest,
    EmbeddingList,
    EmbeddingRequest,
    PooledList,
    PoolingRequest,
    Ranking,
    RerankRequest,
    ScoreList,
    ScoreRequest,
)
from serve.pooling.routes import (
    ClassifyRoute,
    EmbeddingsRoute,
    PoolingRoute,
    RerankRoute,
    ScoreRoute,
)
from serve.protocol_chat import ChatChunk, ChatCompletion, ChatRequest
from serve.protocol_completions import Completion, CompletionRequest
from serve.request_id import RequestIds
from serve.request_log import RequestLog
from serve.responses.protocol import ResponseEvent, ResponseObject, ResponsesRequest
from serve.responses.routes import ResponsesRoute, StoredResponses
from serve.responses.store import ResponseStore
from serve.root_path import RootPath
from serve.service import Service
from serve.tokenize import (
    DetokenizeRequest,
    DetokenizeRoute,
    Text,
    TokenizeRequest,
    TokenizeRoute,
    Tokens,
)
from serve.tracing import TraceContext

OPERATIONS = [
    Operation("/v1/completions", CompletionRequest, Completion, Completion),
    Operation("/v1/chat/completions", ChatRequest, ChatCompletion, ChatChunk),
    Operation("/v1/responses", ResponsesRequest, ResponseObject, ResponseEvent),
    Operation("/v1/messages", MessagesRequest, AnthropicMessage, StreamEvent),
    Operation("/v1/messages/count_tokens", CountRequest, TokenCount),
    Operation("/generate", GenerateRequest, Generated, Generated),
    Operation("/v1/embeddings", EmbeddingRequest, EmbeddingList),
    Operation("/pooling", PoolingRequest, PooledList),
    *(Operation(path, ClassifyRequest, ClassifiedList) for path in ("/classify", "/v1/classify")),
    *(Operation(path, ScoreRequest, ScoreList) for path in ("/score", "/v1/score")),
    *(Operation(path, RerankRequest, Ranking) for path in ("/rerank", "/v1/rerank")),
    *(Operation(path, AudioRequest, Transcript, TextDelta, FORM) for path in AUDIO_PATHS),
    Operation("/tokenize", TokenizeRequest, Tokens),
    Operation("/detokenize", DetokenizeRequest, Text),
]
READABLE = {
    "/health": "Whether requests can be taken.",
    "/readyz": "The same.",
    "/ping": "The same.",
    "/livez": "Whether the server answers at all.",
    "/load": "How many sequences run or wait.",
    "/version": "The version.",
    "/server_info": "Settings, model and numbers.",
    "/metrics": "Metrics for Prometheus.",
    "/v1/models": "What is served.",
}


def build_app(service: Service) -> Starlette:
    """The application that serves `service`."""
    settings = service.settings
    limits = KeyLimits(settings.max_concurrent_requests_per_key, service.metrics)
    routes = [*_generation(service, limits), *_information(service)]
    measured = Middleware(MeasureHttp, metrics=service.metrics.http, routes=routes)
    root = [Middleware(RootPath, path=settings.root_path)] if settings.root_path else []
    return Starlette(
        routes=routes,
        middleware=[*root, measured, *_layers(service, limits)],
        exception_handlers={
            IngotError: handle_ingot_error,
            HTTPException: handle_http_exception,
            Exception: handle_unexpected,
        },
    )


def _layers(service: Service, limits: KeyLimits) -> Iterator[Middleware]:
    """From the outermost to the innermost."""
    settings = service.settings
    yield Middleware(RequestIds, repeat=settings.enable_request_id_headers)
    if settings.enable_log_requests:
        yield Middleware(RequestLog)
    if settings.allowed_hosts is not None and ANY not in settings.allowed_hosts:
        yield Middleware(AllowedHosts, hosts=settings.allowed_hosts)
    if settings.allowed_origins:  # before the keys: a browser's question carries none
        yield Middleware(
            CORSMiddleware,
            allow_origins=settings.allowed_origins,
            allow_methods=["*"],
            allow_headers=["*"],
            expose_headers=["x-request-id"],
        )
    yield Middleware(ApiKeys, keys=settings.api_keys, admin_key=settings.admin_api_key)
    yield Middleware(LimitKeys, limits=limits)
    if service.traces is not None:
        yield Middleware(TraceContext)
    if settings.fallbacks:
        seconds = settings.try_timeout
        chain = FallbackChain(settings.fallbacks, seconds, service.metrics.fell_back)
        yield Middleware(Fallback, chain=chain, seconds=seconds)


def _generation(service: Service, limits: KeyLimits) -> Iterator[Route]:
    """What is asked of the model."""
    store = ResponseStore()
    stored = StoredResponses(store)
    routes: dict[str, ASGIApp] = {
        "/v1/completions": CompletionsRoute(service),
        "/v1/chat/completions": ChatRoute(service),
        "/v1/responses": ResponsesRoute(service, store, limits),
        "/v1/messages": MessagesRoute(service),
        "/v1/messages/count_tokens": CountTokensRoute(service),
        "/generate": GenerateRoute(service),
        "/v1/embeddings": EmbeddingsRoute(service),
        "/pooling": PoolingRoute(service),
        "/tokenize": TokenizeRoute(service),
        "/detokenize": DetokenizeRoute(service),
    }
    for version in ("", "/v1"):
        routes |= {
            f"{version}/classify": ClassifyRoute(service),
            f"{version}/score": ScoreRoute(service),
            f"{version}/rerank": RerankRoute(service),
        }
    routes |= {path: AudioRoute(service, task) for path, task in AUDIO_PATHS.items()}
    for path, route in routes.items():
        yield Route(path, route, methods=["POST"])
    yield Route("/v1/responses/{response_id}", stored.one, methods=["GET", "DELETE"])
    yield Route("/v1/responses/{response_id}/cancel", stored.cancel, methods=["POST"])


def _information(service: Service) -> Iterator[Route]:
    """What is told about the server."""
    health, models = HealthRoutes(service), ModelsRoutes(service)
    for path in ("/health", "/readyz", "/ping"):
        yield Route(path, health.ready)
    yield Route("/livez", health.alive)
    yield Route("/load", health.load)
    yield Route("/version", health.version)
    yield Route("/server_info", health.server_info)
    yield Route("/metrics", service.metrics.route)
    yield Route("/v1/models", models.every)
    yield Route("/v1/models/{name:path}", models.one)
    root = service.settings.root_path
    pages = Pages(root).__call__
    for path in (*PAGES, *(f"/pages/{name}" for name in FILES)):
        yield Route(path, pages)
    yield Route(ADMIN_STATE, AdminState(service).__call__)
    yield Route("/admin/abort", AbortRoute(service), methods=["POST"])
    yield Route("/openapi.json", OpenApiRoute(OPERATIONS, READABLE, root).__call__)
