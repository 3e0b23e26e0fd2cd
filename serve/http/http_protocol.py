"""uvicorn's h11 protocol, hardened: deadlines for clients, and a clean end of broken requests.

uvicorn limits how large headers are, not how slowly they come; a client that sends a byte now and
then would hold its connection for ever, and so would one that reads nothing. And it answers a
broken body with 400 while the application still works on the request; here the application is told
that the client is gone.

Pieces of a stream take a short way past h11, which judges each as if it were the first.
"""

import asyncio
import socket
from contextlib import suppress
from math import inf
from typing import Any

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol

from serve.http.linger import linger

MAX_HEADER_BYTES = 64 * 1024
HEADER_SECONDS = 20.0
UPGRADED = "/v1/realtime"  # the end of the only path at which a connection becomes a WebSocket
STALLED_SECONDS = 120.0  # a client that reads nothing for so long is gone
FREE_PIECES = 1000  # of a body, however small; reading one is up to 60 us of the loop's time
MIN_PIECE_BYTES = 256  # what those of a longer body must have, on average


class StreamingConnection(h11.Connection):
    """The server's end of HTTP/1.1, which frames what is sent; h11 decides how, once a response.

    A body of a million chunks is refused: it is 6 MB, and h11 would read it for a minute.
    """

    _chunked = False
    _pieces = _bytes = 0  # of the body that is being read
    why_refused = ""

    def next_event(self) -> Any:
        """What the client said next; raises RemoteProtocolError where it is no HTTP."""
        event = super().next_event()
        if type(event) is h11.Data:
            self._pieces += 1
            self._bytes += len(event.data)
            if self._bytes < MIN_PIECE_BYTES * (self._pieces - FREE_PIECES):
                self.why_refused = "The body came in too many small pieces; send larger ones."
                raise h11.RemoteProtocolError(self.why_refused)
        elif type(event) is h11.Request:
            self._pieces = self._bytes = 0
        return event

    def send(self, event: h11.Event) -> Any:
        """The bytes of `event`, None for the end of the connection; raises LocalProtocolError."""
        streaming = self._chunked and self.our_state is h11.SEND_BODY
        if streaming and type(event) is h11.Data and event.data:
            return b"%x\r\n%b\r\n" % (len(event.data), event.data)
        data = super().send(event)
        if data and type(event) is h11.Response:
            self._chunked = b"\r\ntransfer-encoding: chunked\r\n" in data.lower()
        return data


class HardenedProtocol(H11Protocol):
    """One connection."""

    conn: StreamingConnection
    _header_deadline: asyncio.TimerHandle | None = None
    _reading_deadline: asyncio.TimerHandle | None = None
    _kept: socket.socket | None = None  # of a connection that closes under who still sends

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.conn = StreamingConnection(h11.SERVER, MAX_HEADER_BYTES)

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._arm()

    def data_received(self, data: bytes) -> None:
        scope_before = self.scope
        super().data_received(data)
        if self.scope is not scope_before:
            self._disarm()
        elif self._between_requests() and self.conn.trailing_data[0]:
            self._arm()

    def pause_writing(self) -> None:
        super().pause_writing()
        self._expect_reading()

    def resume_writing(self) -> None:
        self._expect_nothing()
        super().resume_writing()

    def connection_lost(self, exc: Exception | None) -> None:
        self._disarm()
        self._expect_nothing()
        super().connection_lost(exc)
        if self._kept is not None:
            linger(self._kept)

    def on_response_complete(self) -> None:
        super().on_response_complete()
        self._keep_if_closing()
        if self._between_requests() and self._is_still_sending():  # no body of the next request
            self._arm()  # for the rest of a body that nobody reads

    def send_400_response(self, msg: str) -> None:
        if not self._between_requests():
            self.cycle.disconnected = True
            self.cycle.message_event.set()
        if self.conn.our_state in (h11.IDLE, h11.SEND_RESPONSE):
            super().send_400_response(self.conn.why_refused or msg)
        else:
            self.transport.close()
        self._keep_if_closing()

    def _should_upgrade(self) -> bool:
        """Elsewhere the wish is passed over, as HTTP/1.1 has it."""
        path: str = self.scope["path"]
        wished = self._get_upgrade() == b"websocket" and path.endswith(UPGRADED)
        return wished and self._should_upgrade_to_ws()

    def _expect_reading(self, before: float = inf) -> None:
        """End the connection unless fewer bytes are unread than `before`; look again later."""
        unread = self.transport.get_write_buffer_size()
        if unread >= before:
            self.transport.abort()
            return
        self._reading_deadline = self.loop.call_later(STALLED_SECONDS, self._expect_reading, unread)

    def _expect_nothing(self) -> None:
        if self._reading_deadline is not None:
            self._reading_deadline.cancel()
            self._reading_deadline = None

    def _keep_if_closing(self) -> None:
        """Before TLS lets go of its socket, which it does before it says so."""
        if self._kept is None and self.transport.is_closing() and self._is_still_sending():
            with suppress(OSError):  # of a process without another descriptor
                self._kept = self.transport.get_extra_info("socket").dup()

    def _is_still_sending(self) -> bool:
        return self.conn.their_state in (h11.SEND_BODY, h11.ERROR)

    def _between_requests(self) -> bool:
        return self.cycle is None or self.cycle.response_complete

    def _arm(self) -> None:
        if self._header_deadline is None:
            self._header_deadline = self.loop.call_later(HEADER_SECONDS, self.transport.close)

    def _disarm(self) -> None:
        if self._header_deadline is not None:
            self._header_deadline.cancel()
            self._header_deadline = None
