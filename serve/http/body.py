"""Reading a request's body: type, encoding, size and pace are checked before and while it arrives.

Every route that takes a body reads it here, so none can forget a limit. Nothing of the body is
ever repeated in an error.
"""

import asyncio

from starlette.datastructures import Headers
from starlette.types import Receive, Scope

from serve.errors import TransportError
from serve.http.disconnect import ClientDisconnected

BODY_SECONDS = 60.0
_OLLAMA = "/api/"  # whose own examples, and some clients, do not say that they send JSON
_OF_BROWSERS = ("origin", "sec-fetch-site")  # with every POST that another site's page sends


async def read_body(
    scope: Scope,
    receive: Receive,
    max_bytes: int,
    media: str = "application/json",
    *,
    may_be_empty: bool = False,
) -> bytes:
    """The whole body; raises TransportError (400, 408, 413, 415) or ClientDisconnected.

    `may_be_empty`: there may be none, which needs no header.
    """
    headers = Headers(scope=scope)
    if may_be_empty and headers.get("content-length", "0") == "0" and not _in_chunks(headers):
        return b""
    _check_headers(headers, max_bytes)
    if not (scope["path"].startswith(_OLLAMA) and _is_program(headers)):
        _check_media(headers, media)
    try:
        async with asyncio.timeout(BODY_SECONDS):
            return await _read(receive, max_bytes)
    except TimeoutError:
        raise TransportError(
            408, f"The body did not arrive within {BODY_SECONDS:.0f} seconds."
        ) from None


async def _read(receive: Receive, max_bytes: int) -> bytes:
    body = bytearray()
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise ClientDisconnected
        body += message.get("body", b"")
        if len(body) > max_bytes:
            raise _too_large(max_bytes)
        if not message.get("more_body", False):
            return bytes(body)


def _in_chunks(headers: Headers) -> bool:
    return "transfer-encoding" in headers


def _is_program(headers: Headers) -> bool:
    """A page may send a stranger's server a body of any type but JSON; a browser says it does."""
    return not any(name in headers for name in _OF_BROWSERS)


def _check_media(headers: Headers, media: str) -> None:
    if headers.get("content-type", "").partition(";")[0].strip().lower() != media:
        what = "JSON" if media.endswith("json") else "a form"
        raise TransportError(415, f"Send {what} with the header 'Content-Type: {media}'.")


def _check_headers(headers: Headers, max_bytes: int) -> None:
    length = headers.get("content-length")
    if length is not None and _in_chunks(headers):
        raise TransportError(400, "Send either Content-Length or Transfer-Encoding, not both.")
    if headers.get("content-encoding", "identity").strip().lower() != "identity":
        raise TransportError(415, "Compressed bodies are not accepted; send plain JSON.")
    if length is not None and length.isdecimal() and int(length[:20]) > max_bytes:
        raise _too_large(max_bytes)


def _too_large(max_bytes: int) -> TransportError:
    return TransportError(413, f"The body exceeds the limit of {max_bytes} bytes.")
