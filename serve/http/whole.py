"""The body of an answer that is whole, however large it is and however slowly its client reads.

asyncio takes all of it at once for a connection with TLS, says that it has gone, and breaks the
connection off half a minute after it was closed, read or not. A body in pieces waits for its client
here instead, where the connection's own deadline holds (`serve.http.http_protocol`).
"""

from starlette.types import Send

PIECE_BYTES = 256 * 1024


async def send_body(send: Send, body: bytes) -> None:
    """All of `body`, and the end of the response; its length is among the headers."""
    at = 0
    while len(body) - at > PIECE_BYTES:
        piece = body[at : at + PIECE_BYTES]
        await send({"type": "http.response.body", "body": piece, "more_body": True})
        at += PIECE_BYTES
    await send({"type": "http.response.body", "body": body[at:]})
