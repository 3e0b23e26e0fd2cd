"""POST /v1/responses, and what can be done with a response afterwards.

A response in the background is a task of this process; it ends when it is cancelled, or with the
server.
"""

import asyncio
import logging
from collections.abc import AsyncIterator, Iterable, Mapping
from contextlib import AbstractContextManager, ExitStack
from itertools import chain
from types import MappingProxyType

from starlette.requests import Request
from starlette.responses import Response, StreamingResponse
from starlette.types import Scope, Send

from engine.errors import OverloadedError, RequestError
from models.errors import IngotError
from serve.errors import ErrorBody, error_body
from serve.generation.conversation import Conversation, begin
from serve.generation.streams import RequestStream
from serve.http.endpoint import GenerationRoute, send_json
from serve.http.json_response import json_response
from serve.http.key_limits import keep_place
from serve.http.owner import owner_of
from serve.http.sse import Framing, event, named_event, send_events
from serve.openai.render import RenderRoute, rendered_chat
from serve.protocol.chat import ChatRequest
from serve.responses.event_log import AsLogged, EventLog
from serve.responses.input_items import named, page
from serve.responses.protocol import Deleted, InputItem, ResponseEvent, ResponsesRequest
from serve.responses.store import ResponseStore, Stored
from serve.responses.translate import chat_request, format_field, new_items, turns_of
from serve.responses.view import ResponseView
from serve.service import Service

MAX_BACKGROUND = 1000
_NAMES = MappingProxyType(
    {
        "messages": "input",
        "max_tokens": "max_output_tokens",
        "logprobs": "include",
        "max_completion_tokens": "max_output_tokens",
    }
)
logger = logging.getLogger("ingot.serve")


class ResponsesRoute(GenerationRoute[ResponsesRequest]):
    """The newer of OpenAI's APIs."""

    kind = ResponsesRequest

    def __init__(self, service: Service, store: ResponseStore) -> None:
        super().__init__(service)
        self._store = store
        self._tasks: set[asyncio.Task[None]] = set()

    def names(self, request: ResponsesRequest) -> Mapping[str, str]:
        return {**_NAMES, "response_format": format_field(request)}

    async def serve(self, request: ResponsesRequest, scope: Scope, send: Send) -> None:
        await self.answer(request, scope["state"]["request_id"], send, scope)

    async def answer(
        self, request: ResponsesRequest, request_id: str, send: Send, scope: Scope | None = None
    ) -> None:
        owner, name = owner_of(scope or {}), f"resp_{request_id}"
        self._store.check_free(request.request_id or name, owner)
        parts = _parts(self._store, request, owner)
        talk = await begin(self.service, _chat(request, parts), "responses")
        model = self.service.answers_as(talk.prompt)
        view = ResponseView(request, talk, request.request_id or name, model)
        stored = Stored(view.response, parts, owner)
        if request.background:
            stored.log = EventLog() if request.stream else None
            asked = self._asked(name, talk, view)
            await self._answer_later(asked, view, stored, send, scope or {})
            return
        if request.stream:
            with self._asked(name, talk, view, self.service.stream_interval(True)) as stream:
                await send_events(send, stream, view, _FRAMING)
        else:
            with self._asked(name, talk, view) as stream:
                await self._run(stream, view)
            await send_json(send, view.response)
        if request.store is not False and view.response.status in ("completed", "incomplete"):
            self._store.put(stored)

    async def _answer_later(
        self,
        answer: AbstractContextManager[RequestStream],
        view: ResponseView,
        stored: Stored,
        send: Send,
        scope: Scope,
    ) -> None:
        """Begin a response in the background, and send its beginning or its events."""
        if len(self._tasks) >= MAX_BACKGROUND:
            raise OverloadedError(f"{MAX_BACKGROUND} responses in the background run already.")
        asked = ExitStack()
        stream = asked.enter_context(answer)  # what is refused never begins
        stored.task = asyncio.create_task(self._in_background(stream, view, stored))
        stored.task.add_done_callback(lambda _: asked.close())
        self._tasks.add(stored.task)
        stored.task.add_done_callback(self._tasks.discard)
        give_back = keep_place(scope)
        stored.task.add_done_callback(lambda _: give_back())
        self._store.put(stored)
        if stored.log is None:
            await send_json(send, view.response)
        else:
            await send_events(send, stored.log.after(-1), AsLogged(), _FRAMING)

    def _asked(
        self, name: str, talk: Conversation, view: ResponseView, interval: int = 1
    ) -> AbstractContextManager[RequestStream]:
        """The engine's answer, while somebody wants it; it has a `name` of its own there."""
        priority, shown = talk.request.priority or 0, view.response.id
        return self.service.client.generate(name, [talk.prompt], priority, interval, shown)

    async def _run(
        self, stream: RequestStream, view: ResponseView, log: EventLog | None = None
    ) -> None:
        """Until the response is complete; its events go to the log, if there is one."""
        async for deltas in stream:
            _keep(log, view.of(deltas))
        _keep(log, view.last())

    async def _in_background(
        self, stream: RequestStream, view: ResponseView, stored: Stored
    ) -> None:
        log, end = stored.log, None
        try:
            await self._run(stream, view, log)
        except asyncio.CancelledError:
            end = view.ended("cancelled")
        except Exception as error:
            if not isinstance(error, IngotError):
                logger.exception("A response in the background failed.")
            detail = error_body(error)[1].error
            end = view.ended("failed", {"code": detail.type, "message": detail.message})
        stored.task = None
        if log is not None:
            if end is not None:
                log.add(end)
            log.close()
        self._store.put(stored)  # which has grown, whatever its end


class ResponsesRenderRoute(RenderRoute[ResponsesRequest]):
    """The prompt that a conversation is to the model, as `serve.openai.render` tells it."""

    kind = ResponsesRequest
    names = ResponsesRoute.names

    def __init__(self, service: Service, store: ResponseStore) -> None:
        super().__init__(service)
        self._store = store

    async def serve(self, request: ResponsesRequest, scope: Scope, send: Send) -> None:
        await self.answer(request, scope["state"]["request_id"], send, owner_of(scope))

    async def answer(
        self, request: ResponsesRequest, request_id: str, send: Send, owner: str = ""
    ) -> None:
        chat = _chat(request, _parts(self._store, request, owner))
        name = request.request_id or f"resp_{request_id}"
        await send_json(send, await rendered_chat(self.service, chat, name))


def _parts(store: ResponseStore, request: ResponsesRequest, owner: str) -> list[list[InputItem]]:
    """What `previous_response_id` names, and what is new; raises RequestError."""
    before: list[list[InputItem]] = []
    if (previous := request.previous_response_id) is not None:
        stored = store.get(previous, owner, "previous_response_id")
        if stored.task is not None:
            raise RequestError("The previous response is not complete yet.", "previous_response_id")
        before = stored.whole()
    return [*before, named(new_items(request), chain.from_iterable(before))]


def _chat(request: ResponsesRequest, parts: Iterable[list[InputItem]]) -> ChatRequest:
    return chat_request(request, [turn for part in parts for turn in turns_of(part)])


class StoredResponses:
    """GET and DELETE of /v1/responses/{id}, GET of its input_items, and POST of its cancel."""

    def __init__(self, store: ResponseStore) -> None:
        self._store = store

    async def one(self, request: Request) -> Response:
        """The response as it is now, or its end."""
        stored = self._asked_for(request)
        if request.method == "DELETE":
            await _cancel(stored)
            self._store.delete(stored)
            return json_response(Deleted(stored.response.id))
        if request.query_params.get("stream") == "true":
            return _replayed(stored, request.query_params.get("starting_after", "-1"))
        return json_response(stored.response)

    async def input_items(self, request: Request) -> Response:
        """What it was made of, also of the responses that it went on with."""
        return json_response(page(self._asked_for(request).items, request.query_params))

    async def cancel(self, request: Request) -> Response:
        """Raises RequestError for a response that is not in the background."""
        stored = self._asked_for(request)
        if not stored.response.background:
            raise RequestError("Only a response in the background can be cancelled.", "response_id")
        await _cancel(stored)
        return json_response(stored.response)

    def _asked_for(self, request: Request) -> Stored:
        return self._store.get(request.path_params["response_id"], owner_of(request.scope))


def _keep(log: EventLog | None, events: Iterable[ResponseEvent]) -> None:
    for news in events:
        if log is not None:
            log.add(news)


async def _cancel(stored: Stored) -> None:
    if stored.task is not None:
        stored.task.cancel()
        await asyncio.wait([stored.task])


def _replayed(stored: Stored, after: str) -> Response:
    """The events of a response behind number `after`, as long as they come."""
    log = stored.log
    if log is None:
        raise RequestError(
            "Only a response that was made with background and stream can be streamed.", "stream"
        )
    if not after.removeprefix("-").isdecimal() or len(after) > 18:
        raise RequestError("starting_after must be the number of an event.", "starting_after")

    async def frames() -> AsyncIterator[bytes]:
        async for events in log.after(int(after)):
            yield b"".join(map(named_event, events))

    return StreamingResponse(frames(), media_type="text/event-stream")


def _failed(body: ErrorBody) -> bytes:
    detail = body.error
    return b"event: error\n" + event(
        {"type": "error", "code": detail.code, "message": detail.message, "param": detail.param}
    )


_FRAMING = Framing(named_event, _failed)
