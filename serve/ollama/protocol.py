"""What `/api/chat`, `/api/generate` and `/api/show` take and give, as Ollama's API describes it."""

from typing import Annotated, Any, ClassVar, Literal

from msgspec import UNSET, Meta, Struct, UnsetType

from engine.errors import RequestError
from serve.protocol.decoding import CheckedRequest
from serve.protocol.tools import Tool


class OllamaFunction(Struct, frozen=True, forbid_unknown_fields=True):
    """What an earlier turn called; arguments are an object here, not its text."""

    name: str
    arguments: dict[str, Any] = {}
    index: int | None = None


class OllamaCall(Struct, frozen=True, forbid_unknown_fields=True):
    """One call."""

    function: OllamaFunction
    id: str | None = None


class OllamaMessage(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One turn, of which no model here sees an image."""

    role: Literal["system", "user", "assistant", "tool"]
    content: str | None = None
    thinking: str | None = None
    images: Annotated[list[str], Meta(max_length=0)] | None = None  # litellm sends an empty list
    tool_calls: list[OllamaCall] | None = None
    tool_name: str | None = None
    tool_call_id: str | None = None


class OllamaOptions(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Ollama's names of sampling options; None always means "as if it were not sent"."""

    temperature: float | None = None
    top_p: float | None = None
    top_k: int | None = None
    min_p: float | None = None
    seed: int | None = None
    stop: str | list[str] | None = None
    num_predict: int | None = None  # -1 and -2: what the context has room for
    num_ctx: int | None = None  # at most what the model was started with
    repeat_penalty: float | None = None
    presence_penalty: float | None = None
    frequency_penalty: float | None = None


class OllamaFields(CheckedRequest, frozen=True, kw_only=True):
    """Fields of chats and prompts."""

    model: str | None = None
    stream: bool | None = None  # yes, unless it is false
    format: str | dict[str, Any] | None = None  # "json", or a schema
    options: OllamaOptions | None = None
    think: bool | str | None = None
    keep_alive: str | float | None = None  # the model is kept as long as the server runs
    cache_salt: str | None = None  # this and what follows as in the chat API
    extra_key: str | None = None

    @property
    def streams(self) -> bool:
        return self.stream is not False

    def check_shared(self) -> None:
        if self.keep_alive in (0, "0", "0s"):
            raise RequestError("This server keeps its model; leave out keep_alive.", "keep_alive")
        if isinstance(self.format, str) and self.format not in ("", "json"):
            raise RequestError("format must be 'json' or a JSON schema.", "format")


class OllamaChatRequest(OllamaFields, frozen=True, kw_only=True):
    """A conversation to go on with; an empty one only asks whether the model is there."""

    needs: ClassVar[tuple[tuple[str, ...], ...]] = (("messages",),)
    messages: list[OllamaMessage] | None = None
    tools: list[Tool] | None = None

    def check_shared(self) -> None:
        super().check_shared()
        if self.messages is None:
            raise RequestError("messages is missing.", "messages")


class OllamaGenerateRequest(OllamaFields, frozen=True, kw_only=True):
    """A question to answer; an empty one only asks whether the model is there."""

    needs: ClassVar[tuple[tuple[str, ...], ...]] = (("prompt",),)
    prompt: str | None = None
    system: str | None = None

    def check_shared(self) -> None:
        super().check_shared()
        if self.prompt is None:
            raise RequestError("prompt is missing.", "prompt")


class ShowRequest(CheckedRequest, frozen=True, kw_only=True):
    """Which model is to be described, under the newer name of the field or the older one."""

    needs = (("model",), ("name",))
    model: str | None = None
    name: str | None = None
    verbose: bool | None = None  # there is nothing longer to say

    def check_shared(self) -> None:
        if (self.model is None) == (self.name is None):
            raise RequestError("Send model.", "model")


class OllamaAnswer(Struct):
    """The assistant's turn, or a piece of it."""

    content: str
    role: Literal["assistant"] = "assistant"
    thinking: str | UnsetType = UNSET
    tool_calls: list[dict[str, Any]] | UnsetType = UNSET


class OllamaResponse(Struct, kw_only=True):
    """The whole response, or one line of it; the last says why it ended, and how long things took
    in nanoseconds. A chat has a `message`, a prompt a `response`."""

    model: str
    created_at: str
    message: OllamaAnswer | UnsetType = UNSET
    response: str | UnsetType = UNSET
    thinking: str | UnsetType = UNSET
    done: bool = False
    done_reason: Literal["stop", "length", "load"] | UnsetType = UNSET
    total_duration: int | UnsetType = UNSET
    load_duration: int | UnsetType = UNSET
    prompt_eval_count: int | UnsetType = UNSET
    prompt_eval_duration: int | UnsetType = UNSET
    eval_count: int | UnsetType = UNSET
    eval_duration: int | UnsetType = UNSET


class ShownModel(Struct, kw_only=True):
    """What there is to know of a model."""

    modelfile: str
    parameters: str
    template: str
    details: dict[str, Any]
    model_info: dict[str, Any]
    capabilities: list[str]
    modified_at: str
