"""Ollama's conversations as chat requests."""

from collections.abc import Iterator
from typing import Any

from engine.errors import RequestError
from serve.ollama.protocol import (
    OllamaChatRequest,
    OllamaFields,
    OllamaGenerateRequest,
    OllamaMessage,
    OllamaOptions,
)
from serve.protocol.chat import ChatMessage, ChatRequest
from serve.protocol.response_format import JsonSchemaFormat, ResponseFormat
from serve.protocol.tools import CalledFunction, CalledTool
from serve.service import Service

_LATEST = ":latest"
_SAME = (
    "temperature", "top_p", "top_k", "min_p", "seed", "stop", "presence_penalty",
    "frequency_penalty",
)  # fmt: skip


def chat_request(
    service: Service, request: OllamaChatRequest | OllamaGenerateRequest
) -> ChatRequest:
    """The same in the words of the chat API; raises RequestError."""
    if isinstance(request, OllamaChatRequest):
        turns, tools = list(_turns(request.messages or [])), request.tools or None
    else:
        turns, tools = list(_asked(request)), None
    options = request.options or OllamaOptions()
    limit, context = options.num_predict, service.client.info.max_model_len
    if options.num_ctx is not None and options.num_ctx > context:
        raise RequestError(
            f"num_ctx {str(options.num_ctx)[:40]} exceeds this model's context of {context}.",
            "num_ctx",
        )
    chat = ChatRequest(
        model=model_name(service, request.model),
        messages=turns,
        tools=tools,
        max_tokens=None if limit in (-1, -2) else limit,
        repetition_penalty=options.repeat_penalty,
        response_format=_format(request.format),
        cache_salt=request.cache_salt,
        reasoning_effort=_effort(service, request, with_tools=bool(tools)),
        include_reasoning=False if request.think is False else None,
        **{name: getattr(options, name) for name in _SAME},
    )
    chat.check_shared()
    return chat


def model_name(service: Service, name: str | None) -> str | None:
    """Without the tag that Ollama's clients add."""
    if name is None or name in service.model.names:
        return name
    return name.removesuffix(_LATEST)


def _asked(request: OllamaGenerateRequest) -> Iterator[ChatMessage]:
    if request.system:
        yield ChatMessage(role="system", content=request.system)
    yield ChatMessage(role="user", content=request.prompt)


def _turns(messages: list[OllamaMessage]) -> Iterator[ChatMessage]:
    """Results of calls have no ids in most clients: they come in the order of the calls."""
    calls, open_ids = 0, list[str]()
    for each in messages:
        called = []
        for call in each.tool_calls or ():
            calls += 1
            made = call.id or f"call{calls:05d}"
            function = CalledFunction(call.function.name, call.function.arguments)
            called.append(CalledTool(function, id=made))
            open_ids.append(made)
        own: dict[str, Any] = {}
        if each.role == "tool":
            first = open_ids.pop(0) if open_ids else None
            own = {"tool_call_id": each.tool_call_id or first, "name": each.tool_name}
        yield ChatMessage(
            role=each.role,
            content=each.content,
            reasoning=each.thinking,
            tool_calls=called or None,
            **own,
        )


def _format(wanted: str | dict[str, Any] | None) -> ResponseFormat | None:
    if not wanted:
        return None
    if isinstance(wanted, str):
        return ResponseFormat("json_object")
    return ResponseFormat("json_schema", JsonSchemaFormat("format", wanted))


def _effort(service: Service, request: OllamaFields, *, with_tools: bool) -> str | None:
    """`think` as the template takes it; raises RequestError where the model would do otherwise."""
    think = request.think
    if think is None:
        return None
    if service.model.has_effort(with_tools=with_tools):
        return think if isinstance(think, str) else ("high" if think else "none")
    if bool(think) and service.model.thinking is None:
        raise RequestError("This model does not think; leave out think.", "think")
    return None
