"""What `/v1/chat/completions` takes and gives: OpenAI's fields, and vLLM's extensions.

A message field annotated `None` is one that clients send back as null; any other value asks for
something that is not served here and is refused by name.
"""

from typing import Any, ClassVar, Literal

from msgspec import UNSET, Struct, UnsetType

from engine.errors import RequestError
from engine.messages import FinishReason
from engine.sampling.params import MAX_LOGPROBS
from serve.generation.provenance import SglExt, WeightVersionSpan
from serve.generation.timing import TimingMetrics
from serve.native.meta_info import MetaInfo
from serve.native.sampling_mask import LogprobsMode, check_mask
from serve.native.sessions import SessionParams
from serve.protocol.decoding import GenerationRequest, Usage
from serve.protocol.tools import (
    AllowedToolChoice,
    AnyToolChoice,
    CalledFunction,
    CalledTool,
    FunctionCall,
    FunctionCallDelta,
    FunctionChoice,
    FunctionDefinition,
    Tool,
    ToolCall,
    ToolCallDelta,
    ToolChoice,
    check_tools,
)

MAX_MESSAGES = 10_000

ChatFinishReason = FinishReason | Literal["tool_calls", "function_call"]
_TEMPLATE_FIELDS = (
    "chat_template", "chat_template_kwargs", "documents", "reasoning_effort",
    "reasoning", "thinking", "continue_final_message", "echo", "add_special_tokens",
)  # fmt: skip


class TextPart(Struct, frozen=True, forbid_unknown_fields=True):
    """The only kind of content part that is served."""

    type: Literal["text"]
    text: str


def joined(content: str | list[TextPart]) -> str:
    """Parts of a text are its lines."""
    return content if isinstance(content, str) else "\n".join(part.text for part in content)


class Prediction(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What the answer may be, for the most part: OpenAI's predicted outputs."""

    type: Literal["content"]
    content: str | list[TextPart]

    @property
    def text(self) -> str:
        return joined(self.content)


class ReasoningWish(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """SGLang's `reasoning`: how much to think, or whether to, under either name."""

    effort: str | None = None
    enabled: bool | None = None
    enable: bool | None = None


class ThinkingWish(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """SGLang's `thinking`: whether to; "adaptive" leaves it to the model."""

    type: Literal["enabled", "disabled", "adaptive"]


class ChatMessage(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One turn."""

    role: Literal["system", "developer", "user", "assistant", "tool", "function"]
    content: str | list[TextPart] | None = None
    name: str | None = None
    annotations: list[Any] | None = None  # of an assistant's earlier turn; carries no text
    audio: None = None
    function_call: CalledFunction | None = None  # from before there were tools
    reasoning: str | None = None
    reasoning_content: str | None = None
    refusal: None = None
    tool_call_id: str | None = None
    tool_calls: list[CalledTool] | None = None

    @property
    def text(self) -> str:
        return joined(self.content or "")

    def check(self) -> None:
        """Raise RequestError for a turn that its role cannot take."""
        if self.tool_calls and self.role != "assistant":
            raise RequestError("Only a message of the assistant has tool_calls.", "messages")
        if self.tool_call_id is not None and self.role != "tool":
            raise RequestError("Only a message of role tool has a tool_call_id.", "messages")
        if self.function_call is not None and (self.role != "assistant" or self.tool_calls):
            raise RequestError(
                "Only a message of the assistant has a function_call, and then no tool_calls.",
                "messages",
            )
        if self.role == "function" and not self.name:
            raise RequestError("A message of role function has the function's name.", "messages")

    def for_template(self) -> dict[str, Any]:
        """The message as chat templates expect it."""
        message: dict[str, Any] = {"role": self.role, "content": self.text}
        if self.name is not None:
            message["name"] = self.name
        if self.tool_call_id is not None:
            message["tool_call_id"] = self.tool_call_id
        if self.tool_calls:
            message["tool_calls"] = [_called(call) for call in self.tool_calls]
            message["content"] = self.text or None
        if thought := self.reasoning or self.reasoning_content:
            names = ("reasoning", "reasoning_content") + (() if self.text else ("thinking",))
            message |= dict.fromkeys(names, thought)
        return message


class ChatRequest(GenerationRequest, frozen=True, kw_only=True):
    """`logprobs` true asks for the chosen token, `top_logprobs` k for the k likeliest as well."""

    needs: ClassVar[tuple[tuple[str, ...], ...]] = (("messages",), ("input_ids",))
    messages: list[ChatMessage] | None = None
    input_ids: list[int] | None = None  # SGLang's: what a client made of the messages itself
    max_completion_tokens: int | None = None
    logprobs: bool | None = None
    top_logprobs: int | None = None
    add_generation_prompt: bool | None = None
    continue_final_message: bool | None = None
    chat_template: str | None = None  # instead of the model's, where the server trusts requests
    chat_template_kwargs: dict[str, Any] | None = None
    documents: list[dict[str, Any]] | None = None  # for templates that show some
    tools: list[Tool] | None = None
    tool_choice: AnyToolChoice | None = None
    parallel_tool_calls: bool | None = None
    functions: list[FunctionDefinition] | None = None  # from before there were tools
    function_call: FunctionChoice | None = None
    reasoning_effort: str | None = None
    reasoning: ReasoningWish | None = None
    thinking: ThinkingWish | None = None
    include_reasoning: bool | None = None
    separate_reasoning: bool | None = None  # false leaves it in the content
    stream_reasoning: bool | None = None  # false shows it once it is whole
    # SGLang's: in each choice; not of streams
    return_prompt_token_ids: bool | None = None
    return_meta_info: bool | None = None
    return_flat_raw_output_top_logprobs: bool | None = None  # the likeliest only there, as arrays
    return_flat_raw_top_logprobs_b64: bool | None = None  # yes, if they are
    return_sampling_mask: bool | None = None  # there, too: what tokens were drawn among
    sampling_logprobs_mode: LogprobsMode | None = None  # None: "selected"
    return_input_ids_in_sglext: bool | None = None  # in `sglext`; of streams at the end
    return_output_ids_in_sglext: bool | None = None
    prediction: Prediction | None = None
    session_params: SessionParams | None = None  # SGLang's: messages go on where others ended

    @property
    def wants_logprobs(self) -> bool:
        return bool(self.logprobs)

    @property
    def choice(self) -> ToolChoice:
        """Whether tools may, must or must not be called."""
        if not self.tools:
            return "none"
        if isinstance(self.tool_choice, AllowedToolChoice):
            return self.tool_choice.allowed_tools.mode
        return self.tool_choice or "auto"

    def _check_thinking(self) -> None:
        """What is said twice may not be the same."""
        wish = self.reasoning or ReasoningWish()
        if self.reasoning_effort is not None and wish.effort is not None:
            raise RequestError(
                "reasoning.effort and reasoning_effort are the same; send one.", "reasoning"
            )
        switches = (wish.enabled, wish.enable, self.thinking)
        if sum(each is not None for each in switches) > 1:
            raise RequestError(
                "reasoning.enabled and thinking are the same; send one.", "reasoning"
            )

    @property
    def effort(self) -> str | None:
        """How much to think, by either name."""
        return self.reasoning_effort or (self.reasoning.effort if self.reasoning else None)

    @property
    def thinks(self) -> bool | None:
        """Whether to think; None leaves it to the model."""
        if self.thinking is not None and self.thinking.type != "adaptive":
            return self.thinking.type == "enabled"
        wish = self.reasoning
        if wish is None:
            return None
        return wish.enable if wish.enabled is None else wish.enabled

    @property
    def turns(self) -> list[ChatMessage]:
        return self.messages or []

    @property
    def generation_prompt(self) -> bool:
        """Whether the template opens the assistant's turn: yes, unless a turn is continued."""
        wanted = self.add_generation_prompt
        return not self.continue_final_message if wanted is None else wanted

    def role_of_answer(self, usual: str) -> str:
        """The `usual` one, or that of the turn that is continued."""
        return usual if self.generation_prompt else self.turns[-1].role

    def echoed(self, role: str) -> str:
        """What `echo` puts before an answer of that role: the turn that is continued."""
        if not self.echo or self.turns[-1].role != role:
            return ""
        return self.turns[-1].text

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
        if self.input_ids is not None:
            self._check_ids_alone()
        elif not self.turns:
            raise RequestError("messages must hold at least one message.", "messages")
        if len(self.turns) > MAX_MESSAGES:
            raise RequestError(f"messages may hold at most {MAX_MESSAGES} messages.", "messages")
        if self.continue_final_message and self.add_generation_prompt:
            raise RequestError(
                "continue_final_message continues the last message and add_generation_prompt "
                "starts a new one; set at most one of them.",
                "continue_final_message",
            )
        for message in self.turns:
            message.check()
        check_tools(self.tools, self.tool_choice)
        self._check_thinking()
        if self.functions and self.tools:
            raise RequestError("functions and tools exclude each other.", "functions")
        if self.functions and self.tool_choice not in (None, "auto"):
            raise RequestError("tool_choice is of tools; send function_call.", "tool_choice")
        if self.return_prompt_token_ids and self.stream:
            raise RequestError(
                "return_prompt_token_ids cannot be streamed; send return_token_ids.",
                "return_prompt_token_ids",
            )
        if self.return_meta_info and (self.stream or self.use_beam_search):
            raise RequestError(
                "return_meta_info cannot be streamed, nor used with use_beam_search.",
                "return_meta_info",
            )
        if self.session_params is not None and (self.n or 1) > 1:
            raise RequestError("session_params is of one answer; leave out n.", "session_params")
        self._check_limits()

    def _check_ids_alone(self) -> None:
        """What shapes the prompt has nothing to do where the prompt is given."""
        for name in _TEMPLATE_FIELDS:
            if getattr(self, name):
                raise RequestError(f"{name} has no effect on input_ids; leave it out.", name)
        if self.add_generation_prompt is False:
            raise RequestError(
                "add_generation_prompt has no effect on input_ids; leave it out.",
                "add_generation_prompt",
            )

    def _check_limits(self) -> None:
        top = self.top_logprobs
        if top is not None and not 0 <= top <= MAX_LOGPROBS:
            raise RequestError(
                f"top_logprobs must be between 0 and {MAX_LOGPROBS}, got {top}.", "top_logprobs"
            )
        if top and not self.logprobs:
            raise RequestError("top_logprobs needs logprobs to be true.", "top_logprobs")
        self.check_named(top, "top_logprobs")
        name = "return_flat_raw_output_top_logprobs"
        if self.return_flat_raw_output_top_logprobs and not (top and self.return_meta_info):
            raise RequestError(f"{name} needs return_meta_info and top_logprobs.", name)
        check_mask(self.return_sampling_mask, self.sampling_logprobs_mode)
        if self.return_sampling_mask and not self.return_meta_info:
            raise RequestError(
                "return_sampling_mask needs return_meta_info.", "return_sampling_mask"
            )
        newer = self.max_completion_tokens
        if newer is not None and newer < 1:
            raise RequestError(
                f"max_completion_tokens must be at least 1, got {str(newer)[:40]}.",
                "max_completion_tokens",
            )


def _called(call: CalledTool) -> dict[str, Any]:
    function = {"name": call.function.name, "arguments": call.function.arguments}
    return {"id": call.id, "type": call.type, "function": function}


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
    content: str | None
    refusal: None = None
    reasoning: str | UnsetType = UNSET
    reasoning_content: str | UnsetType = UNSET  # the same, as SGLang and DeepSeek call it
    tool_calls: list[ToolCall] | UnsetType = UNSET
    function_call: FunctionCall | UnsetType = UNSET  # of a request with functions


class ChatChoice(Struct):
    """One answer."""

    index: int
    message: AnswerMessage
    logprobs: ChatLogprobs | None = None
    finish_reason: ChatFinishReason | None = None
    stop_reason: int | str | UnsetType | None = UNSET
    matched_stop: int | str | UnsetType | None = UNSET  # SGLang's name; the end of text, too
    token_ids: list[int] | UnsetType = UNSET
    prompt_token_ids: list[int] | UnsetType = UNSET
    hidden_states: list[float] | UnsetType = UNSET
    routed_experts: str | UnsetType = UNSET  # `serve.generation.routed_experts`
    weight_versions: list[WeightVersionSpan] | UnsetType = UNSET
    meta_info: MetaInfo | UnsetType = UNSET  # as `/generate` has it


class ChatCompletion(Struct, kw_only=True):
    """The whole response."""

    id: str
    object: Literal["chat.completion"] = "chat.completion"
    created: int
    model: str
    choices: list[ChatChoice]
    usage: Usage
    system_fingerprint: str
    prompt_token_ids: list[int] | UnsetType = UNSET
    prompt_text: str | UnsetType | None = UNSET  # as the chat template wrote it
    metrics: TimingMetrics | UnsetType = UNSET
    prompt_logprobs: list[Any] | UnsetType | None = UNSET
    sglext: SglExt | UnsetType = UNSET


class Delta(Struct):
    """A piece of the assistant's turn."""

    role: str | UnsetType = UNSET
    content: str | UnsetType = UNSET
    reasoning: str | UnsetType = UNSET
    reasoning_content: str | UnsetType = UNSET
    tool_calls: list[ToolCallDelta] | UnsetType = UNSET
    function_call: FunctionCallDelta | UnsetType = UNSET


class ChunkChoice(Struct):
    """A piece of one answer."""

    index: int
    delta: Delta
    logprobs: ChatLogprobs | None = None
    finish_reason: ChatFinishReason | None = None
    stop_reason: int | str | UnsetType | None = UNSET
    matched_stop: int | str | UnsetType | None = UNSET  # SGLang's name; the end of text, too
    token_ids: list[int] | UnsetType = UNSET
    weight_versions: list[WeightVersionSpan] | UnsetType = UNSET


class ChatChunk(Struct, kw_only=True):
    """One event of a streamed response."""

    id: str
    object: Literal["chat.completion.chunk"] = "chat.completion.chunk"
    created: int
    model: str
    choices: list[ChunkChoice]
    system_fingerprint: str
    usage: Usage | UnsetType = UNSET
    sglext: SglExt | UnsetType = UNSET
    prompt_token_ids: list[int] | UnsetType = UNSET
    prompt_text: str | UnsetType | None = UNSET
    metrics: TimingMetrics | UnsetType = UNSET
