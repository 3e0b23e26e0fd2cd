"""Showing what the engine said as Ollama does: a line of JSON for each piece."""

from collections.abc import Iterable, Iterator
from datetime import UTC, datetime
from typing import Any

import msgspec

from engine.outputs import OutputDelta
from serve.generation.conversation import Conversation
from serve.ollama.protocol import OllamaAnswer, OllamaResponse
from serve.operations.metrics import Timeline
from serve.reply.json_calls import parsed
from serve.reply.parts import Change, End, Grow, Part, Parts
from serve.reply.shown import Reply

_NANOSECONDS = 1e9


def now() -> str:
    """As Ollama writes times."""
    return datetime.now(UTC).isoformat().replace("+00:00", "Z")


class OllamaView:
    """One response; calls are shown whole, as they are in this API."""

    def __init__(
        self, talk: Conversation, model_name: str, timeline: Timeline, *, is_chat: bool
    ) -> None:
        self._model = model_name
        self._timeline = timeline
        self._is_chat = is_chat
        self._prompt_tokens = talk.prompt.num_tokens
        self._generated = 0
        self._reply = Reply(talk.rules, talk.prompt.text or "")
        self._parts = Parts()
        self._cut = False

    def of(self, deltas: dict[int, OutputDelta]) -> Iterator[OllamaResponse]:
        """A line for each piece of what the engine just said."""
        yield from self._shown(self._changes(deltas[0]))

    def last(self) -> Iterator[OllamaResponse]:
        """A call that was open, and the end."""
        yield from self._shown(self._parts.end())
        yield self._ended(self._piece())

    def whole(self, deltas: dict[int, OutputDelta]) -> OllamaResponse:
        """The response that is not streamed."""
        for _ in self._changes(deltas[0]):
            pass
        parts = self._parts.all
        text = "".join(part.text for part in parts if part.kind == "text")
        thoughts = "".join(part.text for part in parts if part.kind == "reasoning")
        calls = [_call(part) for part in parts if part.kind == "call"]
        return self._ended(self._piece(text, thoughts, calls))

    def _changes(self, delta: OutputDelta) -> Iterator[Change]:
        self._generated += len(delta.token_ids)
        self._cut = delta.finish_reason == "length"
        return self._parts.add(self._reply.events(delta))

    def _shown(self, changes: Iterable[Change]) -> Iterator[OllamaResponse]:
        for change in changes:
            match change:
                case Grow(Part(kind="text"), text):
                    yield self._piece(text)
                case Grow(Part(kind="reasoning"), text):
                    yield self._piece(thoughts=text)
                case End(Part(kind="call") as part):
                    yield self._piece(calls=[_call(part)])

    def _piece(
        self, text: str = "", thoughts: str = "", calls: list[dict[str, Any]] | None = None
    ) -> OllamaResponse:
        line = OllamaResponse(model=self._model, created_at=now())
        if not self._is_chat:
            line.response, line.thinking = text, thoughts or msgspec.UNSET
            return line
        line.message = OllamaAnswer(
            text, thinking=thoughts or msgspec.UNSET, tool_calls=calls or msgspec.UNSET
        )
        return line

    def _ended(self, line: OllamaResponse) -> OllamaResponse:
        times = self._timeline
        first = times.first_token or times.last_token
        line.done, line.done_reason = True, "length" if self._cut else "stop"
        line.total_duration = int((times.last_token - times.arrival) * _NANOSECONDS)
        line.load_duration = 0
        line.prompt_eval_count, line.eval_count = self._prompt_tokens, self._generated
        line.prompt_eval_duration = int((first - times.arrival) * _NANOSECONDS)
        line.eval_duration = int((times.last_token - first) * _NANOSECONDS)
        return line


def _call(part: Part) -> dict[str, Any]:
    arguments = parsed(part.text)
    shown = arguments if isinstance(arguments, dict) else {}
    return {"function": {"name": part.name, "arguments": shown}}
