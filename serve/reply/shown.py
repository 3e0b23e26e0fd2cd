"""A reply in the form of the chat API: messages whole, deltas while it is written."""

from collections.abc import Iterator

from msgspec import UNSET

from engine.outputs import OutputDelta
from serve.protocol.chat import AnswerMessage, ChatFinishReason, Delta
from serve.protocol.tools import FunctionCall, FunctionCallDelta, ToolCall, ToolCallDelta
from serve.reply.events import Arguments, CallStart, Content, Event, Reasoning, merged
from serve.reply.rules import ReplyRules


class Reply:
    """One choice of a response."""

    def __init__(self, rules: ReplyRules, prompt: str) -> None:
        self._rules = rules
        self._parser = None if rules.plain else rules.parser(prompt)
        self._calls = False
        self._held: list[Event] = []  # reasoning that is not whole yet

    def deltas(self, delta: OutputDelta) -> list[Delta]:
        """What the engine's delta adds."""
        if self._parser is None:
            return [Delta(content=delta.text)]
        return [_delta(event) for event in self.events(delta)]

    def message(self, delta: OutputDelta, role: str, before: str) -> AnswerMessage:
        """The whole turn; `before` is what it is to begin with."""
        if self._parser is None:
            return AnswerMessage(role, before + delta.text)
        events = list(self.events(delta))
        content = before + "".join(e.text for e in events if isinstance(e, Content))
        reasoning = "".join(e.text for e in events if isinstance(e, Reasoning)) or UNSET
        calls = _calls(events) or UNSET
        return AnswerMessage(
            role,
            content or (None if calls or reasoning else ""),
            reasoning=reasoning,
            reasoning_content=reasoning,
            tool_calls=calls,
        )

    def finish_reason(self, delta: OutputDelta) -> ChatFinishReason | None:
        """Calls are a reason of their own, except where the client named the tool."""
        calls = self._calls and not self._rules.named
        return "tool_calls" if calls and delta.finish_reason == "stop" else delta.finish_reason

    def events(self, delta: OutputDelta) -> Iterator[Event]:
        """What the engine's delta adds, of what the client wants to see."""
        if self._parser is None:
            if delta.text:
                yield Content(delta.text)
            return
        events = self._parser.feed(delta.text)
        if delta.finish_reason is not None:
            events += self._parser.finish()
        for event in events:
            if isinstance(event, CallStart | Arguments):
                self._calls = True
                if self._rules.one_call and event.index > 0:
                    continue
            if isinstance(event, Reasoning) and self._rules.hide_reasoning:
                continue
            if isinstance(event, Reasoning) and self._rules.hold_reasoning:
                self._held.append(event)
                continue
            yield from self._let_go()
            yield event
        if delta.finish_reason is not None:
            yield from self._let_go()
        if delta.finish_reason is not None and self._rules.tools:
            self._rules.on_end(self._calls)

    def _let_go(self) -> list[Event]:
        """The reasoning that was held, in one piece."""
        held, self._held = self._held, []
        return merged(held)


def _delta(event: Event) -> Delta:
    match event:
        case Content(text):
            return Delta(content=text)
        case Reasoning(text):
            return Delta(reasoning=text, reasoning_content=text)
        case CallStart(index, call_id, name):
            function = FunctionCallDelta(name=name, arguments="")
            return Delta(tool_calls=[ToolCallDelta(index, function, call_id, "function")])
        case Arguments(index, text):
            return Delta(tool_calls=[ToolCallDelta(index, FunctionCallDelta(arguments=text))])


def _calls(events: list[Event]) -> list[ToolCall]:
    calls: list[ToolCall] = []
    for event in events:
        if isinstance(event, CallStart):
            calls.append(ToolCall(event.id, FunctionCall(event.name, "")))
        elif isinstance(event, Arguments):
            calls[-1].function.arguments += event.text
    return calls
