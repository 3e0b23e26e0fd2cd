"""What `/v1/responses` takes and gives, as OpenAI's API describes it."""

from collections.abc import Iterable
from typing import Any, Literal

from msgspec import UNSET, Struct, UnsetType, field

from engine.errors import RequestError
from engine.sampling.params import MAX_LOGPROBS
from serve.protocol.decoding import CheckedRequest, check_id, check_obfuscation

LOGPROBS = "message.output_text.logprobs"
_INCLUDED = (LOGPROBS, "reasoning.encrypted_content")  # the second adds nothing: none is hidden


def check_included(names: Iterable[str]) -> None:
    """Raise RequestError for what answers do not have here."""
    for name in names:
        if name not in _INCLUDED:
            listed = " and ".join(_INCLUDED)
            raise RequestError(
                f"include {name[:64]!a} is not served here; {listed} are.", "include"
            )


class _Known(Struct, frozen=True, forbid_unknown_fields=True):
    """A field annotated `None` is one that clients send back as null; what else it may be is not
    served here."""


class TextPart(_Known, tag_field="type", tag="input_text", frozen=True):
    """A text of the user's."""

    text: str


class AnswerPart(_Known, tag_field="type", tag="output_text", frozen=True):
    """A text of an earlier answer."""

    text: str
    annotations: list[Any] = []
    logprobs: list[Any] | None = None


class ThoughtPart(_Known, tag_field="type", tag="reasoning_text", frozen=True):
    """What was thought in an earlier turn."""

    text: str


class SummaryPart(_Known, tag_field="type", tag="summary_text", frozen=True):
    """A summary of what was thought."""

    text: str


class MessageItem(_Known, tag_field="type", tag="message", frozen=True):
    """One turn."""

    role: Literal["system", "developer", "user", "assistant"]
    content: str | list[TextPart | AnswerPart]
    id: str | None = None
    status: str | None = None
    phase: str | None = None  # a label of OpenAI's models; carries no text


class FunctionCallItem(_Known, tag_field="type", tag="function_call", frozen=True):
    """A call of an earlier turn."""

    call_id: str
    name: str
    arguments: str
    id: str | None = None
    status: str | None = None
    caller: None = None
    namespace: None = None
    run_async: None = field(default=None, name="async")
    async_: None = None  # the same, as the official client's `model_dump` spells it


class FunctionOutputItem(_Known, tag_field="type", tag="function_call_output", frozen=True):
    """What a call gave."""

    call_id: str
    output: str | list[TextPart]
    id: str | None = None
    status: str | None = None
    name: str | None = None
    caller: None = None
    namespace: None = None
    created_by: None = None


class ReasoningItem(_Known, tag_field="type", tag="reasoning", frozen=True):
    """The reasoning of an earlier turn."""

    summary: list[SummaryPart]
    content: list[ThoughtPart] | None = None
    encrypted_content: None = None
    id: str | None = None
    status: str | None = None


InputItem = MessageItem | FunctionCallItem | FunctionOutputItem | ReasoningItem


class FunctionTool(Struct, frozen=True, forbid_unknown_fields=True):
    """A function of the client's; no other tools are served."""

    type: Literal["function"]
    name: str
    parameters: dict[str, Any] | None = None
    description: str | None = None
    strict: bool | None = None


class FunctionChoice(
    Struct, tag_field="type", tag="function", frozen=True, forbid_unknown_fields=True
):
    """This function has to be called."""

    name: str


class AllowedFunction(Struct, frozen=True, forbid_unknown_fields=True):
    """One of those that may be called."""

    type: Literal["function"]
    name: str


class AllowedFunctions(
    Struct, tag_field="type", tag="allowed_tools", frozen=True, forbid_unknown_fields=True
):
    """No function but these may be called; with mode "required", one of them has to be."""

    mode: Literal["auto", "required"]
    tools: list[AllowedFunction]


ResponsesToolChoice = Literal["none", "auto", "required"] | FunctionChoice | AllowedFunctions


class TextOptions(Struct, frozen=True, forbid_unknown_fields=True):
    """The form of the answer."""

    format: dict[str, Any] | None = None
    verbosity: Literal["medium"] | None = None


class ReasoningOptions(Struct, frozen=True, forbid_unknown_fields=True):
    """How much to think. Reasoning is shown as it is and nobody sums it up: "auto" leaves that to
    the server."""

    effort: str | None = None
    summary: Literal["auto"] | None = None
    generate_summary: Literal["auto"] | None = None  # the older name
    context: Literal["auto"] | None = None
    mode: Literal["standard"] | None = None


class StreamOptions(Struct, frozen=True, forbid_unknown_fields=True):
    """As in the chat API."""

    include_obfuscation: bool | None = None

    def __post_init__(self) -> None:
        check_obfuscation(self.include_obfuscation)


class ResponsesRequest(CheckedRequest, frozen=True, kw_only=True):
    """None always means "as if it were not sent"."""

    needs = (("input",),)
    model: str | None = None
    input: str | list[dict[str, Any]] | None = None
    instructions: str | None = None
    previous_response_id: str | None = None
    max_output_tokens: int | None = None
    temperature: float | None = None
    top_p: float | None = None
    top_k: int | None = None
    min_p: float | None = None
    presence_penalty: float | None = None
    frequency_penalty: float | None = None
    repetition_penalty: float | None = None
    logit_bias: dict[int, float] | None = None
    stop: str | list[str] | None = None
    stop_token_ids: list[int] | None = None
    include_stop_str_in_output: bool | None = None
    ignore_eos: bool | None = None
    skip_special_tokens: bool | None = None
    structured_outputs: dict[str, Any] | None = None  # as in the chat API
    vllm_xargs: dict[str, Any] | None = None
    top_logprobs: int | None = None
    include: list[str] | None = None
    tools: list[FunctionTool] | None = None
    tool_choice: ResponsesToolChoice | None = None
    parallel_tool_calls: bool | None = None
    reasoning: ReasoningOptions | None = None
    thinking_token_budget: int | None = None  # as in the chat API
    watermarking: bool | None = None
    session_id: str | None = None  # likewise
    include_reasoning: bool | None = None  # likewise
    request_id: str | None = None  # the response's id, instead of one made here
    text: TextOptions | None = None
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    background: bool | None = None
    store: bool | None = None
    metadata: dict[str, str] | None = None
    user: str | None = None
    truncation: Literal["disabled"] | None = None
    seed: int | None = None
    priority: int | None = None
    cache_salt: str | None = None
    extra_key: str | None = None  # as in the chat API
    chat_template_kwargs: dict[str, Any] | None = None

    @property
    def wants_logprobs(self) -> bool:
        return LOGPROBS in (self.include or ())

    def check_shared(self) -> None:
        check_included(self.include or ())
        check_id("session_id", self.session_id)
        check_id("request_id", self.request_id)
        if self.top_logprobs is not None and not 0 <= self.top_logprobs <= MAX_LOGPROBS:
            raise RequestError(
                f"top_logprobs must be between 0 and {MAX_LOGPROBS}.", "top_logprobs"
            )
        if self.top_logprobs and not self.wants_logprobs:
            raise RequestError(f"top_logprobs needs {LOGPROBS!r} in include.", "top_logprobs")
        self._check_metadata()
        if self.background and self.store is False:
            raise RequestError("background needs store, or its end cannot be asked for.", "store")

    def _check_metadata(self) -> None:
        pairs = self.metadata or {}
        if len(pairs) > 16 or any(len(k) > 64 or len(v) > 512 for k, v in pairs.items()):
            raise RequestError(
                "metadata may hold at most 16 texts of at most 512 characters, with names of at "
                "most 64.",
                "metadata",
            )


class CachedTokens(Struct):
    """How much of the input was found in the cache."""

    cached_tokens: int


class ReasoningTokens(Struct):
    """How much of the output was reasoning."""

    reasoning_tokens: int


class ResponseUsage(Struct):
    """Token counts."""

    input_tokens: int
    input_tokens_details: CachedTokens
    output_tokens: int
    output_tokens_details: ReasoningTokens
    total_tokens: int


Status = Literal["queued", "in_progress", "completed", "incomplete", "failed", "cancelled"]


class ResponseObject(Struct, kw_only=True):
    """A response, whether it is complete or not; `output` is items as clients send them back."""

    id: str
    object: Literal["response"] = "response"
    created_at: int
    status: Status
    background: bool = False
    error: dict[str, Any] | None = None
    incomplete_details: dict[str, Any] | None = None
    instructions: str | None = None
    max_output_tokens: int | None = None
    max_tool_calls: int | None = None
    model: str
    output: list[dict[str, Any]]
    parallel_tool_calls: bool = True
    previous_response_id: str | None = None
    reasoning: ReasoningOptions | None = None
    store: bool = True
    temperature: float | None = None
    text: TextOptions = TextOptions({"type": "text"})
    tool_choice: Any = "auto"
    tools: list[FunctionTool] = []
    top_logprobs: int = 0
    top_p: float | None = None
    truncation: str = "disabled"
    usage: ResponseUsage | None = None
    user: str | None = None
    metadata: dict[str, str] = {}


class ResponseEvent(Struct, kw_only=True):
    """One event of a streamed response; those of a kind share their fields."""

    type: str
    sequence_number: int
    response: ResponseObject | UnsetType = UNSET
    output_index: int | UnsetType = UNSET
    content_index: int | UnsetType = UNSET
    item_id: str | UnsetType = UNSET
    item: dict[str, Any] | UnsetType = UNSET
    part: dict[str, Any] | UnsetType = UNSET
    delta: str | UnsetType = UNSET
    text: str | UnsetType = UNSET
    name: str | UnsetType = UNSET
    arguments: str | UnsetType = UNSET
    logprobs: list[Any] | UnsetType = UNSET


class Deleted(Struct):
    """The answer to a DELETE."""

    id: str
    object: Literal["response"] = "response"
    deleted: bool = True


class InputItemList(Struct):
    """Some of what a response was made of."""

    data: list[dict[str, Any]]
    first_id: str | None
    last_id: str | None
    has_more: bool
    object: Literal["list"] = "list"
