"""The end of a connection whose client is still sending, so that it can read its answer.

A socket that is closed with bytes unread resets the connection, and a reset takes from the client
what it had not read yet: it would see a broken connection in place of "413, the body is too
large", and try again. So the server says that it sends no more, and reads on for a while into
nothing (RFC 9112, section 9.6).
"""

import asyncio
import socket
from contextlib import suppress

LINGER_SECONDS = 5.0
MAX_LINGERING = 256  # each is a file descriptor; beyond, who still sends is reset
_NOTHING = bytearray(2**16)  # which nobody reads
_lingering: set[asyncio.Task[None]] = set()  # the loop holds its tasks weakly


def linger(connection: socket.socket) -> None:
    """Take over a duplicate of a closed transport's socket until the client ends, for
    LINGER_SECONDS at most; one of MAX_LINGERING, or it is closed at once."""
    if len(_lingering) >= MAX_LINGERING:
        connection.close()
        return
    task = asyncio.get_running_loop().create_task(_drain(connection))
    _lingering.add(task)
    task.add_done_callback(_lingering.discard)


async def _drain(connection: socket.socket) -> None:
    loop = asyncio.get_running_loop()
    with connection, suppress(OSError, TimeoutError):
        connection.shutdown(socket.SHUT_WR)
        async with asyncio.timeout(LINGER_SECONDS):
            while await loop.sock_recv_into(connection, _NOTHING):
                pass
