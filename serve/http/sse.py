"""Server-sent events: a streamed response from its first chunk to `data: [DONE]`.

    data: {"id": "chatcmpl-...", "choices": [...]}\\n\\n
    data: {"error": {...}}\\n\\n              when something fails once the stream has begun
    data: [DONE]\\n\\n

Anthropic's API and OpenAI's newer one name their events (`event: message_stop`) and have no DONE;
Ollama's has lines of JSON instead.

The status line waits for the first chunk, so whatever fails before it is answered with its real
status. Owns framing and order; what a chunk holds is the route's.
"""

import logging
from collections.abc import AsyncIterable, Callable, Iterable
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

import msgspec
from starlette.types import Message, Send

from models.errors import IngotError
from serve.errors import ErrorBody, error_body
from serve.generation.logprobs import aside
from serve.generation.streams import RequestStream
from serve.http.disconnect import ClientDisconnected

News = TypeVar("News", contravariant=True)  # of a stream: {choice: delta}, or pieces of text
logger = logging.getLogger("ingot.serve")


class Chunks(Protocol[News]):
    """How a route shows what comes."""

    def of(self, deltas: News, /) -> Iterable[msgspec.Struct]:
        """The chunks for what the engine just said."""

    def last(self) -> Iterable[msgspec.Struct]:
        """The chunks after everything else."""


@dataclass(frozen=True, slots=True)
class Framing:
    """How an API frames its events, and ends them."""

    event: Callable[[msgspec.Struct], bytes]
    error: Callable[[ErrorBody], bytes]
    end: bytes = b""
    media: bytes = b"text/event-stream; charset=utf-8"

    @property
    def start(self) -> Message:
        """The first message of a response."""
        headers = [
            (b"content-type", self.media),
            (b"cache-control", b"no-cache"),
            (b"x-accel-buffering", b"no"),  # proxies pass each event on at once
        ]
        return {"type": "http.response.start", "status": 200, "headers": headers}


async def send_events(
    send: Send, stream: AsyncIterable[News], chunks: Chunks[News], framing: Framing
) -> None:
    """Send the whole response; raises what failed if nothing has been sent yet."""
    started, events = False, b""  # those that are not sent yet
    engine = stream if isinstance(stream, RequestStream) else None
    try:
        async for deltas in stream:
            if not started:
                await send(framing.start)
                started = True
            events += await _written(framing, chunks, deltas, of_engine=engine is not None)
            if engine is not None and engine.finished:
                continue  # they go with the end
            await send({"type": "http.response.body", "body": events, "more_body": True})
            events = b""
            if engine is not None:
                engine.shown()
        events += b"".join(map(framing.event, chunks.last()))
    except ClientDisconnected:
        raise
    except Exception as error:
        if not started:
            raise
        if not isinstance(error, IngotError):
            logger.exception("A streamed response failed.")
        events += framing.error(error_body(error)[1])
    await send({"type": "http.response.body", "body": events + framing.end})
    if engine is not None:
        engine.shown()


async def _written(
    framing: Framing, chunks: Chunks[News], deltas: News, *, of_engine: bool
) -> bytes:
    """The events of what came; many scores are written aside."""

    def write() -> bytes:
        return b"".join(map(framing.event, chunks.of(deltas)))

    return await aside(write, deltas) if of_engine else write()  # type: ignore[arg-type]


def event(data: Any) -> bytes:
    """One event; JSON holds no line breaks, so one `data:` line is always enough."""
    return b"data: " + msgspec.json.encode(data) + b"\n\n"


def named_event(data: msgspec.Struct) -> bytes:
    """One event with the name that its `type` is."""
    name: str = data.type  # type: ignore[attr-defined]
    return b"event: " + name.encode() + b"\n" + event(data)


DATA_ONLY = Framing(event, event, b"data: [DONE]\n\n")
