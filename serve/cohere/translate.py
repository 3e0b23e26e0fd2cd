"""Cohere's conversations as chat requests."""

import json
from typing import Any

from msgspec.structs import replace

from engine.errors import RequestError
from serve.cohere.protocol import (
    AssistantTurn,
    CohereChatRequest,
    CohereFormat,
    CohereFound,
    CohereText,
    CohereThought,
    SystemTurn,
    ToolTurn,
    Turn,
    UserTurn,
)
from serve.protocol.chat import ChatMessage, ChatRequest
from serve.protocol.response_format import JsonSchemaFormat, ResponseFormat
from serve.protocol.tools import Tool, ToolChoice
from serve.service import Service

_SAME = (
    "model", "stream", "max_tokens", "temperature", "seed", "frequency_penalty",
    "presence_penalty", "logprobs", "priority", "cache_salt", "extra_key",
    "watermarking",
)  # fmt: skip
_CHOICES: dict[str | None, ToolChoice] = {"REQUIRED": "required", "NONE": "none"}
_SAFETY = "safety_mode"


def chat_request(service: Service, request: CohereChatRequest) -> ChatRequest:
    """The same in the words of the chat API; raises RequestError."""
    thinking = request.thinking
    enabled = thinking is not None and thinking.type == "enabled"
    chat = ChatRequest(
        messages=[_turn(turn) for turn in request.messages or ()],
        tools=_tools(request),
        tool_choice=_CHOICES.get(request.tool_choice),
        documents=_documents(request),
        response_format=_format(request.response_format),
        stop=request.stop_sequences,
        top_p=request.p,
        top_k=request.k,
        reasoning_effort=_effort(service, request),
        thinking_token_budget=thinking.token_budget if thinking and enabled else None,
        chat_template_kwargs=_variables(service, request),
        **{name: getattr(request, name) for name in _SAME},
    )
    chat.check_shared()
    return chat


def _turn(turn: Turn) -> ChatMessage:
    match turn:
        case SystemTurn(content):
            return ChatMessage(role="system", content=content)
        case UserTurn(content):
            return ChatMessage(role="user", content=content)
        case ToolTurn(call, content):
            return ChatMessage(role="tool", tool_call_id=call, content=_found(content))
        case AssistantTurn():
            return _answer(turn)


def _answer(turn: AssistantTurn) -> ChatMessage:
    blocks = [CohereText(turn.content)] if isinstance(turn.content, str) else turn.content or ()
    thoughts = [block.thinking for block in blocks if isinstance(block, CohereThought)]
    return ChatMessage(
        role="assistant",
        content="\n".join(block.text for block in blocks if isinstance(block, CohereText)),
        reasoning="\n".join([*thoughts, *filter(None, [turn.tool_plan])]) or None,
        tool_calls=turn.tool_calls or None,
    )


def _found(content: str | list[CohereText | CohereFound]) -> str:
    """What a call gave: chat templates take a text, so documents are their JSON."""
    if isinstance(content, str):
        return content
    return "\n".join(
        block.text if isinstance(block, CohereText) else _written(block) for block in content
    )


def _written(block: CohereFound) -> str:
    found = block.document
    if isinstance(found.data, str) and found.id is None:
        return found.data
    return json.dumps(found.fields, ensure_ascii=False)


def _tools(request: CohereChatRequest) -> list[Tool] | None:
    if not request.tools or not request.strict_tools:
        return request.tools or None
    return [replace(tool, function=replace(tool.function, strict=True)) for tool in request.tools]


def _documents(request: CohereChatRequest) -> list[dict[str, Any]] | None:
    return [
        {"text": each} if isinstance(each, str) else each.fields
        for each in request.documents or ()
    ] or None  # fmt: skip


def _format(wanted: CohereFormat | None) -> ResponseFormat | None:
    if wanted is None or wanted.type == "text":
        return None
    if wanted.json_schema is None:
        return ResponseFormat("json_object")
    return ResponseFormat("json_schema", JsonSchemaFormat("answer", wanted.json_schema))


def _effort(service: Service, request: CohereChatRequest) -> str | None:
    """`thinking` as the template takes it; raises RequestError where it would do the contrary."""
    if request.thinking is None:
        return None
    enabled = request.thinking.type == "enabled"
    if service.model.has_effort(with_tools=bool(request.tools)):
        return "high" if enabled else "none"
    service.model.check_thinks(enabled)
    return None


def _variables(service: Service, request: CohereChatRequest) -> dict[str, Any] | None:
    """What the template is told besides; raises RequestError for a safety_mode that it does not
    read, unless no instruction is what is asked for."""
    mode, template = request.safety_mode, service.model.template
    if mode is None or template is None:
        return request.chat_template_kwargs
    if template.reads(_SAFETY, with_tools=bool(request.tools)):
        return {_SAFETY: mode, **(request.chat_template_kwargs or {})}
    if mode in ("OFF", "NONE"):
        return request.chat_template_kwargs
    raise RequestError("The chat template knows no safety_mode; leave it out.", _SAFETY)
