"""The HTTP application: which path leads where."""

from collections.abc import Iterator

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.routing import Route, WebSocketRoute
from starlette.types import ASGIApp

from models.errors import IngotError
from serve.adapters.metrics import AdapterMetrics
from serve.adapters.routes import (
    AdapterChanged,
    LoadAdapterRoute,
    LoadRequest,
    UnloadAdapterRoute,
    UnloadRequest,
)
from serve.audio.form import AUDIO_PATHS, FORM
from serve.audio.protocol import AudioRequest, TextDelta, Transcript
from serve.audio.routes import AudioRoute
from serve.cohere.protocol import CohereChat, CohereChatRequest, CohereEvent
from serve.cohere.routes import CohereChatRoute, CohereRenderRoute
from serve.errors import handle_http_exception, handle_ingot_error, handle_unexpected
from serve.http.key_limits import KeyLimits
from serve.http.openapi import Action, OpenApiRoute, Operation
from serve.http.root_path import RootPath
from serve.layers import layers
from serve.messages.protocol import (
    AnthropicMessage,
    CountRequest,
    MessagesRequest,
    StreamEvent,
    TokenCount,
)
from serve.messages.routes import CountTokensRoute, MessagesRoute
from serve.native.generate import GenerateRequest, GenerateRoute
from serve.native.generate_view import Generated
from serve.native.invocations import Invocations
from serve.native.label_scores import (
    GenerativeScoringRequest,
    GenerativeScoringRoute,
    LabelScores,
)
from serve.native.session_routes import (
    Closed,
    CloseSessionRequest,
    CloseSessionRoute,
    OpenSessionRequest,
    OpenSessionRoute,
)
from serve.native.take_apart import (
    ParseCallsRequest,
    ParseCallsRoute,
    ParsedCalls,
    SeparatedReasoning,
    SeparateReasoningRequest,
    SeparateReasoningRoute,
)
from serve.native.tokens_only import TokensGenerated, TokensRequest, TokensRoute
from serve.ollama.protocol import (
    OllamaChatRequest,
    OllamaGenerateRequest,
    OllamaResponse,
    ShownModel,
    ShowRequest,
)
from serve.ollama.routes import (
    LINES,
    OllamaChatRoute,
    OllamaGenerateRoute,
    ShowRoute,
    TagsRoute,
)
from serve.openai.chat import ChatRoute
from serve.openai.chat_batch import ChatBatchRequest, ChatBatchRoute
from serve.openai.completions import CompletionsRoute
from serve.openai.derender import (
    DerenderChatRequest,
    DerenderChatRoute,
    DerenderCompletionRequest,
    DerenderCompletionRoute,
)
from serve.openai.derender_stream import ChatPiece, CompletionPiece
from serve.openai.models_route import ModelsRoutes
from serve.openai.render import ChatRenderRoute, CompletionRenderRoute, RenderedPrompt
from serve.openai.tokenize import (
    DetokenizeRequest,
    DetokenizeRoute,
    Text,
    TokenizeRequest,
    TokenizeRoute,
    Tokens,
)
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
    CONTINUE,
    FREEZE_GC,
    LOAD,
    PAUSE,
    PAUSE_GENERATION,
    RELEASE,
    RELEASE_CACHE,
    RESETS,
    RESUME,
    RESUME_MEMORY,
    RPC,
    SLEEP,
    START_PROFILE,
    STOP_PROFILE,
    UNLOAD,
    UPDATE_WEIGHTS,
    WAKE_UP,
    Aborted,
    AbortedRequests,
    AbortRequest,
    AbortRequestsRequest,
    AbortRequestsRoute,
    AbortResponseRoute,
    ResetRoute,
)
from serve.operations.pause_routes import (
    PAUSING,
    Done,
    PauseGenerationRoute,
    PauseRequest,
    PauseRoutes,
)
from serve.operations.process_routes import (
    ConfigureLoggingRoute,
    FreezeGcRoute,
    LoggingConfigured,
    LoggingRequest,
)
from serve.operations.profile_routes import (
    ProfileChanged,
    StartProfileRequest,
    StartProfileRoute,
    StopProfileRoute,
)
from serve.operations.sleep_routes import (
    SLEEPING,
    WAKING,
    MemoryRequest,
    ReleaseMemoryRoute,
    ResumeMemoryRoute,
    SleepRoutes,
)
from serve.operations.weight_routes import (
    RpcRequest,
    RpcResults,
    RpcRoute,
    UpdateWeightsRequest,
    UpdateWeightsRoute,
    WeightsUpdated,
)
from serve.pooling.cohere import CohereEmbeddings, CohereEmbedRequest
from serve.pooling.cohere_route import CohereEmbedRoute
from serve.pooling.encode import Encoded, EncodeRequest, EncodeRoute
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
from serve.protocol.chat import ChatChunk, ChatCompletion, ChatRequest
from serve.protocol.completions import Completion, CompletionRequest
from serve.realtime.route import REALTIME, RealtimeRoute, say_to_upgrade
from serve.responses.input_items import QUERY
from serve.responses.protocol import (
    Deleted,
    InputItemList,
    ResponseEvent,
    ResponseObject,
    ResponsesRequest,
)
from serve.responses.routes import ResponsesRoute, StoredResponses
from serve.responses.store import ResponseStore
from serve.service import Service

OPERATIONS = [
    Operation("/v1/completions", CompletionRequest, Completion, Completion),
    Operation("/v1/chat/completions", ChatRequest, ChatCompletion, ChatChunk),
    Operation("/v1/chat/completions/batch", ChatBatchRequest, ChatCompletion),
    Operation("/v1/chat/completions/render", ChatRequest, RenderedPrompt),
    Operation("/v1/completions/render", CompletionRequest, RenderedPrompt),
    Operation(
        "/v1/chat/completions/derender", DerenderChatRequest, ChatCompletion, or_gives=ChatPiece
    ),
    Operation(
        "/v1/completions/derender", DerenderCompletionRequest, Completion, or_gives=CompletionPiece
    ),
    Operation("/v1/responses", ResponsesRequest, ResponseObject, ResponseEvent),
    Operation("/v1/messages", MessagesRequest, AnthropicMessage, StreamEvent),
    Operation("/v1/messages/count_tokens", CountRequest, TokenCount),
    Operation("/cohere/v2/chat", CohereChatRequest, CohereChat, CohereEvent),
    Operation("/cohere/v2/chat/render", CohereChatRequest, RenderedPrompt),
    Operation("/generate", GenerateRequest, Generated, Generated),
    Operation("/open_session", OpenSessionRequest, str),
    Operation("/close_session", CloseSessionRequest, Closed),
    Operation("/inference/v1/generate", TokensRequest, TokensGenerated, TokensGenerated),
    Operation("/api/chat", OllamaChatRequest, OllamaResponse, OllamaResponse, stream_media=LINES),
    Operation(
        "/api/generate", OllamaGenerateRequest, OllamaResponse, OllamaResponse, stream_media=LINES
    ),
    Operation("/api/show", ShowRequest, ShownModel),
    Operation("/v1/embeddings", EmbeddingRequest, EmbeddingList),
    Operation("/v2/embed", CohereEmbedRequest, CohereEmbeddings),
    Operation("/pooling", PoolingRequest, PooledList),
    *(
        Operation(path, ClassifyRequest, ClassifiedList, or_gives=Encoded)
        for path in ("/classify", "/v1/classify")
    ),
    Operation("/encode", EncodeRequest, Encoded),
    *(
        Operation(path, ScoreRequest, ScoreList, or_gives=LabelScores)
        for path in ("/score", "/v1/score")
    ),
    Operation("/generative_scoring", GenerativeScoringRequest, ScoreList),
    *(Operation(f"{version}/rerank", RerankRequest, Ranking) for version in ("", "/v1", "/v2")),
    *(Operation(path, AudioRequest, Transcript, TextDelta, FORM) for path in AUDIO_PATHS),
    Operation("/parse_function_call", ParseCallsRequest, ParsedCalls),
    Operation("/separate_reasoning", SeparateReasoningRequest, SeparatedReasoning),
    *(Operation(f"{version}/tokenize", TokenizeRequest, Tokens) for version in ("", "/v1")),
    *(Operation(f"{version}/detokenize", DetokenizeRequest, Text) for version in ("", "/v1")),
]
READABLE = {
    "/health": "Whether requests can be taken.",
    "/readyz": "The same.",
    "/ready": "The same.",
    "/ping": "The same.",
    "/health_generate": "Whether a token comes out.",
    "/livez": "Whether the server answers at all.",
    "/load": "How many sequences run or wait.",
    "/version": "The version.",
    "/server_info": "Settings, model and numbers.",
    "/model_info": "The model.",
    "/get_model_info": "The same.",
    "/get_world_size": "How many devices the model is spread over.",
    "/tokenizer_info": "The tokenizer and its chat template.",
    "/v1/loads": "How many sequences run and wait, and how full the cache is.",
    "/metrics": "Metrics for Prometheus.",
    "/is_paused": "Whether an operator has paused the server.",
    "/is_sleeping": "Whether it is paused, or has let go of memory.",
    "/v1/models": "What is served.",
    "/api/tags": "The same, in Ollama's words.",
}
_RESPONSE = "/v1/responses/{response_id}"
ACTIONS = [
    *(Action("get", path, what) for path, what in READABLE.items()),
    Action("post", "/ping", "The same."),
    Action("post", "/invocations", "What the route does that takes these fields; SageMaker's."),
    Action("get", REALTIME, "Speech that is heard while it is spoken, on a WebSocket."),
    Action("get", "/v1/models/{name}", "One of what is served."),
    Action(
        "get", _RESPONSE, "A response as it is now, or its events from one on.", ResponseObject,
        query={"stream": "boolean", "starting_after": "integer"},
    ),
    Action(
        "get", f"{_RESPONSE}/input_items", "What a response was made of, a page at a time.",
        InputItemList, query=QUERY,
    ),
    Action("delete", _RESPONSE, "Forget a response, and end it.", Deleted),
    Action("post", f"{_RESPONSE}/cancel", "End a response in the background.", ResponseObject),
    *(Action("post", path, "Find no prompt's beginning again; for operators.") for path in RESETS),
    Action("post", ABORT, "End a response with an error; for operators.", Aborted, AbortRequest),
    Action(
        "post", ABORT_REQUESTS, "End responses, or all; for operators.", AbortedRequests,
        AbortRequestsRequest,
    ),
    Action("post", PAUSE, "Begin no request until a resume; for operators.", query=PAUSING),
    Action("post", RESUME, "Begin what came meanwhile; for operators."),
    Action("post", PAUSE_GENERATION, "As /pause; for operators.", Done, PauseRequest),
    Action("post", CONTINUE, "As /resume; for operators."),
    Action("post", SLEEP, "Let go of memory, or pause; for operators.", query=SLEEPING),
    Action("post", WAKE_UP, "Bring memory back; for operators.", query=WAKING),
    Action("post", RELEASE_CACHE, "Drop the KV cache alone; for operators."),
    *(
        Action("post", path, what, Done, MemoryRequest, needs_body=False)
        for path, what in (
            (RELEASE, "Let go of memory; for operators."),
            (RESUME_MEMORY, "Bring it back; for operators."),
        )
    ),
    Action(
        "post", UPDATE_WEIGHTS, "Serve other weights; for operators.", WeightsUpdated,
        UpdateWeightsRequest,
    ),
    Action("post", RPC, "Read the weights again; for operators.", RpcResults, RpcRequest),
    Action(
        "post", START_PROFILE, "Trace steps; for operators.", ProfileChanged, StartProfileRequest,
        needs_body=False,
    ),
    Action("post", FREEZE_GC, "Look for no garbage among what is here; for operators."),
    Action(
        "post", CONFIGURE_LOGGING, "Log requests, or not; for operators.", LoggingConfigured,
        LoggingRequest,
    ),
    Action("post", STOP_PROFILE, "Write the trace; for operators.", ProfileChanged),
    Action("post", LOAD, "Serve an adapter; for operators.", AdapterChanged, LoadRequest),
    Action("post", UNLOAD, "Serve it no longer; for operators.", AdapterChanged, UnloadRequest),
]  # fmt: skip


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
        "/v1/chat/completions/render": ChatRenderRoute(service),
        "/v1/completions/render": CompletionRenderRoute(service),
        "/v1/chat/completions/derender": DerenderChatRoute(service),
        "/v1/completions/derender": DerenderCompletionRoute(service),
        "/v1/responses": ResponsesRoute(service, store),
        "/v1/messages": MessagesRoute(service),
        "/v1/messages/count_tokens": CountTokensRoute(service),
        "/cohere/v2/chat": CohereChatRoute(service),
        "/cohere/v2/chat/render": CohereRenderRoute(service),
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
    routes |= {path: AudioRoute(service, task) for path, task in AUDIO_PATHS.items()}
    routes["/invocations"] = Invocations(service, dict(routes))
    for path, route in routes.items():
        yield Route(path, route, methods=["POST"])
    yield Route(_RESPONSE, stored.one, methods=["GET", "DELETE"])
    yield Route(f"{_RESPONSE}/input_items", stored.input_items)
    yield Route(f"{_RESPONSE}/cancel", stored.cancel, methods=["POST"])


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
    yield Route("/server_info", health.server_info)
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
