"""Answers that are whole: in pieces that wait for their client, over TLS as well."""

import asyncio
from typing import Any

import pytest
from starlette.types import Message

from serve.http import whole
from serve.http.endpoint import send_json
from serve.openai.tokenize import Tokens

pytestmark = pytest.mark.anyio


@pytest.mark.parametrize(("size", "pieces"), [(0, 1), (7, 1), (8, 1), (9, 2), (24, 3), (25, 4)])
async def test_all_of_it_is_sent_in_pieces(
    monkeypatch: pytest.MonkeyPatch, size: int, pieces: int
) -> None:
    monkeypatch.setattr(whole, "PIECE_BYTES", 8)
    sent: list[Any] = []

    async def send(message: Message) -> None:
        sent.append(message)

    body = bytes(range(size))
    await whole.send_body(send, body)
    assert b"".join(each["body"] for each in sent) == body
    assert [each.get("more_body", False) for each in sent] == [True] * (pieces - 1) + [False]


async def test_a_large_answer_waits_for_its_client() -> None:
    reading, sent = asyncio.Event(), 0

    async def send(message: Message) -> None:
        nonlocal sent
        sent += len(message.get("body", b""))
        if message.get("more_body"):
            await reading.wait()

    sending = asyncio.create_task(send_json(send, Tokens(10**6, 8, [1] * 10**6)))
    while not sent:
        await asyncio.sleep(0)
    assert sent == whole.PIECE_BYTES and not sending.done()
    reading.set()
    await sending
    assert sent > 2 * 10**6
