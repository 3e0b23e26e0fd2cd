"""Requests of the Responses API as chat requests."""

from collections.abc import Iterable, Sequence
from typing import Any

import msgspec

from engine.errors import RequestError
from engine.misfit import misfit
from serve.protocol.chat import MAX_MESSAGES, ChatMessage, ChatRequest
from serve.protocol.invalid import invalid
from serve.protocol.response_format import ResponseFormat
from serve.protocol.tools import (
    AllowedTool,
    AllowedToolChoice,
    AllowedTools,
    AnyToolChoice,
    CalledFunction,
    CalledTool,
    FunctionDefinition,
    FunctionName,
    NamedToolChoice,
    Tool,
)
from serve.responses.protocol import (
    AllowedFunctions,
    AnswerPart,
    FunctionCallItem,
    FunctionOutputItem,
    InputItem,
    MessageItem,
    ReasoningItem,
    ResponsesRequest,
    TextPart,
)

_FORMAT, _SCHEMA = "text.format", "text.format.schema"
_SAME = (  # as in the chat API
    "temperature", "top_p", "top_k", "min_p", "presence_penalty", "frequency_penalty",
    "repetition_penalty", "logit_bias", "stop", "stop_token_ids", "include_stop_str_in_output",
    "ignore_eos", "skip_special_tokens", "structured_outputs", "seed", "vllm_xargs",
    "thinking_token_budget", "chat_template_kwargs", "priority", "cache_salt", "watermarking",
    "include_reasoning",
)  # fmt: skip
_SCHEMA_FIELDS = ("name", "schema", "description", "strict")


def new_items(request: ResponsesRequest) -> list[InputItem]:
    """The items that the request brings; raises RequestError naming the one that is wrong."""
    if request.input is None:
        raise RequestError("input must be a text or a list of items.", "input")
    if isinstance(request.input, str):
        return [MessageItem(role="user", content=request.input)]
    if len(request.input) > MAX_MESSAGES:
        raise RequestError(f"input may hold at most {MAX_MESSAGES} items.", "input")
    return [_item(i, raw) for i, raw in enumerate(request.input)]


def turns_of(items: Iterable[InputItem]) -> list[ChatMessage]:
    """Items as turns; neighbouring items of the assistant's are one turn."""
    turns: list[ChatMessage] = []
    mine: list[InputItem] = []
    for item in items:
        if isinstance(item, FunctionOutputItem) or (
            isinstance(item, MessageItem) and item.role != "assistant"
        ):
            turns += _assistant(mine)
            mine = []
            turns.append(_other(item))
        else:
            mine.append(item)
    return turns + _assistant(mine)


def chat_request(request: ResponsesRequest, turns: list[ChatMessage]) -> ChatRequest:
    """`turns` and the options of `request`; raises RequestError as the chat API does."""
    first = [ChatMessage(role="system", content=request.instructions)]
    chat = ChatRequest(
        model=request.model,
        messages=(first if request.instructions else []) + turns,
        tools=[_tool(tool) for tool in request.tools] if request.tools else None,
        tool_choice=_choice(request),
        parallel_tool_calls=request.parallel_tool_calls,
        reasoning_effort=request.reasoning.effort if request.reasoning else None,
        max_completion_tokens=request.max_output_tokens,
        stream=request.stream,
        logprobs=request.wants_logprobs or None,
        top_logprobs=request.top_logprobs if request.wants_logprobs else None,
        **{name: getattr(request, name) for name in _SAME},
        **_format(request),
    )
    chat.check_shared()
    return chat


def _format(request: ResponsesRequest) -> dict[str, Any]:
    """{"type": "json_schema", "name": ..., "schema": ...} is one level deeper in the chat API."""
    wanted = dict(request.text.format or {}) if request.text else {}
    if not wanted:
        return {}
    if wanted.get("type") == "json_schema":
        if wanted.get("schema") is None:
            raise RequestError(f"{_SCHEMA} is needed for type json_schema.", _SCHEMA)
        schema = {name: wanted.pop(name) for name in _SCHEMA_FIELDS if name in wanted}
        wanted["json_schema"] = schema
    try:
        return {"response_format": msgspec.convert(wanted, ResponseFormat)}
    except msgspec.ValidationError as error:
        place, what = misfit(error, ResponseFormat, _FORMAT)
        name = place.replace(".json_schema", "", 1)
        raise RequestError(f"{name} {what}.", name) from None


def format_field(request: ResponsesRequest) -> str:
    """The field at fault where what the answer is to be cannot be."""
    wanted = request.text.format if request.text else None
    return _SCHEMA if wanted and wanted.get("type") == "json_schema" else _FORMAT


def _item(index: int, raw: dict[str, Any]) -> InputItem:
    try:
        item: InputItem = msgspec.convert({"type": "message", **raw}, InputItem)
        return item
    except msgspec.ValidationError as error:
        raise invalid(error, InputItem, f"input[{index}]") from None


def _other(item: MessageItem | FunctionOutputItem) -> ChatMessage:
    if isinstance(item, MessageItem):
        return ChatMessage(role=item.role, content=_text(item.content))
    return ChatMessage(
        role="tool", tool_call_id=item.call_id, name=item.name, content=_text(item.output)
    )


def _assistant(items: list[InputItem]) -> list[ChatMessage]:
    """One turn of reasoning, text and calls; none of no items."""
    if not items:
        return []
    texts = [_text(item.content) for item in items if isinstance(item, MessageItem)]
    thoughts = [_thought(item) for item in items if isinstance(item, ReasoningItem)]
    calls = [
        CalledTool(CalledFunction(item.name, item.arguments), id=item.call_id)
        for item in items
        if isinstance(item, FunctionCallItem)
    ]
    turn = ChatMessage(
        role="assistant",
        content="\n".join(texts),
        reasoning="\n".join(filter(None, thoughts)) or None,
        tool_calls=calls or None,
    )
    return [turn]


def _thought(item: ReasoningItem) -> str:
    return "\n".join(part.text for part in item.content or item.summary)


def _text(content: str | Sequence[TextPart | AnswerPart]) -> str:
    return content if isinstance(content, str) else "\n".join(part.text for part in content)


def _tool(tool: Any) -> Tool:
    return Tool(
        "function", FunctionDefinition(tool.name, tool.description, tool.parameters, tool.strict)
    )


def _choice(request: ResponsesRequest) -> AnyToolChoice | None:
    choice = request.tool_choice
    if choice is None or isinstance(choice, str):
        return choice
    if isinstance(choice, AllowedFunctions):
        tools = [AllowedTool("function", FunctionName(tool.name)) for tool in choice.tools]
        return AllowedToolChoice(AllowedTools(choice.mode, tools))
    return NamedToolChoice(FunctionName(choice.name))
