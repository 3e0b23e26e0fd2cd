"""`repetition_detection` in requests; the core repeats the prompt, over and over."""

import openai
import pytest

from tests.serve.served import Serve, event_data

pytestmark = pytest.mark.anyio
THRICE = {"max_pattern_size": 4, "min_pattern_size": 2, "min_count": 3}


@pytest.mark.parametrize("stream", [False, True])
async def test_an_answer_that_goes_round_ends(serve: Serve, stream: bool) -> None:
    async with serve() as served:
        response = await served.complete(
            prompt="abc", n=2, max_tokens=30, stream=stream, repetition_detection=THRICE
        )
        assert not served.core.has_work
        metrics = (await served.http.get("/metrics")).text
    said = event_data(response.text)[:-1] if stream else [response.json()]
    choices = [choice for each in said for choice in each["choices"]]
    for index in (0, 1):
        mine = [choice for choice in choices if choice["index"] == index]
        assert "".join(choice["text"] for choice in mine) == "abcabcabc"
        assert mine[-1]["finish_reason"] == "repetition"
        assert mine[-1]["stop_reason"] == "repetition_detected"
    assert 'finished_reason="repetition"' in metrics


async def test_the_official_client_sends_it(serve: Serve) -> None:
    async with serve() as served:
        client = openai.AsyncOpenAI(base_url="http://test/v1", api_key="x", http_client=served.http)
        answer = await client.chat.completions.create(
            model="tiny",
            messages=[{"role": "user", "content": "lalala, no"}],
            extra_body={"repetition_detection": THRICE},
        )
    assert answer.choices[0].message.content == "user\nlalala"
    assert answer.choices[0].finish_reason == "repetition"


@pytest.mark.parametrize(
    "wanted", [1, {"size": 2}, {"max_pattern_size": 2}, {"max_pattern_size": "2"}]
)
async def test_what_is_wrong_is_named(serve: Serve, wanted: object) -> None:
    async with serve() as served:
        response = await served.complete(prompt="a", repetition_detection=wanted)
    assert response.status_code == 400
    assert response.json()["error"]["param"] == "repetition_detection"
