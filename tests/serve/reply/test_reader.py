"""Reading a text that grows: the pieces it comes in change nothing, and hostile texts cost little.

The count of characters that are looked at stands for time.
"""

import json
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from serve.reply.reader import Reader, collected
from serve.reply.registry import _all
from tests.serve.reply.replies import parse

TOOL_NAMES = sorted(_all()[0])
THINKING_NAMES = sorted(_all()[1])
FRAGMENTS = [
    "<tool_call>", "</tool_call>", "[TOOL_CALLS]", "[ARGS]", "<function=", "<parameter=", ">",
    "</parameter>", "</function>", '{"name": "get_weather", "arguments": ', '{"city": "R"}', "}",
    "<think>", "</think>", "[", "]", "get_weather(", "city=", "'", '"', "\\", ")", ",", ":", "\n",
    " ", "a", "é", "{", "<|tool_call>call:", '<|"|>', "<tool_call|>", "<arg_key>", "<arg_value>",
    "<|channel|>", "analysis", "<|message|>", "<|end|>", "to=functions.f", "<｜tool▁call▁begin｜>",
    "<｜tool▁sep｜>", "```json", "```", ">>>", "all\n", "functools", "null", "-1.5e3",
]  # fmt: skip
replies = st.lists(st.sampled_from(FRAGMENTS), max_size=25).map("".join)


@given(replies, st.sampled_from(TOOL_NAMES), st.sampled_from(THINKING_NAMES), st.data())
def test_pieces_do_not_matter(reply: str, tools: str, thinking: str, data: st.DataObject) -> None:
    cuts = sorted(data.draw(st.lists(st.integers(0, len(reply)), max_size=6)))
    edges = [0, *cuts, len(reply)]
    pieces = [reply[a:b] for a, b in pairwise(edges)]
    whole = parse([reply], tools=tools, thinking=thinking)
    assert parse(pieces, tools=tools, thinking=thinking) == whole


@given(st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
), st.integers(1, 5))  # fmt: skip
def test_a_json_value_ends_where_it_ends(value: Any, size: int) -> None:
    text = json.dumps(value, ensure_ascii=False) + ", rest"
    reader, found = Reader(), []
    reading = collected(reader.json_value)
    for i in range(0, len(text), size):
        reader.feed(text[i : i + size])
        try:
            next(reading)
        except StopIteration as stop:
            found.append(stop.value)
            break
    assert found == [(json.dumps(value, ensure_ascii=False), True)]


HOSTILE = {
    "open brackets": "[" * 20_000,
    "open objects": '{"a":' * 8_000,
    "half a mark": "<tool_cal" * 4_000,
    "marks": "<tool_call>" * 3_000,
    "quotes": '<tool_call>{"name": "' + '\\"' * 20_000,
    "blanks": "<tool_call>" + " \n" * 20_000,
    "parameters": "<function=f>" + "<parameter=a>" * 3_000,
    "python": "[f(a=" + "(" * 20_000,
    "names": "[TOOL_CALLS]" + "x" * 40_000,
    "dashes": "-" * 40_000,
}


@pytest.mark.parametrize("name", HOSTILE)
@pytest.mark.parametrize("tools", ["hermes", "llama3_json", "pythonic", "mistral", "qwen3_coder"])
def test_each_character_is_looked_at_a_few_times(
    monkeypatch: pytest.MonkeyPatch, name: str, tools: str
) -> None:
    copied = 0
    feed = Reader.feed

    def counted_feed(self: Reader, text: str) -> None:
        nonlocal copied
        feed(self, text)
        copied += len(self._text)

    monkeypatch.setattr(Reader, "feed", counted_feed)
    text = HOSTILE[name]
    parse((text[i : i + 7] for i in range(0, len(text), 7)), tools=tools, thinking="qwen3")
    assert copied < 8 * len(text)
