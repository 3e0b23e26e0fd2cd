"""Parsing a reply in pieces of any size, and saying shortly what came out."""

import json
from collections.abc import Iterable
from typing import Any

from serve.reply.events import Arguments, CallStart, Content, Event, Reasoning, merged
from serve.reply.registry import thinking_format, tool_format
from serve.reply.reply import ReplyParser

WEATHER = {
    "type": "object",
    "properties": {
        "city": {"type": "string", "description": "Where"},
        "days": {"type": "integer", "description": "How many"},
    },
    "required": ["city"],
}
TOOLS = {"get_weather": WEATHER, "get_time": {"type": "object", "properties": {}}}


def parse(
    pieces: Iterable[str], *, tools: str = "none", thinking: str = "none", prompt: str = ""
) -> list[Event]:
    """The events of a reply that comes in `pieces`, to a parser of these names."""
    calls, reasoning = tool_format(tools, ()), thinking_format(thinking, ())
    parser = ReplyParser(
        prompt=prompt,
        reasoning=reasoning.reasoning if reasoning else None,
        calls=calls.grammar if calls else None,
        tools=TOOLS,
        make_id=lambda name, index: f"id{index}",
    )
    events = [event for piece in pieces for event in parser.feed(piece)]
    return merged(events + parser.finish())


def summary(events: list[Event]) -> dict[str, Any]:
    """{"content": ..., "reasoning": ..., "calls": [(name, arguments as JSON values)]}."""
    calls: list[list[str]] = []
    for event in events:
        if isinstance(event, CallStart):
            calls.append([event.name, ""])
        elif isinstance(event, Arguments):
            calls[event.index][1] += event.text
    return {
        "content": "".join(e.text for e in events if isinstance(e, Content)),
        "reasoning": "".join(e.text for e in events if isinstance(e, Reasoning)),
        "calls": [(name, json.loads(arguments)) for name, arguments in calls],
    }
