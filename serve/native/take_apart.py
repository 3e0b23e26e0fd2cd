"""Texts of a model taken apart after the fact, as SGLang does for programs that use `/generate`.

    POST /parse_function_call   {text, tools, tool_call_parser}   the answer, and the calls in it
    POST /separate_reasoning    {text, reasoning_parser}          the reasoning, and the rest

A parser that is not named is the served model's own.
"""

import asyncio
from collections.abc import Callable, Iterable, Mapping

from msgspec import Struct
from starlette.types import Send

from engine.errors import ConfigError, RequestError
from serve.http.endpoint import GenerationRoute, send_json
from serve.protocol.decoding import CheckedRequest
from serve.protocol.tools import Tool, check_tools
from serve.reply.events import Arguments, CallStart, Content, Event, Reasoning
from serve.reply.registry import AUTO, NONE, Format, thinking_format, tool_format
from serve.reply.reply import ReplyParser

_TOOLS, _THINKING = "tool_call_parser", "reasoning_parser"


class ParseCallsRequest(CheckedRequest, frozen=True, kw_only=True):
    """A text in which calls of tools are to be found."""

    needs = (("text",),)
    text: str | None = None
    tools: list[Tool] | None = None
    tool_call_parser: str | None = None

    def check_shared(self) -> None:
        _check_text(self.text)
        check_tools(self.tools or None, None)


class SeparateReasoningRequest(CheckedRequest, frozen=True, kw_only=True):
    """A text that may begin with reasoning."""

    needs = (("text",),)
    text: str | None = None
    reasoning_parser: str | None = None

    def check_shared(self) -> None:
        _check_text(self.text)


class FoundCall(Struct):
    """A call; `tool_index` is the tool's place in the request, -1 for one that is not there."""

    tool_index: int
    name: str
    parameters: str  # JSON text as the model wrote it


class ParsedCalls(Struct):
    """The calls, and the text without them."""

    normal_text: str
    calls: list[FoundCall]


class SeparatedReasoning(Struct):
    """The reasoning, and the text without it."""

    reasoning_text: str
    text: str


class ParseCallsRoute(GenerationRoute[ParseCallsRequest]):
    """Asks nobody but the parser."""

    kind = ParseCallsRequest
    writes = False
    computes = False

    async def answer(self, request: ParseCallsRequest, request_id: str, send: Send) -> None:
        found = _format(tool_format, request.tool_call_parser, self.service.model.tools, _TOOLS)
        functions = [tool.function for tool in request.tools or ()]
        parameters = {each.name: each.parameters or {} for each in functions}
        parser = ReplyParser(prompt="", calls=found.grammar, tools=parameters)
        events = await asyncio.to_thread(_events, parser, request.text or "")
        places = {each.name: place for place, each in enumerate(functions)}
        await send_json(send, ParsedCalls(_answer(events), _calls(events, places)))


class SeparateReasoningRoute(GenerationRoute[SeparateReasoningRequest]):
    """Asks nobody but the parser."""

    kind = SeparateReasoningRequest
    writes = False
    computes = False

    async def answer(self, request: SeparateReasoningRequest, request_id: str, send: Send) -> None:
        own = self.service.model.thinking
        found = _format(thinking_format, request.reasoning_parser, own, _THINKING)
        parser = ReplyParser(prompt="", reasoning=found.reasoning)
        events = await asyncio.to_thread(_events, parser, request.text or "")
        thoughts = "".join(each.text for each in events if isinstance(each, Reasoning))
        await send_json(send, SeparatedReasoning(thoughts, _answer(events)))


def _check_text(text: str | None) -> None:
    if text is None:
        raise RequestError("text is missing.", "text")


def _format(
    find: Callable[[str, Iterable[str]], Format | None],
    name: str | None,
    own: Format | None,
    field: str,
) -> Format:
    """That of the name, or the model's own; raises RequestError where there is none."""
    try:
        found = own if name in (None, AUTO, NONE) else find(name, ())
    except ConfigError as error:
        raise RequestError(
            str(error).replace(f"--{field.replace('_', '-')}", field), field
        ) from None
    if found is None:
        raise RequestError(f"It is not known how this model writes that; send {field}.", field)
    return found


def _events(parser: ReplyParser, text: str) -> list[Event]:
    return [*parser.feed(text), *parser.finish()]


def _answer(events: list[Event]) -> str:
    return "".join(each.text for each in events if isinstance(each, Content))


def _calls(events: list[Event], places: Mapping[str, int]) -> list[FoundCall]:
    calls: list[FoundCall] = []
    for event in events:
        if isinstance(event, CallStart):
            calls.append(FoundCall(places.get(event.name, -1), event.name, ""))
        elif isinstance(event, Arguments):
            calls[-1].parameters += event.text
    return calls
