"""Anthropic's conversations as chat requests."""

import json
from collections.abc import Iterator
from typing import Any

from serve.messages.protocol import (
    AnthropicTool,
    AnthropicToolChoice,
    Block,
    ChooseAny,
    ChooseNone,
    ChooseTool,
    CountRequest,
    Message,
    MessagesRequest,
    OutputFormat,
    TextBlock,
    Thinking,
    ThinkingBlock,
    ToolResultBlock,
    ToolUseBlock,
)
from serve.protocol.chat import ChatMessage, ChatRequest
from serve.protocol.response_format import JsonSchemaFormat, ResponseFormat
from serve.protocol.tools import (
    CalledFunction,
    CalledTool,
    FunctionDefinition,
    FunctionName,
    NamedToolChoice,
    Tool,
    ToolChoice,
)


def chat_request(request: CountRequest, effort: str | None) -> ChatRequest:
    """The same conversation and options; `effort` is how `thinking` is told to the template.

    Raises RequestError for what the chat API would refuse, too.
    """
    turns = [*_system(request), *(turn for m in request.messages for turn in _turns(m))]
    continued = bool(turns) and turns[-1].role == "assistant"
    choice = request.tool_choice
    chat = ChatRequest(
        model=request.model,
        messages=turns,
        tools=[_tool(tool) for tool in request.tools] if request.tools else None,
        tool_choice=_choice(choice),
        parallel_tool_calls=not getattr(choice, "disable_parallel_tool_use", None),
        continue_final_message=continued,
        reasoning_effort=effort,
        include_reasoning=_shows_thinking(request.thinking),
        chat_template_kwargs=request.chat_template_kwargs,
        response_format=_format(request.format),
        **(_options(request) if isinstance(request, MessagesRequest) else {}),
    )
    chat.check_shared()
    return chat


def _options(request: MessagesRequest) -> dict[str, Any]:
    return {
        "max_tokens": request.max_tokens,
        "stream": request.stream,
        "stop": request.stop_sequences,
        "temperature": request.temperature,
        "top_p": request.top_p,
        "top_k": request.top_k,
        "priority": request.priority,
        "cache_salt": request.cache_salt,
        "thinking_token_budget": _budget(request.thinking),
        "watermarking": request.watermarking,
        "vllm_xargs": request.vllm_xargs,
    }


def _format(wanted: OutputFormat | None) -> ResponseFormat | None:
    if wanted is None:
        return None
    return ResponseFormat("json_schema", JsonSchemaFormat("output", wanted.schema))


def _budget(thinking: Thinking | None) -> int | None:
    return None if thinking is None or thinking.type == "disabled" else thinking.budget_tokens


def _shows_thinking(thinking: Thinking | None) -> bool:
    return thinking is None or thinking.display != "omitted"


def _system(request: CountRequest) -> list[ChatMessage]:
    if not request.system:
        return []
    return [ChatMessage(role="system", content=_text(request.system))]


def _turns(message: Message) -> Iterator[ChatMessage]:
    """A turn of Anthropic's holds what are several messages here: each result is one."""
    if isinstance(message.content, str):
        yield ChatMessage(role=message.role, content=message.content)
        return
    rest: list[Block] = []
    for block in message.content:
        if isinstance(block, ToolResultBlock):
            yield ChatMessage(role="tool", tool_call_id=block.tool_use_id, content=_result(block))
        else:
            rest.append(block)
    if rest or not message.content:
        yield _turn(message.role, rest)


def _result(block: ToolResultBlock) -> str:
    """What a call gave; chat templates know no errors, so the text says that it is one."""
    text = _text(block.content or "")
    if not block.is_error or text[:5].lower() == "error":
        return text
    return f"Error: {text}" if text else "Error"


def _turn(role: Any, blocks: list[Block]) -> ChatMessage:
    calls = [_call(block) for block in blocks if isinstance(block, ToolUseBlock)]
    thoughts = [block.thinking for block in blocks if isinstance(block, ThinkingBlock)]
    return ChatMessage(
        role=role,
        content=_text([block for block in blocks if isinstance(block, TextBlock)]),
        tool_calls=calls or None,
        reasoning="\n".join(thoughts) or None,
    )


def _call(block: ToolUseBlock) -> CalledTool:
    arguments = json.dumps(block.input, ensure_ascii=False)
    return CalledTool(CalledFunction(block.name, arguments), id=block.id)


def _text(content: str | list[TextBlock]) -> str:
    return content if isinstance(content, str) else "\n".join(block.text for block in content)


def _tool(tool: AnthropicTool) -> Tool:
    function = FunctionDefinition(tool.name, tool.description, tool.input_schema, tool.strict)
    return Tool("function", function)


def _choice(choice: AnthropicToolChoice | None) -> ToolChoice | None:
    match choice:
        case ChooseTool(name=name):
            return NamedToolChoice(FunctionName(name))
        case ChooseAny():
            return "required"
        case ChooseNone():
            return "none"
        case _:
            return None
