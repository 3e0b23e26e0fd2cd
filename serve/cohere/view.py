"""Showing what the engine said as Cohere's chat API does, whole or in events."""

from collections.abc import Iterator, Sequence
from typing import Any

from msgspec import UNSET, UnsetType

from engine.outputs import OutputDelta, PositionLogprobs
from serve.cohere.protocol import (
    CohereChat,
    CohereEvent,
    CohereFinishReason,
    CohereLogprobs,
    CohereMessage,
    CohereUsage,
    TokenCounts,
)
from serve.generation.conversation import Conversation
from serve.generation.logprobs import LOWEST
from serve.generation.usage import TokenCounter
from serve.reply.parts import Begin, Change, End, Grow, Part, Parts
from serve.reply.shown import Reply

_TEXTS = {"text": "text", "reasoning": "thinking"}


class CohereView:
    """One response: its parts are blocks of content, and calls."""

    def __init__(self, talk: Conversation, response_id: str) -> None:
        self._id = response_id
        self._prompt_tokens = talk.prompt.num_tokens
        self._counter = TokenCounter([self._prompt_tokens], 1, talk.thoughts)
        self._reply = Reply(talk.rules, talk.prompt.text or "")
        self._parts = Parts()
        self._scored: list[PositionLogprobs] = []  # and not shown yet
        self._begun = False
        self._last: OutputDelta | None = None

    def of(self, deltas: dict[int, OutputDelta]) -> Iterator[CohereEvent]:
        """The events for what the engine just said."""
        if not self._begun:
            self._begun = True
            delta = {"message": {"role": "assistant"}}
            yield CohereEvent(type="message-start", id=self._id, delta=delta)
        for change in self._changes(deltas[0]):
            yield self._shown(change)

    def last(self) -> Iterator[CohereEvent]:
        """The scores that no text came with, the end of the open part, and of the message."""
        if self._scored and self._parts.all and self._parts.all[-1].kind != "call":
            yield self._shown(Grow(self._parts.all[-1], ""))
        for change in self._parts.end():
            yield self._shown(change)
        delta = {"finish_reason": self._reason(), "usage": self._usage()}
        yield CohereEvent(type="message-end", id=self._id, delta=delta)

    def whole(self, deltas: dict[int, OutputDelta]) -> CohereChat:
        """The response that is not streamed."""
        for _ in self._changes(deltas[0]):
            pass
        parts = self._parts.all
        content = [_block(part, part.text) for part in parts if part.kind != "call"]
        calls = [_call(part, part.text) for part in parts if part.kind == "call"]
        return CohereChat(
            id=self._id,
            finish_reason=self._reason(),
            message=CohereMessage(content=content or UNSET, tool_calls=calls or UNSET),
            usage=self._usage(),
            logprobs=[_scores([each]) for each in self._scored] or UNSET,
        )

    def _changes(self, delta: OutputDelta) -> Iterator[Change]:
        self._counter.add(0, delta)
        self._last = delta
        self._scored += [each for each in delta.logprobs or () if each is not None]
        return self._parts.add(self._reply.events(delta))

    def _shown(self, change: Change) -> CohereEvent:
        part = change.part
        is_call = part.kind == "call"
        index = sum((each.kind == "call") == is_call for each in self._parts.all[: part.index])
        match change, is_call:
            case Begin(), True:
                delta = {"message": {"tool_calls": _call(part, "")}}
                return CohereEvent(type="tool-call-start", index=index, delta=delta)
            case Grow(_, text), True:
                delta = {"message": {"tool_calls": {"function": {"arguments": text}}}}
                return CohereEvent(type="tool-call-delta", index=index, delta=delta)
            case End(), True:
                return CohereEvent(type="tool-call-end", index=index)
            case Begin(), _:
                delta = {"message": {"content": _block(part, "")}}
                return CohereEvent(type="content-start", index=index, delta=delta)
            case Grow(_, text), _:
                delta = {"message": {"content": {_TEXTS[part.kind]: text}}}
                scores = self._scores_so_far()
                return CohereEvent(type="content-delta", index=index, delta=delta, logprobs=scores)
            case _:
                return CohereEvent(type="content-end", index=index)

    def _scores_so_far(self) -> CohereLogprobs | UnsetType:
        scored, self._scored = self._scored, []
        return _scores(scored) if scored else UNSET

    def _usage(self) -> CohereUsage:
        counts = TokenCounts(self._prompt_tokens, self._counter.generated_tokens)
        return CohereUsage(counts, counts, self._counter.cached_tokens or UNSET)

    def _reason(self) -> CohereFinishReason:
        last = self._last
        if last is not None and last.finish_reason == "length":
            return "MAX_TOKENS"
        if any(part.kind == "call" for part in self._parts.all):
            return "TOOL_CALL"
        stopped = last is not None and isinstance(last.stop_reason, str)
        return "STOP_SEQUENCE" if stopped else "COMPLETE"


def _block(part: Part, text: str) -> dict[str, Any]:
    kind = _TEXTS[part.kind]
    return {"type": kind, kind: text}


def _call(part: Part, arguments: str) -> dict[str, Any]:
    function = {"name": part.name, "arguments": arguments}
    return {"id": part.id, "type": "function", "function": function}


def _scores(positions: Sequence[PositionLogprobs]) -> CohereLogprobs:
    chosen = [next(iter(position.items())) for position in positions]
    return CohereLogprobs(
        "".join(entry.decoded_token or "" for _, entry in chosen),
        [token_id for token_id, _ in chosen],
        [max(entry.logprob, LOWEST) for _, entry in chosen],
    )
