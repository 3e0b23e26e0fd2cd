"""What `/v1/messages` takes and gives, as Anthropic's API describes it.

Fields that ask for something that is not served here are refused by name, those annotated `None`
unless they are null.
"""

from typing import Any, Literal

from msgspec import UNSET, Struct, UnsetType

from engine.errors import RequestError
from serve.protocol.decoding import CheckedRequest


class TextBlock(Struct, tag_field="type", tag="text", frozen=True, forbid_unknown_fields=True):
    """A text; `cache_control` asks for what the prefix cache does anyway."""

    text: str
    cache_control: Any = None
    citations: list[Any] | None = None


class ToolUseBlock(
    Struct, tag_field="type", tag="tool_use", frozen=True, forbid_unknown_fields=True
):
    """A call of an earlier turn."""

    id: str
    name: str
    input: dict[str, Any]
    cache_control: Any = None


class ToolResultBlock(
    Struct, tag_field="type", tag="tool_result", frozen=True, forbid_unknown_fields=True
):
    """What a call gave."""

    tool_use_id: str
    content: str | list[TextBlock] | None = None
    is_error: bool | None = None
    cache_control: Any = None


class ThinkingBlock(
    Struct, tag_field="type", tag="thinking", frozen=True, forbid_unknown_fields=True
):
    """The reasoning of an earlier turn."""

    thinking: str
    signature: str = ""


class RedactedThinkingBlock(
    Struct, tag_field="type", tag="redacted_thinking", frozen=True, forbid_unknown_fields=True
):
    """Reasoning that nobody here can read; it is left out."""

    data: str


Block = TextBlock | ToolUseBlock | ToolResultBlock | ThinkingBlock | RedactedThinkingBlock


class Message(Struct, frozen=True, forbid_unknown_fields=True):
    """One turn."""

    role: Literal["user", "assistant", "system"]
    content: str | list[Block]


class AnthropicTool(Struct, frozen=True, forbid_unknown_fields=True):
    """A tool of the client's."""

    name: str
    input_schema: dict[str, Any]
    description: str | None = None
    type: Literal["custom"] | None = None
    strict: bool | None = None
    cache_control: Any = None
    eager_input_streaming: bool | None = None  # arguments are streamed as they are made anyway


class ChooseAuto(Struct, tag_field="type", tag="auto", frozen=True, forbid_unknown_fields=True):
    """The model chooses."""

    disable_parallel_tool_use: bool | None = None


class ChooseAny(Struct, tag_field="type", tag="any", frozen=True, forbid_unknown_fields=True):
    """Some tool has to be called."""

    disable_parallel_tool_use: bool | None = None


class ChooseTool(Struct, tag_field="type", tag="tool", frozen=True, forbid_unknown_fields=True):
    """This tool has to be called."""

    name: str
    disable_parallel_tool_use: bool | None = None


class ChooseNone(Struct, tag_field="type", tag="none", frozen=True, forbid_unknown_fields=True):
    """No tool may be called."""


AnthropicToolChoice = ChooseAuto | ChooseAny | ChooseTool | ChooseNone


class Thinking(Struct, frozen=True, forbid_unknown_fields=True):
    """Whether the model is to think first, where its chat template can say so, and for how long."""

    type: Literal["enabled", "disabled", "adaptive"]
    budget_tokens: int | None = None
    display: Literal["summarized", "omitted"] | None = None


class OutputFormat(Struct, frozen=True, forbid_unknown_fields=True):
    """What the answer must be: JSON of this schema."""

    type: Literal["json_schema"]
    schema: dict[str, Any]


class OutputConfig(Struct, frozen=True, forbid_unknown_fields=True):
    """The form of the answer. `effort` is a hint for chat templates that take one."""

    format: OutputFormat | None = None
    effort: Literal["low", "medium", "high", "xhigh", "max"] | None = None


class CountRequest(CheckedRequest, frozen=True, kw_only=True):
    """A conversation whose tokens are to be counted."""

    model: str
    messages: list[Message]
    system: str | list[TextBlock] | None = None
    tools: list[AnthropicTool] | None = None
    tool_choice: AnthropicToolChoice | None = None
    thinking: Thinking | None = None
    output_config: OutputConfig | None = None
    chat_template_kwargs: dict[str, Any] | None = None  # as in the chat API
    output_format: OutputFormat | None = None  # the same as output_config.format, before it
    cache_control: Any = None  # asks for what the prefix cache does anyway

    @property
    def format(self) -> OutputFormat | None:
        """What the answer must be, under either name."""
        newer = self.output_config.format if self.output_config else None
        return newer or self.output_format

    def check_shared(self) -> None:
        thinking = self.thinking
        if thinking and thinking.type == "disabled" and thinking.budget_tokens is not None:
            raise RequestError(
                "thinking.budget_tokens needs thinking that is not disabled.", "thinking"
            )
        if self.output_format and self.output_config and self.output_config.format:
            raise RequestError(
                "output_format and output_config.format are the same; send one.", "output_format"
            )


class MessagesRequest(CountRequest, frozen=True, kw_only=True):
    """A conversation to go on with."""

    max_tokens: int
    stream: bool | None = None
    stop_sequences: list[str] | None = None
    temperature: float | None = None
    top_p: float | None = None
    top_k: int | None = None
    priority: int | None = None
    cache_salt: str | None = None
    extra_key: str | None = None  # as in the chat API
    watermarking: bool | None = None
    vllm_xargs: dict[str, Any] | None = None


class ThinkingTokens(Struct):
    """How much of the output was thinking."""

    thinking_tokens: int


class AnthropicUsage(Struct):
    """Counts; `input_tokens` are those that had to be computed."""

    input_tokens: int
    output_tokens: int
    cache_creation_input_tokens: int = 0
    cache_read_input_tokens: int = 0
    output_tokens_details: ThinkingTokens | UnsetType = UNSET


StopReason = Literal["end_turn", "max_tokens", "stop_sequence", "tool_use"]


class AnthropicMessage(Struct, kw_only=True):
    """The whole response; its content is blocks as a client sends them back."""

    id: str
    type: Literal["message"] = "message"
    role: Literal["assistant"] = "assistant"
    model: str
    content: list[dict[str, Any]]
    stop_reason: StopReason | None = None
    stop_sequence: str | None = None
    usage: AnthropicUsage


class StreamEvent(Struct, kw_only=True):
    """One event of a streamed response; those of a kind share their fields."""

    type: str
    index: int | UnsetType = UNSET
    message: AnthropicMessage | UnsetType = UNSET
    content_block: dict[str, Any] | UnsetType = UNSET
    delta: dict[str, Any] | UnsetType = UNSET
    usage: AnthropicUsage | UnsetType = UNSET


class TokenCount(Struct):
    """The answer of count_tokens."""

    input_tokens: int
