"""What `/cohere/v2/chat` takes and gives, as Cohere's API describes it.

Fields that ask for something that is not served here are refused by name.
"""

from typing import Any, ClassVar, Literal

from msgspec import UNSET, Struct, UnsetType

from engine.errors import RequestError
from serve.protocol.chat import TextPart
from serve.protocol.decoding import CheckedRequest
from serve.protocol.tools import CalledTool, Tool

_NO_CITATIONS = frozenset({None, "OFF", "DISABLED"})


class CohereDocument(Struct, frozen=True, forbid_unknown_fields=True):
    """Something to answer from."""

    data: dict[str, Any] | str
    id: str | None = None

    @property
    def fields(self) -> dict[str, Any]:
        """As chat templates take documents: one dict."""
        own = self.data if isinstance(self.data, dict) else {"text": self.data}
        return own if self.id is None else {"id": self.id, **own}


class CohereText(Struct, tag_field="type", tag="text", frozen=True, forbid_unknown_fields=True):
    """A text."""

    text: str


class CohereThought(
    Struct, tag_field="type", tag="thinking", frozen=True, forbid_unknown_fields=True
):
    """The reasoning of an earlier turn."""

    thinking: str


class CohereFound(
    Struct, tag_field="type", tag="document", frozen=True, forbid_unknown_fields=True
):
    """What a tool found."""

    document: CohereDocument


class SystemTurn(Struct, tag_field="role", tag="system", frozen=True, forbid_unknown_fields=True):
    """How the model is to behave."""

    content: str | list[TextPart]


class UserTurn(Struct, tag_field="role", tag="user", frozen=True, forbid_unknown_fields=True):
    """What is asked; no model here sees an image."""

    content: str | list[TextPart]


class AssistantTurn(
    Struct, tag_field="role", tag="assistant", frozen=True, forbid_unknown_fields=True
):
    """An earlier answer; its citations carry no text."""

    content: str | list[CohereText | CohereThought] | None = None
    tool_plan: str | None = None
    tool_calls: list[CalledTool] | None = None
    citations: list[Any] | None = None


class ToolTurn(Struct, tag_field="role", tag="tool", frozen=True, forbid_unknown_fields=True):
    """What a call gave."""

    tool_call_id: str
    content: str | list[CohereText | CohereFound]


Turn = SystemTurn | UserTurn | AssistantTurn | ToolTurn


class CitationOptions(Struct, frozen=True, forbid_unknown_fields=True):
    """Whether to cite, in Cohere's older words and its newer ones."""

    mode: Literal["FAST", "ACCURATE", "ENABLED", "OFF", "DISABLED"] | None = None


class CohereFormat(Struct, frozen=True, forbid_unknown_fields=True):
    """What the answer must be."""

    type: Literal["text", "json_object"]
    json_schema: dict[str, Any] | None = None


class CohereThinking(Struct, frozen=True, forbid_unknown_fields=True):
    """Whether to think, and for how many tokens."""

    type: Literal["enabled", "disabled"]
    token_budget: int | None = None


class CohereChatRequest(CheckedRequest, frozen=True, kw_only=True):
    """A conversation to go on with."""

    needs: ClassVar[tuple[tuple[str, ...], ...]] = (("messages",),)
    model: str | None = None
    messages: list[Turn] | None = None
    stream: bool | None = None
    tools: list[Tool] | None = None
    strict_tools: bool | None = None
    tool_choice: Literal["REQUIRED", "NONE"] | None = None
    documents: list[str | CohereDocument] | None = None
    citation_options: CitationOptions | None = None
    response_format: CohereFormat | None = None
    safety_mode: Literal["CONTEXTUAL", "STRICT", "OFF", "NONE"] | None = None
    max_tokens: int | None = None
    stop_sequences: list[str] | None = None
    temperature: float | None = None
    p: float | None = None
    k: int | None = None
    seed: int | None = None
    frequency_penalty: float | None = None
    presence_penalty: float | None = None
    logprobs: bool | None = None
    thinking: CohereThinking | None = None
    priority: int | None = None
    chat_template_kwargs: dict[str, Any] | None = None  # vLLM's
    cache_salt: str | None = None  # this and what follows as in the chat API
    extra_key: str | None = None
    watermarking: bool | None = None

    def check_shared(self) -> None:
        if not self.messages:
            raise RequestError("messages must hold at least one message.", "messages")
        if self.citation_options and self.citation_options.mode not in _NO_CITATIONS:
            raise RequestError(
                "Answers have no citations here; send mode OFF, or leave out citation_options.",
                "citation_options",
            )
        wanted = self.response_format
        if wanted is not None and wanted.type == "text" and wanted.json_schema is not None:
            raise RequestError(
                "response_format.json_schema is of type json_object.", "response_format"
            )
        thinking = self.thinking
        if thinking is not None and thinking.type == "disabled" and thinking.token_budget:
            raise RequestError(
                "thinking.token_budget has no effect where thinking is disabled; leave it out.",
                "thinking",
            )
        if self.strict_tools and not self.tools:
            raise RequestError("strict_tools needs tools.", "strict_tools")
        if self.logprobs and self.stream and self.tools:
            raise RequestError(
                "logprobs of a stream are of its text, and tools may be called instead; leave out "
                "stream, logprobs or tools.",
                "logprobs",
            )


class TokenCounts(Struct):
    """Of the prompt, and of what was generated."""

    input_tokens: int
    output_tokens: int


class CohereUsage(Struct):
    """Nothing is billed here; both count the same."""

    billed_units: TokenCounts
    tokens: TokenCounts
    cached_tokens: int | UnsetType = UNSET


class CohereLogprobs(Struct):
    """A piece of what was generated, and its tokens."""

    text: str
    token_ids: list[int]
    logprobs: list[float]


class CohereMessage(Struct):
    """The assistant's turn, as a client sends it back."""

    role: Literal["assistant"] = "assistant"
    content: list[dict[str, Any]] | UnsetType = UNSET
    tool_calls: list[dict[str, Any]] | UnsetType = UNSET


CohereFinishReason = Literal["COMPLETE", "STOP_SEQUENCE", "MAX_TOKENS", "TOOL_CALL", "ERROR"]


class CohereChat(Struct, kw_only=True):
    """The whole response."""

    id: str
    finish_reason: CohereFinishReason
    message: CohereMessage
    usage: CohereUsage
    logprobs: list[CohereLogprobs] | UnsetType = UNSET


class CohereEvent(Struct, kw_only=True):
    """One event of a streamed response; `index` counts blocks of content, and calls."""

    type: Literal[
        "message-start", "content-start", "content-delta", "content-end",
        "tool-call-start", "tool-call-delta", "tool-call-end", "message-end",
    ]  # fmt: skip
    id: str | UnsetType = UNSET
    index: int | UnsetType = UNSET
    delta: dict[str, Any] | UnsetType = UNSET
    logprobs: CohereLogprobs | UnsetType = UNSET
