"""/invocations and /ping: what Amazon SageMaker asks a container for."""

from typing import Any

import pytest

from serve.settings import ServerSettings
from tests.serve.served import Serve, event_data

pytestmark = pytest.mark.anyio
PATH = "/invocations"
TURN = [{"role": "user", "content": "Hi"}]


@pytest.mark.parametrize(
    ("fields", "kind"),
    [
        ({"messages": TURN}, "chat.completion"),
        ({"prompt": "a", "max_tokens": 2}, "text_completion"),
        ({"query": [5], "items": [[6]], "label_token_ids": [7]}, "scoring"),
    ],
)
async def test_the_fields_show_what_is_asked_for(
    serve: Serve, fields: dict[str, Any], kind: str
) -> None:
    async with serve() as served:
        answer = await served.post(PATH, **fields)
    assert answer.status_code == 200 and answer.json()["object"] == kind


async def test_answers_are_streamed(serve: Serve) -> None:
    async with serve() as served:
        answer = await served.post(PATH, messages=TURN, stream=True)
    *chunks, done = event_data(answer.text)
    assert chunks[0]["object"] == "chat.completion.chunk" and done == "[DONE]"


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        ({}, "what is asked for"),
        ({"messages": TURN, "temperature": -1}, "temperature must"),
        ({"input": "a"}, "started to write text"),
        ({"text_1": "a", "text_2": "b"}, "started to write text"),
        ({"query": "a", "documents": ["b"]}, "started to write text"),
    ],
)
async def test_errors_are_the_route_s(serve: Serve, fields: dict[str, Any], says: str) -> None:
    async with serve() as served:
        answer = await served.post(PATH, **fields)
        array = await served.http.post(PATH, json=[])
    assert answer.status_code == 400 and says in answer.json()["error"]["message"]
    assert array.status_code == 400 and "Expected object" in array.json()["error"]["message"]


async def test_the_limits_of_the_server_hold(serve: Serve) -> None:
    async with serve(ServerSettings(max_body_bytes=1024, api_keys=("key",))) as served:
        assert (await served.post(PATH, prompt="a")).status_code == 401
        headers = {"authorization": "Bearer key"}
        large = await served.http.post(PATH, json={"prompt": "a" * 2000}, headers=headers)
        assert large.status_code == 413
        assert (await served.http.post("/ping")).status_code == 200
