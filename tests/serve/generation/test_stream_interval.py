"""`stream_interval`: the first chunk and the last at once, those between of so many tokens."""

from typing import Any

import openai
import pytest

from engine.outputs import OutputDelta
from models.errors import IngotError
from serve.generation.streams import RequestStream
from serve.settings import ServerSettings
from tests.serve.served import Serve, Served, event_data

pytestmark = pytest.mark.anyio
SENTENCE = "abcdefghij"  # the core repeats it, a letter a token


async def sizes(served: Served, **fields: Any) -> list[int]:
    """How many tokens each chunk of a completion has."""
    given = {"prompt": SENTENCE, "max_tokens": 10, "stream": True, "return_token_ids": True}
    response = await served.complete(**given, **fields)
    *chunks, done = event_data(response.text)
    assert done == "[DONE]"
    assert "".join(chunk["choices"][0]["text"] for chunk in chunks) == SENTENCE
    return [len(chunk["choices"][0]["token_ids"]) for chunk in chunks]


async def test_chunks_have_so_many_tokens(serve: Serve) -> None:
    async with serve() as served:
        assert await sizes(served, stream_interval=4) == [1, 4, 4, 1]
        assert await sizes(served, stream_interval=100) == [1, 9]
        assert await sizes(served) == [1] * 10
    async with serve(ServerSettings(stream_interval=3)) as served:
        assert await sizes(served) == [1, 3, 3, 3]
        assert await sizes(served, stream_interval=1) == [1, 3, 3, 3]
        assert await sizes(served, stream_interval=5) == [1, 5, 4]


async def test_every_choice_has_its_own(serve: Serve) -> None:
    async with serve() as served:
        response = await served.complete(
            prompt=SENTENCE, n=2, max_tokens=6, stream=True, stream_interval=3, logprobs=1
        )
    *chunks, _ = event_data(response.text)
    for index in (0, 1):
        mine = [c["choices"][0] for c in chunks if c["choices"][0]["index"] == index]
        assert [choice["text"] for choice in mine] == ["a", "bcd", "ef"]
        assert [choice["logprobs"]["tokens"] for choice in mine] == [["a"], [*"bcd"], [*"ef"]]


async def test_all_streams_have_it(serve: Serve) -> None:
    """Chat through the official client, and SGLang's API."""
    async with serve() as served:
        client = openai.AsyncOpenAI(base_url="http://test/v1", api_key="x", http_client=served.http)
        stream = await client.chat.completions.create(
            model="tiny",
            messages=[{"role": "user", "content": "Hi there"}],
            stream=True,
            extra_body={"stream_interval": 6},
        )
        texts = [c.choices[0].delta.content async for c in stream if c.choices]
        options = {"max_new_tokens": 10, "stream_interval": 4}
        response = await served.post(
            "/generate", text=SENTENCE, stream=True, sampling_params=options
        )
    # the role; a token that is not shown; six; six more; the end of the turn
    assert texts == ["", "", "user\nH", "i there"[:6], "e"]
    chunks = event_data(response.text)[:-1]
    assert [chunk["text"] for chunk in chunks] == ["a", "abcde", "abcdefghi", SENTENCE]


async def test_what_waits_is_read_before_an_error() -> None:
    stream = RequestStream(["a"], 1, interval=9)
    for token in range(3):
        stream.put(OutputDelta(request_id="a", index=0, token_ids=[token]))
        if not token:
            reading = aiter(stream)
            assert (await anext(reading))[0].token_ids == [0]
    stream.fail(IngotError("It broke."))
    assert (await anext(reading))[0].token_ids == [1, 2]
    with pytest.raises(IngotError, match="It broke"):
        await anext(reading)


@pytest.mark.parametrize("interval", [0, -1])
async def test_less_than_one_is_refused(serve: Serve, interval: int) -> None:
    async with serve() as served:
        for response in (
            await served.complete(prompt="a", stream_interval=interval),
            await served.post("/generate", text="a", sampling_params={"stream_interval": interval}),
        ):
            assert response.json()["error"]["param"] == "stream_interval"
