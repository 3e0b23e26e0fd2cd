"""The HTTP application: which path leads where."""

from collections.abc import Iterator

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.routing import Route, WebSocketRoute
from starlette.types import ASGIApp

from models.errors import IngotError
from serve.adapters.metrics import AdapterMetrics
from serve.adapters.routes import LoadAdapterRoute, UnloadAdapterRoute
from serve.audio.form import AUDIO_PATHS
from serve.audio.routes import AudioRoute
from serve.cohere.routes import CohereChatRoute, CohereRenderRoute
from serve.errors import handle_http_exception, handle_ingot_error, handle_unexpected
from serve.http.key_limits import KeyLimits
from serve.http.openapi import OpenApiRoute
from serve.http.root_path import RootPath
from serve.layers import layers
from serve.messages.routes import CountTokensRoute, MessagesRenderRoute, MessagesRoute
from serve.native.generate import GenerateRoute
from serve.native.invocations import Invocations
from serve.native.label_scores import GenerativeScoringRoute
from serve.native.session_routes import CloseSessionRoute, OpenSessionRoute
from serve.native.take_apart import ParseCallsRoute, SeparateReasoningRoute
from serve.native.tokens_only import TokensRoute
from serve.ollama.routes import OllamaChatRoute, OllamaGenerateRoute, ShowRoute, TagsRoute
from serve.openai.chat import ChatRoute
from serve.openai.chat_batch import ChatBatchRoute
from serve.openai.completions import CompletionsRoute
from serve.openai.derender import DerenderChatRoute, DerenderCompletionRoute
from serve.openai.models_route import ModelsRoutes
from serve.openai.render import ChatRenderRoute, CompletionRenderRoute
from serve.openai.tokenize import DetokenizeRoute, TokenizeRoute
from serve.operations.admin import FILES, PAGES, AbortRoute, AdminState, Pages
from serve.operations.health import HealthRoutes
from serve.operations.health_generate import HealthGenerateRoute
from serve.operations.http_metrics import MeasureHttp
from serve.operations.info import InfoRoutes
from serve.operations.logs import ADMIN_STATE
from serve.operations.operator_routes import (
    ABORT,
    ABORT_REQUESTS,
    CONFIGURE_LOGGING,
    FREEZE_GC,
    LOAD,
    PAUSE_GENERATION,
    RELEASE,
    RELEASE_CACHE,
    RESETS,
    RESUME_MEMORY,
    RPC,
    SLEEP,
    START_PROFILE,
    STOP_PROFILE,
    UNLOAD,
    UPDATE_WEIGHTS,
    WAKE_UP,
    AbortRequestsRoute,
    AbortResponseRoute,
    ResetRoute,
)
from serve.operations.pause_routes import PauseGenerationRoute, PauseRoutes
from serve.operations.process_routes import ConfigureLoggingRoute, FreezeGcRoute
from serve.operations.profile_routes import StartProfileRoute, StopProfileRoute
from serve.operations.sleep_routes import ReleaseMemoryRoute, ResumeMemoryRoute, SleepRoutes
from serve.operations.weight_routes import RpcRoute, UpdateWeightsRoute
from serve.paths import ACTIONS, OPERATIONS, RESPONSE
from serve.pooling.cohere_route import CohereEmbedRoute
from serve.pooling.encode import EncodeRoute
from serve.pooling.routes import (
    ClassifyRoute,
    EmbeddingsRoute,
    PoolingRoute,
    RerankRoute,
    ScoreRoute,
)
from serve.realtime.route import REALTIME, RealtimeRoute, say_to_upgrade
from serve.responses.routes import ResponsesRenderRoute, ResponsesRoute, StoredResponses
from serve.responses.store import ResponseStore
from serve.service import Service


def build_app(service: Service) -> Starlette:
    """The application that serves `service`."""
    settings = service.settings
    if service.engine_config.enable_lora:
        most = service.engine_config.max_loras
        service.metrics.registry.register(AdapterMetrics(service.client, most))
    limits = KeyLimits(settings.max_concurrent_requests_per_key, service.metrics)
    routes = [*_generation(service), *_information(service)]
    measured = Middleware(MeasureHttp, metrics=service.metrics.http, routes=routes)
    root = [Middleware(RootPath, path=settings.root_path)] if settings.root_path else []
    return Starlette(
        routes=[*routes, WebSocketRoute(REALTIME, RealtimeRoute(service))],
        middleware=[*root, measured, *layers(service, limits)],
        exception_handlers={
            IngotError: handle_ingot_error,
            HTTPException: handle_http_exception,
            Exception: handle_unexpected,
        },
    )


def _generation(service: Service) -> Iterator[Route]:
    """What is asked of the model."""
    store = ResponseStore()
    stored = StoredResponses(store)
    routes: dict[str, ASGIApp] = {
        "/v1/completions": CompletionsRoute(service),
        "/v1/chat/completions": ChatRoute(service),
        "/v1/chat/completions/batch": ChatBatchRoute(service),
        "/v1/chat/completions/derender": DerenderChatRoute(service),
        "/v1/completions/derender": DerenderCompletionRoute(service),
        "/v1/responses": ResponsesRoute(service, store),
        "/v1/messages": MessagesRoute(service),
        "/v1/messages/count_tokens": CountTokensRoute(service),
        "/cohere/v2/chat": CohereChatRoute(service),
        "/generate": GenerateRoute(service),
        "/open_session": OpenSessionRoute(service),
        "/close_session": CloseSessionRoute(service),
        "/inference/v1/generate": TokensRoute(service),
        "/api/chat": OllamaChatRoute(service),
        "/api/generate": OllamaGenerateRoute(service),
        "/api/show": ShowRoute(service),
        "/v1/embeddings": EmbeddingsRoute(service),
        "/generative_scoring": GenerativeScoringRoute(service),
        "/v2/embed": CohereEmbedRoute(service),
        "/pooling": PoolingRoute(service),
        "/encode": EncodeRoute(service),
        "/v2/rerank": RerankRoute(service),
        "/parse_function_call": ParseCallsRoute(service),
        "/separate_reasoning": SeparateReasoningRoute(service),
        ABORT: AbortResponseRoute(service),
        ABORT_REQUESTS: AbortRequestsRoute(service),
        PAUSE_GENERATION: PauseGenerationRoute(service),
        UPDATE_WEIGHTS: UpdateWeightsRoute(service),
        RPC: RpcRoute(service),
        RELEASE: ReleaseMemoryRoute(service),
        RESUME_MEMORY: ResumeMemoryRoute(service),
        START_PROFILE: StartProfileRoute(service),
        CONFIGURE_LOGGING: ConfigureLoggingRoute(service),
        LOAD: LoadAdapterRoute(service),
        UNLOAD: UnloadAdapterRoute(service),
    }
    for version in ("", "/v1"):
        routes |= {
            f"{version}/classify": ClassifyRoute(service),
            f"{version}/score": ScoreRoute(service),
            f"{version}/rerank": RerankRoute(service),
            f"{version}/tokenize": TokenizeRoute(service),
            f"{version}/detokenize": DetokenizeRoute(service),
        }
    routes |= _rendering(service, store)
    routes |= {path: AudioRoute(service, task) for path, task in AUDIO_PATHS.items()}
    routes["/invocations"] = Invocations(service, dict(routes))
    for path, route in routes.items():
        yield Route(path, route, methods=["POST"])
    yield Route(RESPONSE, stored.one, methods=["GET", "DELETE"])
    yield Route(f"{RESPONSE}/input_items", stored.input_items)
    yield Route(f"{RESPONSE}/cancel", stored.cancel, methods=["POST"])


def _rendering(service: Service, store: ResponseStore) -> dict[str, ASGIApp]:
    """What stops where the model would begin."""
    return {
        "/v1/chat/completions/render": ChatRenderRoute(service),
        "/v1/completions/render": CompletionRenderRoute(service),
        "/v1/responses/render": ResponsesRenderRoute(service, store),
        "/v1/messages/render": MessagesRenderRoute(service),
        "/cohere/v2/chat/render": CohereRenderRoute(service),
    }


def _information(service: Service) -> Iterator[Route]:
    """What is told about the server."""
    health, models, info = HealthRoutes(service), ModelsRoutes(service), InfoRoutes(service)
    for path in ("/health", "/readyz", "/ready"):
        yield Route(path, health.ready)
    yield Route("/ping", health.ready, methods=["GET", "POST"])
    yield Route("/health_generate", HealthGenerateRoute(service).__call__)
    for path in ("/model_info", "/get_model_info"):
        yield Route(path, info.model)
    yield Route("/tokenizer_info", info.tokenizer)
    yield Route("/get_world_size", info.world_size)
    yield Route("/kv_event_sources", info.event_sources)
    yield Route("/v1/loads", info.loads)
    for path in RESETS:
        yield Route(path, ResetRoute(service).__call__, methods=["POST"])
    pauses = PauseRoutes(service)
    for path, pause in pauses.paths().items():
        yield Route(path, pause, methods=["POST"])
    sleeps = SleepRoutes(service)
    yield Route(SLEEP, sleeps.sleep, methods=["POST"])
    yield Route(WAKE_UP, sleeps.wake_up, methods=["POST"])
    yield Route(RELEASE_CACHE, sleeps.release_kv_cache_memory, methods=["POST"])
    yield Route("/is_sleeping", sleeps.is_sleeping)
    yield Route(FREEZE_GC, FreezeGcRoute(service).__call__, methods=["POST"])
    yield Route(STOP_PROFILE, StopProfileRoute(service).__call__, methods=["POST"])
    yield Route("/is_paused", pauses.is_paused)
    yield Route("/livez", health.alive)
    yield Route("/load", health.load)
    yield Route("/version", health.version)
    for path in ("/server_info", "/get_server_info"):
        yield Route(path, health.server_info)
    yield Route("/metrics", service.metrics.route)
    yield Route("/v1/models", models.every)
    yield Route(REALTIME, say_to_upgrade)
    yield Route("/api/tags", TagsRoute(service).__call__)
    yield Route("/v1/models/{name:path}", models.one)
    root = service.settings.root_path
    pages = Pages(root).__call__
    for path in (*PAGES, *(f"/pages/{name}" for name in FILES)):
        yield Route(path, pages)
    yield Route(ADMIN_STATE, AdminState(service).__call__)
    yield Route("/admin/abort", AbortRoute(service), methods=["POST"])
    yield Route("/openapi.json", OpenApiRoute(OPERATIONS, ACTIONS, root).__call__)
