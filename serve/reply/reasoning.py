"""Where reasoning ends and the answer begins.

Most models put their reasoning between two marks, of which the first is often already in the
prompt, or both are, when thinking is switched off: the prompt's end tells.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from engine.reasoning.thoughts import ThoughtMarks
from serve.reply.events import Output
from serve.reply.reader import Emit, Reader, Reading


class Thinking(Protocol):
    """A format of reasoning; `forced_end` is what ends it early and lets the answer begin."""

    @property
    def forced_end(self) -> str: ...

    def marks(self, prompt: str) -> ThoughtMarks:
        """By which the reasoning in a reply to `prompt` is found."""

    def is_open(self, prompt: str) -> bool:
        """Whether the reply to `prompt` begins within reasoning."""

    def read(
        self, reader: Reader, out: Output, tools: Mapping[str, Any], *, is_open: bool
    ) -> Reading[None]:
        """Hand on reasoning and the answer."""


@dataclass(frozen=True)
class ReasoningFormat:
    """Marks around reasoning. `implied`: a reply begins with reasoning even without a mark."""

    begin: str
    end: str
    implied: bool = False
    answer: tuple[str, ...] = ()  # marks around the answer, which are not part of it
    also_ends: tuple[str, ...] = ()  # what ends reasoning and is read again after it

    @property
    def forced_end(self) -> str:
        return self.end

    def marks(self, prompt: str) -> ThoughtMarks:
        """By which the reasoning in a reply to `prompt` is found."""
        ends = (self.end, *self.also_ends)
        return ThoughtMarks(begin=self.begin, ends=ends, is_open=self.is_open(prompt))

    def is_open(self, prompt: str) -> bool:
        """Whether the reply to `prompt` begins within reasoning."""
        tail = prompt.rstrip()
        if tail.endswith(self.end):
            return False
        return self.implied or tail.endswith(self.begin.strip())

    def read(
        self, reader: Reader, out: Output, tools: Mapping[str, Any], *, is_open: bool
    ) -> Reading[None]:
        """Hand on reasoning, then the answer."""
        reader.record()
        yield from reader.blanks()
        blanks = reader.recorded()
        mark = yield from reader.accept(self.begin, self.end)
        if mark == self.end:
            out.reasoning("")
        elif mark or is_open:
            yield from self._reasoning(reader, out)
        else:
            out.content(blanks)
        if not self.answer:
            yield from reader.rest(out.content)
            return
        while (yield from reader.until(*self.answer, emit=out.content)):
            pass

    def _reasoning(self, reader: Reader, out: Output) -> Reading[None]:
        yield from reader.blanks()
        emit = _without_last_blanks(out.reasoning)
        ends = (self.end, *self.also_ends)
        stop = yield from reader.until(*ends, emit=emit, keep=True)
        if stop == self.end:
            yield from reader.accept(stop)
        out.reasoning("")  # blanks that follow are between the parts


def _without_last_blanks(emit: Emit) -> Emit:
    """Hand texts on to `emit`, blanks at the end when something follows them."""
    held = ""

    def hand_on(text: str) -> None:
        nonlocal held
        text = held + text
        kept = text.rstrip()
        held = text[len(kept) :]
        emit(kept)

    return hand_on
