"""Answers to chat requests with `functions`, the tools of before there were tools.

tool_calls [{"function": {"name": ..., "arguments": ...}}]    finish_reason "tool_calls"
function_call {"name": ..., "arguments": ...}                 finish_reason "function_call"
"""

from collections.abc import Iterator

from msgspec import UNSET

from engine.outputs import OutputDelta
from serve.openai.chat_view import ChatView
from serve.protocol.chat import (
    AnswerMessage,
    ChatChunk,
    ChatCompletion,
    ChatFinishReason,
    Delta,
)


class FunctionView:
    """What a `ChatView` shows, in these words; of several calls the first counts."""

    def __init__(self, view: ChatView) -> None:
        self._view = view

    def of(self, deltas: dict[int, OutputDelta]) -> Iterator[ChatChunk]:
        """Its chunks."""
        for chunk in self._view.of(deltas):
            for choice in chunk.choices:
                _name_call(choice.delta)
                choice.finish_reason = _renamed(choice.finish_reason)
            yield chunk

    def last(self) -> Iterator[ChatChunk]:
        """The counts, if they are wanted."""
        return self._view.last()

    def whole(self, deltas: dict[int, OutputDelta]) -> ChatCompletion:
        """The response that is not streamed."""
        completion = self._view.whole(deltas)
        for choice in completion.choices:
            _name_call(choice.message)
            choice.finish_reason = _renamed(choice.finish_reason)
        return completion


def _name_call(said: AnswerMessage | Delta) -> None:
    if said.tool_calls is not UNSET:
        said.function_call = said.tool_calls[0].function
        said.tool_calls = UNSET


def _renamed(reason: ChatFinishReason | None) -> ChatFinishReason | None:
    return "function_call" if reason == "tool_calls" else reason
