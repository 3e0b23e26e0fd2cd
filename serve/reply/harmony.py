"""The replies of gpt-oss: messages on channels, with a recipient where a tool is called.

    <|channel|>analysis<|message|>…<|end|><|start|>assistant<|channel|>final<|message|>…<|return|>
    <|channel|>commentary to=functions.get_weather<|message|>{"city": "Rome"}<|call|>

Source: OpenAI's description of the harmony response format.
"""

import re
from collections.abc import Mapping
from typing import Any

from engine.thoughts import ThoughtMarks
from serve.reply.events import Output
from serve.reply.reader import Reader, Reading, text_until

ANALYSIS, FINAL = "<|channel|>analysis<|message|>", "<|channel|>final<|message|>"
_ENDS = ("<|end|>", "<|return|>", "<|call|>", "<|start|>")
_RECIPIENT = re.compile(r"\bto=(?:functions\.)?([\w.\-]{1,256})")
_CHANNEL = re.compile(r"<\|channel\|>\s*(\w+)")


class HarmonyReasoning:
    """The same grammar where a reasoning format is asked for."""

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
