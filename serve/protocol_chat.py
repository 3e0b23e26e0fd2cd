"""What `/v1/chat/completions` takes and gives: OpenAI's fields, and vLLM's extensions.

A message field annotated `None` is one that clients send back as null; any other value asks for
something that is not served here and is refused by name.
"""

from typing import Any, Literal

from msgspec import UNSET, Struct, UnsetType

from engine.errors import RequestError
from engine.messages import FinishReason
from engine.sampling_params import MAX_LOGPROBS
from serve.protocol import GenerationRequest, Usage

MAX_MESSAGES = 10_000


class TextPart(Struct, frozen=True, forbid_unknown_fields=True):
    """The only kind of content part that is served."""

    type: Literal["text"]
    text: str


class ChatMessage(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One turn."""

    role: Literal["system", "developer", "user", "assistant"]
    content: str | list[TextPart] | None = None
    name: str | None = None
    annotations: list[Any] | None = None  # of an assistant's earlier turn; carries no text
    audio: None = None
    function_call: None = None
    reasoning: None = None
    reasoning_content: None = None
    refusal: None = None
    tool_call_id: None = None
    tool_calls: None = None

    @property
    def text(self) -> str:
        if isinstance(self.content, str):
            return self.content
        return "\n".join(part.text for part in self.content or ())

    def for_template(self) -> dict[str, Any]:
        """The message as chat templates expect it."""
        message = {"role": self.role, "content": self.text}
        return message if self.name is None else {**message, "name": self.name}


class ChatRequest(GenerationRequest, frozen=True, kw_only=True):
    """`logprobs` true asks for the chosen token, `top_logprobs` k for the k likeliest as well."""

    messages: list[ChatMessage] | None = None
    max_completion_tokens: int | None = None
    logprobs: bool | None = None
    top_logprobs: int | None = None
    add_generation_prompt: bool | None = None
    continue_final_message: bool | None = None
    chat_template_kwargs: dict[str, Any] | None = None

    @property
    def turns(self) -> list[ChatMessage]:
        return self.messages or []

    @property
    def generation_prompt(self) -> bool:
        """Whether the template opens the assistant's turn: yes, unless a turn is continued."""
        wanted = self.add_generation_prompt
        return not self.continue_final_message if wanted is None else wanted

    @property
    def response_role(self) -> str:
        return "assistant" if self.generation_prompt else self.turns[-1].role

    @property
    def echoed(self) -> str:
        """What `echo` puts before the answer: the text of the turn that is continued."""
        last = self.turns[-1]
        return last.text if self.echo and last.role == self.response_role else ""

    @property
    def limit(self) -> int | None:
        """The newer of the two names wins."""
        newer = self.max_completion_tokens
        return self.max_tokens if newer is None else newer

    @property
    def limit_name(self) -> str:
        return "max_tokens" if self.max_completion_tokens is None else "max_completion_tokens"

    def check_shared(self) -> None:
        super().check_shared()
        if not self.turns:
            raise RequestError("messages must hold at least one message.", "messages")
        if len(self.turns) > MAX_MESSAGES:
            raise RequestError(f"messages may hold at most {MAX_MESSAGES} messages.", "messages")
        if self.continue_final_message and self.add_generation_prompt:
            raise RequestError(
                "continue_final_message continues the last message and add_generation_prompt "
                "starts a new one; set at most one of them.",
                "continue_final_message",
            )
        self._check_limits()

    def _check_limits(self) -> None:
        top = self.top_logprobs
        if top is not None and not 0 <= top <= MAX_LOGPROBS:
            raise RequestError(
                f"top_logprobs must be between 0 and {MAX_LOGPROBS}, got {top}.", "top_logprobs"
            )
        if top and not self.logprobs:
            raise RequestError("top_logprobs needs logprobs to be true.", "top_logprobs")
        newer = self.max_completion_tokens
        if newer is not None and newer < 1:
            raise RequestError(
                f"max_completion_tokens must be at least 1, got {str(newer)[:40]}.",
                "max_completion_tokens",
            )


class TopLogprob(Struct):
    """One of the likeliest tokens at a position."""

    token: str
    logprob: float
    bytes: list[int]


class TokenLogprob(Struct):
    """The chosen token at a position, and the likeliest there."""

    token: str
    logprob: float
    bytes: list[int]
    top_logprobs: list[TopLogprob]


class ChatLogprobs(Struct):
    """One entry a token."""

    content: list[TokenLogprob]


class AnswerMessage(Struct):
    """The assistant's turn."""

    role: str
    content: str
    refusal: None = None


class ChatChoice(Struct):
    """One answer."""

    index: int
    message: AnswerMessage
    logprobs: ChatLogprobs | None = None
    finish_reason: FinishReason | None = None
    stop_reason: int | str | UnsetType | None = UNSET
    token_ids: list[int] | UnsetType = UNSET


class ChatCompletion(Struct, kw_only=True):
    """The whole response."""

    id: str
    object: Literal["chat.completion"] = "chat.completion"
    created: int
    model: str
    choices: list[ChatChoice]
    usage: Usage
    prompt_token_ids: list[int] | UnsetType = UNSET
    prompt_logprobs: list[Any] | UnsetType | None = UNSET


class Delta(Struct):
    """A piece of the assistant's turn."""

    role: str | UnsetType = UNSET
    content: str | UnsetType = UNSET


class ChunkChoice(Struct):
    """A piece of one answer."""

    index: int
    delta: Delta
    logprobs: ChatLogprobs | None = None
    finish_reason: FinishReason | None = None
    stop_reason: int | str | UnsetType | None = UNSET
    token_ids: list[int] | UnsetType = UNSET


class ChatChunk(Struct, kw_only=True):
    """One event of a streamed response."""

    id: str
    object: Literal["chat.completion.chunk"] = "chat.completion.chunk"
    created: int
    model: str
    choices: list[ChunkChoice]
    usage: Usage | UnsetType = UNSET
    prompt_token_ids: list[int] | UnsetType = UNSET
