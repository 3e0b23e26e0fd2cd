"""/model_info, /tokenizer_info and /v1/loads."""

import asyncio

import pytest

from engine.config import EngineConfig
from tests.serve.conftest import TEMPLATE
from tests.serve.served import Serve, until

pytestmark = pytest.mark.anyio


async def test_a_model_describes_itself(serve: Serve) -> None:
    async with serve() as served:
        infos = [
            (await served.http.get(path)).json() for path in ("/model_info", "/get_model_info")
        ]
        tokenizer = (await served.http.get("/tokenizer_info")).json()
        older = (await served.http.get("/get_server_info")).json()
        sources = (await served.http.get("/kv_event_sources")).json()
        newer = (await served.http.get("/server_info")).json()
    assert infos[0] == infos[1] and older.keys() == newer.keys() and sources == {}
    assert infos[0]["is_generation"] and infos[0]["max_model_len"] == 128
    assert infos[0]["preferred_sampling_params"] == {"temperature": 0.5, "top_p": 0.9}
    assert (tokenizer["vocab_size"], tokenizer["eos_token"]) == (258, "<|im_end|>")
    assert tokenizer["added_tokens_decoder"]["257"]["content"] == "<|im_end|>"
    assert tokenizer["chat_template"] == TEMPLATE


async def test_loads_are_of_now(serve: Serve) -> None:
    async with serve() as served:
        served.core.step_seconds = 0.005
        running = asyncio.create_task(served.complete(prompt="ab", max_tokens=100))
        await until(lambda: served.engine.stats.num_running)
        [load] = (await served.http.get("/v1/loads")).json()["loads"]
        await running
        [rest] = (await served.http.get("/v1/loads")).json()["loads"]
    assert (load["num_running_reqs"], load["num_total_reqs"]) == (1, 1)
    assert (load["num_used_tokens"], load["max_total_num_tokens"]) == (16, 64 * 16)
    assert rest["num_total_reqs"] == 0


async def test_how_many_devices_there_are(serve: Serve) -> None:
    async with serve(config=EngineConfig(tensor_parallel_size=4)) as served:
        answers = [
            await served.http.get(f"/get_world_size{query}")
            for query in ("", "?include_dp=false", "?include_dp=2", "?dp=true")
        ]
    assert [each.status_code for each in answers] == [200, 200, 400, 400]
    assert answers[0].json() == answers[1].json() == {"world_size": 4}
