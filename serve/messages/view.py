"""Showing what the engine said as `/v1/messages` does, whole or in events."""

from collections.abc import Iterator
from typing import Any

from msgspec import UNSET

from engine.outputs import OutputDelta
from serve.generation.conversation import Conversation
from serve.generation.usage import TokenCounter
from serve.messages.protocol import (
    AnthropicMessage,
    AnthropicUsage,
    StopReason,
    StreamEvent,
    ThinkingTokens,
)
from serve.reply.json_calls import parsed
from serve.reply.parts import Begin, Change, End, Grow, Part, Parts
from serve.reply.shown import Reply

_DELTAS = {
    "text": ("text_delta", "text"),
    "reasoning": ("thinking_delta", "thinking"),
    "call": ("input_json_delta", "partial_json"),
}


class MessagesView:
    """One response: its parts are content blocks."""

    def __init__(self, talk: Conversation, response_id: str, model_name: str) -> None:
        self._id = response_id
        self._model = model_name
        self._prompt_tokens = talk.prompt.num_tokens
        self._counter = TokenCounter([self._prompt_tokens], 1, talk.thoughts)
        self._reply = Reply(talk.rules, talk.prompt.text or "")
        self._parts = Parts()
        self._begun = False
        self._last: OutputDelta | None = None

    def of(self, deltas: dict[int, OutputDelta]) -> Iterator[StreamEvent]:
        """The events for what the engine just said."""
        delta = deltas[0]
        self._count(delta)
        if not self._begun:
            self._begun = True
            yield StreamEvent(type="message_start", message=self._message([]))
        for change in self._parts.add(self._reply.events(delta)):
            yield _shown(change)

    def last(self) -> Iterator[StreamEvent]:
        """The end of the open block, and of the message."""
        for change in self._parts.end():
            yield _shown(change)
        reason, sequence = self._stop()
        yield StreamEvent(
            type="message_delta",
            delta={"stop_reason": reason, "stop_sequence": sequence},
            usage=self._usage(),
        )
        yield StreamEvent(type="message_stop")

    def whole(self, deltas: dict[int, OutputDelta]) -> AnthropicMessage:
        """The response that is not streamed."""
        self._count(deltas[0])
        for _ in self._parts.add(self._reply.events(deltas[0])):
            pass
        message = self._message([_block(part, part.text) for part in self._parts.all])
        message.stop_reason, message.stop_sequence = self._stop()
        return message

    def _count(self, delta: OutputDelta) -> None:
        self._counter.add(0, delta)
        self._last = delta

    def _message(self, content: list[dict[str, Any]]) -> AnthropicMessage:
        return AnthropicMessage(
            id=self._id, model=self._model, content=content, usage=self._usage()
        )

    def _usage(self) -> AnthropicUsage:
        cached, thoughts = self._counter.cached_tokens, self._counter.reasoning_tokens
        return AnthropicUsage(
            input_tokens=self._prompt_tokens - cached,
            output_tokens=self._counter.generated_tokens,
            cache_read_input_tokens=cached,
            output_tokens_details=UNSET if thoughts is None else ThinkingTokens(thoughts),
        )

    def _stop(self) -> tuple[StopReason | None, str | None]:
        if self._last is None:
            return None, None
        if any(part.kind == "call" for part in self._parts.all):
            return ("max_tokens" if self._last.finish_reason == "length" else "tool_use"), None
        if self._last.finish_reason == "length":
            return "max_tokens", None
        matched = self._last.stop_reason
        return ("stop_sequence", matched) if isinstance(matched, str) else ("end_turn", None)


def _shown(change: Change) -> StreamEvent:
    index = change.part.index
    match change:
        case Begin(part):
            return StreamEvent(
                type="content_block_start", index=index, content_block=_block(part, "")
            )
        case Grow(part, text):
            kind, name = _DELTAS[part.kind]
            return StreamEvent(
                type="content_block_delta", index=index, delta={"type": kind, name: text}
            )
        case End():
            return StreamEvent(type="content_block_stop", index=index)


def _block(part: Part, text: str) -> dict[str, Any]:
    match part.kind:
        case "text":
            return {"type": "text", "text": text}
        case "reasoning":
            return {"type": "thinking", "thinking": text, "signature": ""}
        case "call":
            arguments = parsed(text)
            found = arguments if isinstance(arguments, dict) else {}
            return {"type": "tool_use", "id": part.id, "name": part.name, "input": found}
