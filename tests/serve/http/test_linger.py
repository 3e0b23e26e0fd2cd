"""Connections that end under a client who still sends."""

import asyncio
import socket

import pytest

from serve.http import linger as module
from serve.http.linger import linger

pytestmark = pytest.mark.anyio


async def test_no_more_of_them_are_kept_than_may_be(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each is a descriptor, and clients can make them faster than they end."""
    monkeypatch.setattr(module, "MAX_LINGERING", 1)
    (kept, client), (closed, other) = socket.socketpair(), socket.socketpair()
    for end in (kept, closed):
        end.setblocking(False)
    with client, other:
        linger(kept)
        linger(closed)
        assert closed.fileno() == -1 and kept.fileno() != -1
        client.sendall(b"still more")
        client.shutdown(socket.SHUT_WR)
        while module._lingering:
            await asyncio.sleep(0)
        assert client.recv(1) == other.recv(1) == b""
    assert kept.fileno() == -1
