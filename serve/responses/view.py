"""Showing what the engine said as `/v1/responses` does: an object that grows, and its events."""

import time
from collections.abc import Iterator
from typing import Any
from uuid import uuid4

import msgspec

from engine.outputs import OutputDelta
from serve.generation.conversation import Conversation
from serve.generation.logprobs import chat_logprobs
from serve.generation.usage import TokenCounter
from serve.reply.parts import Begin, Change, End, Grow, Part, Parts
from serve.reply.shown import Reply
from serve.responses.protocol import (
    CachedTokens,
    ReasoningTokens,
    ResponseEvent,
    ResponseObject,
    ResponsesRequest,
    ResponseUsage,
    Status,
    TextOptions,
)

_PREFIXES = {"reasoning": "rs_", "text": "msg_", "call": "fc_"}
_ITEM_NAMES = {"reasoning": "reasoning_text", "text": "output_text"}


class ResponseView:
    """One response; its parts are output items."""

    def __init__(
        self, request: ResponsesRequest, talk: Conversation, response_id: str, model_name: str
    ) -> None:
        self.response = _new_response(request, response_id, model_name)
        self._request = request
        self._prompt_tokens = talk.prompt.num_tokens
        self._counter = TokenCounter([self._prompt_tokens], 1, talk.thoughts)
        self._reply = Reply(talk.rules, talk.prompt.text or "")
        self._parts = Parts()
        self._ids: list[str] = []
        self._logprobs: list[Any] = []
        self._sequence = 0
        self._finish_reason: str | None = None
        self._cut_off: Part | None = None  # by max_output_tokens

    def of(self, deltas: dict[int, OutputDelta]) -> Iterator[ResponseEvent]:
        """The events for what the engine just said."""
        delta = deltas[0]
        if self._sequence == 0:
            self.response.status = "in_progress"
            yield self._event("response.created", response=self.response)
            yield self._event("response.in_progress", response=self.response)
        logprobs = self._scores(delta)
        for change in self._parts.add(self._reply.events(delta)):
            yield from self._shown(change, logprobs)
        self._count(delta)

    def last(self) -> Iterator[ResponseEvent]:
        """The end of the open item, and of the response."""
        for change in self._parts.end():
            self._cut_off = change.part if self._finish_reason == "length" else None
            yield from self._shown(change, [])
        self._finish()
        yield self._event(f"response.{self.response.status}", response=self.response)

    def ended(self, status: Status, error: dict[str, Any] | None = None) -> ResponseEvent:
        """The last event of a response that does not become complete."""
        self.response.status, self.response.error = status, error
        return self._event(f"response.{status}", response=self.response)

    def _finish(self) -> None:
        self.response.output = [self._item(part) for part in self._parts.all]
        self.response.usage = self._usage()
        self.response.status = "completed"
        if self._finish_reason == "length":
            self.response.status = "incomplete"
            self.response.incomplete_details = {"reason": "max_output_tokens"}

    def _count(self, delta: OutputDelta) -> None:
        self._counter.add(0, delta)
        self._finish_reason = delta.finish_reason

    def _usage(self) -> ResponseUsage:
        counter = self._counter
        return ResponseUsage(
            self._prompt_tokens,
            CachedTokens(counter.cached_tokens),
            counter.generated_tokens,
            ReasoningTokens(counter.reasoning_tokens or 0),
            self._prompt_tokens + counter.generated_tokens,
        )

    def _scores(self, delta: OutputDelta) -> list[Any]:
        if not self._request.wants_logprobs:
            return []
        shown = chat_logprobs(
            delta.logprobs or [], self._request.top_logprobs or 0, as_ids=False
        ).content
        self._logprobs += shown
        return list(shown)

    def _shown(self, change: Change, logprobs: list[Any]) -> Iterator[ResponseEvent]:
        part = change.part
        match change:
            case Begin():
                self._ids.append(_PREFIXES[part.kind] + uuid4().hex)
                item = self._item(part, status="in_progress", empty=True)
                yield self._event("response.output_item.added", part, item=item)
                if part.kind != "call":
                    yield self._content("response.content_part.added", part, part=_content(part))
            case Grow(text=text):
                yield self._grown(part, text, logprobs)
            case End():
                yield from self._ended(part)
                yield self._event("response.output_item.done", part, item=self._item(part))

    def _grown(self, part: Part, text: str, logprobs: list[Any]) -> ResponseEvent:
        if part.kind == "call":
            name = "response.function_call_arguments.delta"
            return self._event(name, part, item_id=self._ids[part.index], delta=text)
        more = {"logprobs": logprobs} if part.kind == "text" else {}
        return self._content(f"response.{_ITEM_NAMES[part.kind]}.delta", part, delta=text, **more)

    def _ended(self, part: Part) -> Iterator[ResponseEvent]:
        if part.kind == "call":
            yield self._event(
                "response.function_call_arguments.done",
                part,
                item_id=self._ids[part.index],
                name=part.name,
                arguments=part.text,
            )
            return
        more = {"logprobs": self._logprobs} if part.kind == "text" else {}
        name = f"response.{_ITEM_NAMES[part.kind]}.done"
        yield self._content(name, part, text=part.text, **more)
        content = _content(part, part.text, self._logprobs)
        yield self._content("response.content_part.done", part, part=content)

    def _item(self, part: Part, status: str = "", *, empty: bool = False) -> dict[str, Any]:
        text = "" if empty else part.text
        ended = "incomplete" if part is self._cut_off else "completed"
        item = {"id": self._ids[part.index], "status": status or ended}
        match part.kind:
            case "call":
                function = {"call_id": part.id, "name": part.name, "arguments": text}
                return {"type": "function_call", **item, **function}
            case "reasoning":
                content = [] if empty else [_content(part, text)]
                return {"type": "reasoning", **item, "summary": [], "content": content}
            case "text":
                content = [] if empty else [_content(part, text, self._logprobs)]
                return {"type": "message", **item, "role": "assistant", "content": content}

    def _content(self, name: str, part: Part, /, **fields: Any) -> ResponseEvent:
        return self._event(name, part, item_id=self._ids[part.index], content_index=0, **fields)

    def _event(self, name: str, part: Part | None = None, /, **fields: Any) -> ResponseEvent:
        if part is not None:
            fields["output_index"] = part.index
        if "response" in fields:  # the object goes on changing
            fields["response"] = msgspec.structs.replace(self.response)
        self._sequence += 1
        return ResponseEvent(type=name, sequence_number=self._sequence - 1, **fields)


def _content(part: Part, text: str = "", logprobs: list[Any] | None = None) -> dict[str, Any]:
    if part.kind == "reasoning":
        return {"type": "reasoning_text", "text": text}
    return {"type": "output_text", "text": text, "annotations": [], "logprobs": logprobs or []}


def _new_response(request: ResponsesRequest, response_id: str, model_name: str) -> ResponseObject:
    return ResponseObject(
        id=response_id,
        created_at=int(time.time()),
        status="queued",
        model=model_name,
        output=[],
        background=bool(request.background),
        instructions=request.instructions,
        max_output_tokens=request.max_output_tokens,
        parallel_tool_calls=request.parallel_tool_calls is not False,
        previous_response_id=request.previous_response_id,
        reasoning=request.reasoning,
        store=request.store is not False,
        temperature=request.temperature,
        text=request.text or TextOptions({"type": "text"}),
        tool_choice=request.tool_choice or "auto",
        tools=request.tools or [],
        top_logprobs=request.top_logprobs or 0,
        top_p=request.top_p,
        user=request.user,
        metadata=request.metadata or {},
    )
