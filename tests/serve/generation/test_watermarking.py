"""watermarking over HTTP: which requests reach the engine with it, and which cannot."""

from typing import Any

import pytest

from engine.config import EngineConfig
from engine.watermarking.config import WatermarkConfig
from tests.serve.operations.test_metrics import samples
from tests.serve.served import Serve

pytestmark = pytest.mark.anyio
KEY = 1234567890123456789
CONFIG = EngineConfig(watermark_config=WatermarkConfig(key=KEY))
HI = [{"role": "user", "content": "Hi"}]
ROUTES: dict[str, dict[str, Any]] = {
    "/v1/chat/completions": {"messages": HI},
    "/v1/completions": {"prompt": "Hi"},
    "/v1/responses": {"input": "Hi"},
    "/v1/messages": {"messages": HI, "max_tokens": 3, "model": "tiny"},
    "/cohere/v2/chat": {"messages": HI, "model": "tiny"},
    "/inference/v1/generate": {"token_ids": [1]},
}


@pytest.mark.parametrize("path", ROUTES)
async def test_every_route_may_turn_it_off(path: str, serve: Serve) -> None:
    async with serve(config=CONFIG) as served:
        for wanted in ({}, {"watermarking": True}, {"watermarking": False}):
            body = {**ROUTES[path], **wanted}
            if "token_ids" in body:
                body = {**ROUTES[path], "sampling_params": wanted}
            response = await served.post(path, **body)
            assert response.status_code == 200, response.text
    marked = [message.params.watermarking for message in served.core.added]
    assert marked == [True, True, False]


@pytest.mark.parametrize("wanted", [True, False])
async def test_sglangs_form_of_it(serve: Serve, wanted: bool) -> None:
    field = {"watermark": {"enabled": wanted}}
    async with serve(config=CONFIG) as served:
        answers = [
            await served.chat("Hi", **field),
            await served.complete(prompt="Hi", **field),
            await served.post("/generate", text="Hi", **field),
            await served.post("/generate", text="Hi", sampling_params=field),
        ]
    assert [answer.status_code for answer in answers] == [200] * 4, answers[0].text
    assert [message.params.watermarking is True for message in served.core.added] == [wanted] * 4


async def test_of_two_places_it_can_stand_in_one(serve: Serve) -> None:
    field = {"watermark": {"enabled": True}}
    async with serve(config=CONFIG) as served:
        answer = await served.post("/generate", text="Hi", sampling_params=field, **field)
    error = answer.json()["error"]
    assert answer.status_code == 400 and error["param"] == "watermark"
    assert "sampling_params" in error["message"]


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"watermark": {"key": 12345}}, "--watermark-config"),
        ({"watermark": {"enabled": True, "context_window": 2}}, "context_window"),
        ({"watermark": {}}, "enabled"),
        ({"watermark": {"enabled": True}, "watermarking": False}, "the same"),
        ({"watermark": {"enabled": True}, "temperature": 0}, "watermark needs a temperature"),
        ({"watermark": {"enabled": True}, "use_beam_search": True}, "use_beam_search"),
    ],
)
async def test_what_that_cannot_say(serve: Serve, fields: dict[str, Any], said: str) -> None:
    async with serve(config=CONFIG) as served:
        error = (await served.chat("Hi", **fields)).json()["error"]
        message = (await served.post("/v1/responses", input="Hi", watermark={})).json()["error"]
    assert error["param"] == message["param"] == "watermark" and said in error["message"]
    assert "12345" not in error["message"]


async def test_requests_are_counted_by_what_became_of_them(serve: Serve) -> None:
    async with serve(config=CONFIG) as served:
        await served.chat(n=2)
        await served.chat(temperature=0)
        await served.chat(use_beam_search=True, n=1)
        await served.chat(watermarking=False)
        values = samples((await served.http.get("/metrics")).text)
    found = {
        status: values[f"vllm:watermark_requests_total{{'status': '{status}'}}"]
        for status in ("watermarked", "skipped", "not_watermarked")
    }
    assert found == {"watermarked": 2, "skipped": 2, "not_watermarked": 1}


async def test_what_draws_nothing_cannot_have_one(serve: Serve) -> None:
    async with serve(config=CONFIG) as served:
        cold = await served.chat(temperature=0, watermarking=True)
        silent = await served.chat(temperature=0)
        beams = await served.chat(use_beam_search=True, n=2, watermarking=True)
    assert silent.status_code == 200
    for response in (cold, beams):
        assert response.status_code == 400
        assert response.json()["error"]["param"] == "watermarking"


async def test_a_prediction_is_a_hint_that_a_watermark_does_not_take(serve: Serve) -> None:
    hint = {"prediction": {"type": "content", "content": "abc"}}
    async with serve(config=CONFIG) as served:
        answers = [
            await served.chat(**hint, **more)
            for more in ({}, {"watermarking": False}, {"temperature": 0})
        ]
    assert {answer.status_code for answer in answers} == {200}
    given = [bool(message.prediction_token_ids) for message in served.core.added]
    assert given == [False, True, True]


async def test_a_server_without_a_key_says_so(serve: Serve) -> None:
    async with serve() as served:
        asked = await served.complete(prompt="Hi", watermarking=True)
        unasked = await served.complete(prompt="Hi", watermarking=False)
        metrics = (await served.http.get("/metrics")).text
    assert unasked.status_code == 200
    assert asked.status_code == 400
    assert "--watermark-config" in asked.json()["error"]["message"]
    assert "watermark_requests_total{" not in metrics


async def test_nobody_is_told_the_key(serve: Serve) -> None:
    """Nor given what it could be found by, as a digest is."""
    fingerprints = []
    for key in (KEY, KEY + 1):
        config = EngineConfig(watermark_config=WatermarkConfig(key=key))
        async with serve(config=config) as served:
            told = (await served.http.get("/server_info")).text
            answer = (await served.complete(prompt="Hi")).json()
        assert "context_width" in told and str(key) not in told
        fingerprints.append(answer["system_fingerprint"])
    assert len(set(fingerprints)) == 1
