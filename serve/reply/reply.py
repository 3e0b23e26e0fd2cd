"""One reply, parsed while it is written.

feed ──▶ reasoning ──(answer)──▶ tool calls ──▶ events
"""

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

from serve.reply.events import Content, Event, MakeId, Output, merged, openai_id
from serve.reply.reader import Reader, Reading
from serve.reply.reasoning import Thinking

Grammar = Callable[[Reader, Output, Mapping[str, Any]], Reading[None]]
"""Reads a reply to its end; the mapping has the parameters of each tool, as JSON schemas."""


class ReplyParser:
    """Takes a reply apart. Whatever the pieces it comes in, the same events come out, joined."""

    def __init__(
        self,
        *,
        prompt: str,
        reasoning: Thinking | None = None,
        calls: Grammar | None = None,
        tools: Mapping[str, Any] | None = None,
        make_id: MakeId = openai_id,
    ) -> None:
        """`prompt`: its end says whether the reply begins within reasoning."""
        stages: list[Grammar] = []
        if reasoning is not None:
            stages.append(partial(reasoning.read, is_open=reasoning.is_open(prompt)))
        if calls is not None:
            stages.append(calls)
        self._stages = [_Stage(stage, tools or {}, make_id) for stage in stages]

    def feed(self, text: str) -> list[Event]:
        """What a further piece of the reply adds."""
        return self._pass_on([Content(text)] if text else [], end=False)

    def finish(self) -> list[Event]:
        """What the end of the reply adds."""
        return self._pass_on([], end=True)

    def _pass_on(self, events: list[Event], *, end: bool) -> list[Event]:
        for stage in self._stages:
            events = stage.take(events, end=end)
        return events


class _Stage:
    """A grammar at work: what it is given as answer it reads, the rest passes by."""

    def __init__(self, grammar: Grammar, tools: Mapping[str, Any], make_id: MakeId) -> None:
        self._reader = Reader()
        self._out = Output(make_id)
        self._reading = grammar(self._reader, self._out, tools)

    def take(self, events: list[Event], *, end: bool) -> list[Event]:
        found: list[Event] = []
        for event in events:
            if isinstance(event, Content):
                self._reader.feed(event.text)
                next(self._reading, None)
                found += self._out.take()
            else:
                found.append(event)
        if end:
            self._reader.end()
            next(self._reading, None)
            self._out.end()
            found += self._out.take()
        return merged(found)
