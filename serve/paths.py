"""What every path takes and gives, and what for: the API as `/openapi.json` tells it."""

from serve.adapters.routes import AdapterChanged, LoadRequest, UnloadRequest
from serve.audio.form import AUDIO_PATHS, FORM
from serve.audio.protocol import AudioRequest, TextDelta, Transcript, VerboseTranscript
from serve.cohere.protocol import CohereChat, CohereChatRequest, CohereEvent
from serve.http.openapi import Action, Operation
from serve.messages.protocol import (
    AnthropicMessage,
    CountRequest,
    MessagesRequest,
    StreamEvent,
    TokenCount,
)
from serve.native.generate import GenerateRequest
from serve.native.generate_view import Generated
from serve.native.label_scores import GenerativeScoringRequest, LabelScores
from serve.native.session_routes import Closed, CloseSessionRequest, OpenSessionRequest
from serve.native.take_apart import (
    ParseCallsRequest,
    ParsedCalls,
    SeparatedReasoning,
    SeparateReasoningRequest,
)
from serve.native.tokens_only import TokensGenerated, TokensRequest
from serve.ollama.protocol import (
    OllamaChatRequest,
    OllamaGenerateRequest,
    OllamaResponse,
    ShownModel,
    ShowRequest,
)
from serve.ollama.routes import LINES
from serve.openai.chat_batch import ChatBatchRequest
from serve.openai.derender import DerenderChatRequest, DerenderCompletionRequest
from serve.openai.derender_stream import ChatPiece, CompletionPiece
from serve.openai.render import RenderedPrompt
from serve.openai.tokenize import DetokenizeRequest, Text, TokenizeRequest, Tokens
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
)
from serve.operations.pause_routes import PAUSING, Done, PauseRequest
from serve.operations.process_routes import LoggingConfigured, LoggingRequest
from serve.operations.profile_routes import ProfileChanged, StartProfileRequest
from serve.operations.sleep_routes import SLEEPING, WAKING, MemoryRequest
from serve.operations.weight_routes import (
    RpcRequest,
    RpcResults,
    UpdateWeightsRequest,
    WeightsUpdated,
)
from serve.pooling.cohere import CohereEmbeddings, CohereEmbedRequest
from serve.pooling.encode import Encoded, EncodeRequest
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
from serve.protocol.chat import ChatChunk, ChatCompletion, ChatRequest
from serve.protocol.completions import Completion, CompletionRequest
from serve.realtime.route import REALTIME
from serve.responses.input_items import QUERY
from serve.responses.protocol import (
    Deleted,
    InputItemList,
    ResponseEvent,
    ResponseObject,
    ResponsesRequest,
)

BINARY = ("application/octet-stream",)
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
    Operation("/v1/responses/render", ResponsesRequest, RenderedPrompt),
    Operation("/v1/messages/render", MessagesRequest, RenderedPrompt),
    Operation("/v1/messages/count_tokens", CountRequest, TokenCount),
    Operation("/cohere/v2/chat", CohereChatRequest, CohereChat, CohereEvent),
    Operation("/cohere/v2/chat/render", CohereChatRequest, RenderedPrompt),
    Operation("/generate", GenerateRequest, Generated, Generated, or_gives=list[Generated]),
    Operation("/open_session", OpenSessionRequest, str),
    Operation("/close_session", CloseSessionRequest, Closed),
    Operation("/inference/v1/generate", TokensRequest, TokensGenerated, TokensGenerated),
    Operation("/api/chat", OllamaChatRequest, OllamaResponse, OllamaResponse, stream_media=LINES),
    Operation(
        "/api/generate", OllamaGenerateRequest, OllamaResponse, OllamaResponse, stream_media=LINES
    ),
    Operation("/api/show", ShowRequest, ShownModel),
    Operation("/v1/embeddings", EmbeddingRequest, EmbeddingList, or_media=BINARY),
    Operation("/v2/embed", CohereEmbedRequest, CohereEmbeddings),
    Operation("/pooling", PoolingRequest, PooledList, or_media=BINARY),
    *(
        Operation(path, ClassifyRequest, ClassifiedList, or_gives=Encoded | list[Encoded])
        for path in ("/classify", "/v1/classify")
    ),
    Operation("/encode", EncodeRequest, Encoded, or_gives=list[Encoded]),
    *(
        Operation(path, ScoreRequest, ScoreList, or_gives=LabelScores)
        for path in ("/score", "/v1/score")
    ),
    Operation("/generative_scoring", GenerativeScoringRequest, ScoreList),
    *(Operation(f"{version}/rerank", RerankRequest, Ranking) for version in ("", "/v1", "/v2")),
    *(
        Operation(
            path,
            AudioRequest,
            Transcript,
            TextDelta,
            FORM,
            or_gives=VerboseTranscript,
            or_media=("text/plain", "text/vtt"),
        )
        for path in AUDIO_PATHS
    ),
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
    "/get_server_info": "The same.",
    "/model_info": "The model.",
    "/get_model_info": "The same.",
    "/get_world_size": "How many devices the model is spread over.",
    "/kv_event_sources": "Who tells of pages of the cache that come and go: nobody.",
    "/tokenizer_info": "The tokenizer and its chat template.",
    "/v1/loads": "How many sequences run and wait, and how full the cache is.",
    "/is_paused": "Whether an operator has paused the server.",
    "/is_sleeping": "Whether it is paused, or has let go of memory.",
    "/v1/models": "What is served.",
    "/api/tags": "The same, in Ollama's words.",
}
RESPONSE = "/v1/responses/{response_id}"
ACTIONS = [
    *(Action("get", path, what) for path, what in READABLE.items()),
    Action("get", "/metrics", "Metrics for Prometheus.", media="text/plain"),
    Action("post", "/ping", "The same."),
    Action("post", "/invocations", "What the route does that takes these fields; SageMaker's."),
    Action("get", REALTIME, "Speech that is heard while it is spoken, on a WebSocket."),
    Action("get", "/v1/models/{name}", "One of what is served."),
    Action(
        "get", RESPONSE, "A response as it is now, or its events from one on.", ResponseObject,
        streams=ResponseEvent, query={"stream": "boolean", "starting_after": "integer"},
    ),
    Action(
        "get", f"{RESPONSE}/input_items", "What a response was made of, a page at a time.",
        InputItemList, query=QUERY,
    ),
    Action("delete", RESPONSE, "Forget a response, and end it.", Deleted),
    Action("post", f"{RESPONSE}/cancel", "End a response in the background.", ResponseObject),
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
