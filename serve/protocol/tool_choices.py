"""Other ways to say which tools may be called, as `tools` and `tool_choice`.

    functions, function_call                    OpenAI's, from before there were tools
    tool_choice {"type": "allowed_tools", ...}  some of the tools; the model is told of no others

Turns that hold calls of functions, or what these gave, become turns with calls of tools, which are
what chat templates know. How answers differ is `serve.openai.function_view`'s.
"""

from collections.abc import Sequence

from msgspec.structs import replace

from engine.errors import RequestError
from serve.protocol.chat import ChatMessage, ChatRequest
from serve.protocol.tools import (
    AllowedToolChoice,
    CalledTool,
    FunctionName,
    NamedToolChoice,
    Tool,
    ToolChoice,
    check_tools,
)

FUNCTION_FIELDS = {"tools": "functions", "tool_choice": "function_call"}


def plain_tools(request: ChatRequest) -> ChatRequest:
    """The same request, its tools all offered and its choice plain; raises RequestError."""
    choice = request.tool_choice
    if isinstance(choice, AllowedToolChoice):
        allowed = [tool for tool in request.tools or () if tool.function.name in choice.names]
        return replace(request, tools=allowed, tool_choice=choice.allowed_tools.mode)
    if request.functions:
        return _of_functions(request)
    if isinstance(request.function_call, FunctionName):
        raise RequestError("function_call needs functions.", "function_call")
    return request


def _of_functions(request: ChatRequest) -> ChatRequest:
    tools = [Tool("function", function) for function in request.functions or ()]
    wanted = request.function_call
    choice: ToolChoice | None
    choice = NamedToolChoice(wanted) if isinstance(wanted, FunctionName) else wanted
    try:
        check_tools(tools, choice)
    except RequestError as error:
        param = FUNCTION_FIELDS[error.param or "tools"]
        sentence = str(error).replace("tool_choice", "function_call").replace("tool", "function")
        raise RequestError(sentence, param) from None
    return replace(request, tools=tools, tool_choice=choice, parallel_tool_calls=False)


def plain_turns(turns: Sequence[ChatMessage]) -> Sequence[ChatMessage]:
    """The same turns, with calls of tools only; each call of a function gets an id."""
    if not any(turn.function_call or turn.role == "function" for turn in turns):
        return turns
    plain, calls = [], 0
    for turn in turns:
        if turn.function_call is not None:
            calls += 1
            called = CalledTool(turn.function_call, id=_id(calls))
            turn = replace(turn, function_call=None, tool_calls=[called])
        elif turn.role == "function":
            turn = replace(turn, role="tool", tool_call_id=_id(calls))
        plain.append(turn)
    return plain


def _id(number: int) -> str:
    return f"call{number:05d}"  # nine letters and digits, as Mistral's templates demand
