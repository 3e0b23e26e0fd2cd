"""Passing an answer on: events one by one as they come, anything else whole.

An answer that is whole can still become an error when its server is lost; a stream that has begun
ends with an error event, after the last event that came complete.
"""

import logging
from collections.abc import AsyncIterator

from starlette.types import Send

from serve.errors import ErrorBody, ErrorDetail
from serve.http.request_id import OWN_ID
from serve.http.sse import event
from serve.http.whole import send_body
from serve.router.upstream import Answer, UpstreamError

MAX_EVENT_BYTES = 16 * 2**20
MAX_ANSWER_BYTES = 256 * 2**20
_PASSED_ON = frozenset(
    {b"content-type", b"cache-control", b"retry-after", b"x-request-id", OWN_ID.encode(),
     b"x-accel-buffering", b"www-authenticate"}
)  # fmt: skip
logger = logging.getLogger("ingot.router")


async def pass_on(send: Send, path: str, answer: Answer) -> bool:
    """All of an answer; whether it came to its end.

    Raises UpstreamError where it breaks off before any of it was sent.
    """
    if answer.is_stream:
        return await _send_stream(send, answer, path)
    await _send_whole(send, answer, await _read_whole(answer))
    return True


async def _read_whole(answer: Answer) -> bytes:
    """The body; raises UpstreamError."""
    body = bytearray()
    async for piece in answer.body:
        body += piece
        if len(body) > MAX_ANSWER_BYTES:
            raise UpstreamError("its answer is too large")
    return bytes(body)


async def _send_whole(send: Send, answer: Answer, body: bytes) -> None:
    """An answer that was read."""
    await _start(send, answer, [(b"content-length", str(len(body)).encode())])
    await send_body(send, body)


async def _send_stream(send: Send, answer: Answer, path: str) -> bool:
    """Each event at once; whether the stream came to its end."""
    await _start(send, answer, [])
    broken = b""
    try:
        async for events in _whole_events(answer.body):
            await send({"type": "http.response.body", "body": events, "more_body": True})
    except UpstreamError as error:
        logger.warning("A stream broke off: %s.", error)
        broken = _last_words(path)
    await send({"type": "http.response.body", "body": broken})
    return not broken


async def _whole_events(pieces: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    """The same bytes, cut where events end; what breaks off inside an event is not given."""
    held = b""
    async for piece in pieces:
        held += piece
        end = max(held.rfind(b"\n\n") + 2, held.rfind(b"\n\r\n") + 3)
        if end > 2 or held.startswith(b"\n\n"):
            yield held[:end]
            held = held[end:]
        if len(held) > MAX_EVENT_BYTES:
            raise UpstreamError("one of its events is too large")
    if held:
        yield held


async def _start(send: Send, answer: Answer, more: list[tuple[bytes, bytes]]) -> None:
    headers = [(name, value) for name, value in answer.headers if name in _PASSED_ON]
    start = {"type": "http.response.start", "status": answer.status, "headers": headers + more}
    await send(start)


def _last_words(path: str) -> bytes:
    """The error, as clients of each API expect one within a stream."""
    detail = ErrorDetail("The server that answered was lost.", "internal_server_error")
    if path.startswith("/cohere/"):
        lost = {"finish_reason": "ERROR", "error": detail.message}
        return event({"type": "message-end", "delta": lost}) + b"data: [DONE]\n\n"
    if path.startswith("/v1/messages"):
        return b"event: error\n" + event({"type": "error", "error": detail})
    if path.startswith("/v1/responses"):
        said = {"type": "error", "code": detail.code, "message": detail.message, "param": None}
        return b"event: error\n" + event(said)
    return event(ErrorBody(detail)) + b"data: [DONE]\n\n"
