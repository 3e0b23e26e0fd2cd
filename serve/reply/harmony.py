"""The replies of gpt-oss: messages on channels, with a recipient where a tool is called.

    <|channel|>analysis<|message|>…<|end|><|start|>assistant<|channel|>final<|message|>…<|return|>
    <|channel|>commentary to=functions.get_weather<|message|>{"city": "Rome"}<|call|>

Source: OpenAI's description of the harmony response format.
"""

import re
from collections.abc import Mapping
from typing import Any

from engine.reasoning.thoughts import ThoughtMarks
from serve.reply.bound import Part, Wish, const, either, in_order, json_part
from serve.reply.bound import text_until as free_text
from serve.reply.events import Output
from serve.reply.reader import Reader, Reading, text_until
from serve.reply.reply import Grammar

ANALYSIS, FINAL = "<|channel|>analysis<|message|>", "<|channel|>final<|message|>"
_ENDS = ("<|end|>", "<|return|>", "<|call|>", "<|start|>")
_MARKS = (*_ENDS, "<|channel|>", "<|message|>")
_NEXT = "<|start|>assistant"
_RECIPIENT = re.compile(r"\bto=(?:functions\.)?([\w.\-]{1,256})")
_CHANNEL = re.compile(r"<\|channel\|>\s*(\w+)")


class Harmony:
    """The same grammar where a format of reasoning, of calls, or of both is asked for."""

    forced_end = f"<|end|><|start|>assistant{FINAL}"

    def marks(self, prompt: str) -> ThoughtMarks:
        """Several messages may be reasoning, until one is the answer."""
        return ThoughtMarks(begin=ANALYSIS, ends=_ENDS, answer=FINAL)

    def is_open(self, prompt: str) -> bool:
        """Each message says what it is."""
        return False

    def read(
        self, reader: Reader, out: Output, tools: Mapping[str, Any], *, is_open: bool
    ) -> Reading[None]:
        """Hand on everything."""
        return harmony(reader, out, tools)

    def __call__(self, reader: Reader, out: Output, tools: Mapping[str, Any]) -> Reading[None]:
        return harmony(reader, out, tools)

    def chosen(self) -> Grammar:
        """A message says whether it is a call."""
        return self

    def bound(self, wish: Wish) -> Part:
        """Messages of reasoning or to the user, then one that calls a tool, or the answer.

        Where the answer is bound, nothing else is said to the user.
        """
        text = {"type": "any_text", "excludes": list(_MARKS)}
        before = [free_text("<|end|>", begin=ANALYSIS, excludes=_MARKS)]
        if wish.answer is None:
            preamble = "<|channel|>commentary<|message|>"
            before.append(free_text("<|end|>", begin=preamble, excludes=_MARKS))
        last = either(
            in_order(const(FINAL), wish.answer or text),
            *(_call(name, schema) for name, schema in wish.tools.items()),
        )
        thoughts = {
            "type": "tags_with_separator", "tags": before, "separator": _NEXT,
            "at_least_one": True,
        }  # fmt: skip
        return either(in_order(thoughts, const(_NEXT), last), last)


def _call(name: str, schema: Any) -> Part:
    """The recipient stands behind the channel, or before it; the model ends the message."""
    heads = [
        const(f"{place}{kind}<|message|>")
        for place in (
            f"<|channel|>commentary to=functions.{name} ",
            f" to=functions.{name}<|channel|>commentary ",
        )
        for kind in ("<|constrain|>json", "json")
    ]
    return in_order(either(*heads), json_part(schema))


def harmony(reader: Reader, out: Output, tools: Mapping[str, Any]) -> Reading[None]:
    """One message after the other; the header of the first may have begun in the prompt.

    Without tools, what is said to one is the answer.
    """
    while True:
        header, mark = yield from text_until(reader, "<|message|>", *_ENDS)
        if mark == "<|message|>":
            yield from _body(reader, out, header, bool(tools))
        elif mark is None:
            if "<|channel|>" not in header:  # a text that is no message is the answer
                out.content(header)
            return


def _body(reader: Reader, out: Output, header: str, with_tools: bool) -> Reading[None]:
    channel = _CHANNEL.search(header)
    recipient = _RECIPIENT.search(header)
    emit = out.content
    if with_tools and recipient and recipient[1] != "assistant":
        out.begin_call(recipient[1])
        emit = out.arguments
    elif channel and channel[1] == "analysis":
        emit = out.reasoning
    yield from reader.until(*_ENDS, emit=emit)
