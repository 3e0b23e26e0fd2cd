"""Adapters by name: the model of a request, lora_path, /v1/models, loading and unloading."""

import asyncio
import time

import httpx
import pytest
import typer
from prometheus_client.parser import text_string_to_metric_families

from engine.adapters.request import LoRARequest
from engine.config import EngineConfig
from engine.errors import ConfigError
from serve.adapters.names import AdapterNames
from serve.commands.adapter_options import parse_lora_modules
from serve.settings import ServerSettings
from tests.serve.served import Serve, Served, until

pytestmark = pytest.mark.anyio

SQL = LoRARequest("sql", 1, "/adapters/sql")
LAW = LoRARequest("law", 2, "/adapters/law", "base/model")
CONFIG = EngineConfig(enable_lora=True, lora_modules=(SQL, LAW))
SHORT = {"max_tokens": 2}


def asked(served: Served) -> LoRARequest | None:
    return served.core.added[-1].lora


async def test_every_api_takes_an_adapter_s_name_for_its_model(serve: Serve) -> None:
    async with serve(config=CONFIG) as served:
        text = (await served.complete(prompt="ab", model="sql", **SHORT)).json()
        assert (text["model"], asked(served)) == ("sql", SQL)
        talk = (await served.chat(model="law", **SHORT)).json()
        assert (talk["model"], asked(served)) == ("law", LAW)
        one = await served.post("/v1/responses", input="ab", model="sql", max_output_tokens=2)
        assert (one.json()["model"], asked(served)) == ("sql", SQL)
        turn = [{"role": "user", "content": "a"}]
        said = await served.post("/v1/messages", messages=turn, model="law", **SHORT)
        assert (said.json()["model"], asked(served)) == ("law", LAW)
        beams = {"use_beam_search": True, "n": 2, "temperature": 0}
        assert (await served.complete(prompt="ab", model="sql", **SHORT, **beams)).is_success
        assert asked(served) == SQL
        counted = await served.post("/v1/messages/count_tokens", messages=turn, model="sql")
        ids = await served.post("/tokenize", prompt="ab", model="sql")
        assert counted.is_success and ids.is_success
        plain = (await served.complete(prompt="ab", model="tiny", **SHORT)).json()
        assert (plain["model"], asked(served)) == ("tiny", None)
        wrong = await served.complete(prompt="ab", model="sqk", **SHORT)
        assert wrong.status_code == 404 and wrong.json()["error"]["param"] == "model"
        assert "'tiny', 'sql', 'law' are" in wrong.json()["error"]["message"]


async def test_sglang_s_field_names_one_too(serve: Serve) -> None:
    async with serve(config=CONFIG) as served:
        short = {"sampling_params": {"max_new_tokens": 2}}
        await served.post("/generate", text="ab", lora_path="sql", **short)
        assert asked(served) == SQL
        both = await served.post("/generate", text=["a", "b"], lora_path=["law", None], **short)
        assert both.is_success
        assert [each.lora for each in served.core.added[-2:]] == [LAW, None]
        await served.chat(lora_path="law", **SHORT)
        assert asked(served) == LAW
        few = await served.post("/generate", text=["a", "b"], lora_path=["law"], **short)
        unknown = await served.post("/generate", text="ab", lora_path="nobody", **short)
        two = await served.chat(model="sql", lora_path="law", **SHORT)
    found = [(each.status_code, each.json()["error"]["param"]) for each in (few, unknown, two)]
    assert found == [(400, "lora_path"), (404, "lora_path"), (400, "lora_path")]


async def test_they_are_listed_beside_the_model(serve: Serve) -> None:
    async with serve(config=CONFIG) as served:
        cards = (await served.http.get("/v1/models")).json()["data"]
        one = (await served.http.get("/v1/models/law")).json()
    assert [(card["id"], card["root"], card["parent"]) for card in cards] == [
        ("tiny", "tiny", None), ("sql", "/adapters/sql", "tiny"),
        ("law", "/adapters/law", "base/model"),
    ]  # fmt: skip
    assert one == cards[2]


async def test_an_operator_loads_and_unloads_them(serve: Serve) -> None:
    settings = ServerSettings(api_keys=("user",), admin_api_key="admin")
    async with serve(settings, CONFIG) as served:

        async def post(path: str, key: str = "admin", **body: object) -> tuple[int, str]:
            headers = {"authorization": f"Bearer {key}"}
            answer = await served.http.post(path, json=body, headers=headers)
            return answer.status_code, answer.text

        new = {"lora_name": "new", "lora_path": "somewhere"}
        load, unload = "/v1/load_lora_adapter", "/v1/unload_lora_adapter"
        assert (await post(load, "user", **new))[0] == 401
        assert (await post(load, **new))[0] == 200
        assert (await post("/v1/completions", "user", prompt="a", model="new", **SHORT))[0] == 200
        first = asked(served)
        assert first is not None and first.lora_int_id > 2 and first.lora_path == "somewhere"
        assert "is served already" in (await post(load, **new))[1]
        assert (await post(load, **new, load_inplace=True))[0] == 200
        assert (await post("/v1/completions", "user", prompt="a", model="new", **SHORT))[0] == 200
        assert asked(served) != first  # what was computed with the first is not found again
        status, text = await post(load, lora_name="bad", lora_path="nowhere")
        assert status == 400 and "nowhere has no adapter_config.json." in text
        assert (await post("/v1/completions", "user", prompt="a", model="bad"))[0] == 404
        assert (await post(unload, lora_name="new"))[0] == 200
        assert (await post(unload, lora_name="new"))[0] == 404
        at_once = await asyncio.gather(post(load, **new), post(load, **new))
        assert sorted(status for status, _ in at_once) == [200, 400]
        assert (await post(unload, lora_name="new"))[0] == 200
        for path in ("a/" + "b" * 5000, "a/b--c"):
            status, text = await post(load, lora_name="wrong", lora_path=path)
            assert status == 400 and "the hub has no such names" in text
        assert (await post("/v1/completions", "user", prompt="a", model="new"))[0] == 404


async def test_what_a_name_stands_for_changes_in_the_order_of_asking(serve: Serve) -> None:
    """Also where the first takes long, and where its client does not wait for the answer."""
    load, unload = "/v1/load_lora_adapter", "/v1/unload_lora_adapter"
    async with serve(config=CONFIG) as served:
        with served.engine_stopped():
            first = asyncio.create_task(served.post(load, lora_name="new", lora_path="a"))
            await until(lambda: served.engine._calls._waiters)
            second = asyncio.create_task(served.post(unload, lora_name="new"))
            await asyncio.sleep(0.05)
            assert not second.done()
        assert (await first).status_code == (await second).status_code == 200
        with served.engine_stopped():
            gone = asyncio.create_task(served.post(load, lora_name="new", lora_path="a"))
            await asyncio.sleep(0.05)
            gone.cancel()
        assert (await served.post(load, lora_name="new", lora_path="b")).status_code == 200
        await served.complete(prompt="ab", model="new", **SHORT)
        found = asked(served)
        assert found is not None and found.lora_path == "b"


async def test_metrics_say_whose_requests_run_and_wait(serve: Serve) -> None:
    async def told(served: Served) -> dict[str, str]:
        text = (await served.http.get("/metrics")).text
        families = text_string_to_metric_families(text)
        [family] = [each for each in families if each.name == "vllm:lora_requests_info"]
        [sample] = family.samples
        assert abs(sample.value - time.time()) < 60
        return sample.labels

    nobody = {"max_lora": "3", "running_lora_adapters": "", "waiting_lora_adapters": ""}
    config = EngineConfig(
        enable_lora=True, max_loras=3, max_num_seqs=2, lora_modules=CONFIG.lora_modules
    )
    async with serve(config=config) as served:
        served.core.step_seconds = 0.1
        assert await told(served) == nobody

        def ask(name: str) -> asyncio.Task[httpx.Response]:
            text = served.complete(prompt="ab", model=name, max_tokens=100, ignore_eos=True)
            return asyncio.create_task(text)

        texts = [ask(name) for name in ("law", "sql")]
        await until(lambda: served.engine.flights.adapters_at_work()[0] == {"law", "sql"})
        texts += [ask(name) for name in ("tiny", "law")]  # for which there are no rows
        await until(lambda: served.engine.flights.adapters_at_work()[1] == {"law"})
        assert await told(served) == nobody | {
            "running_lora_adapters": "law,sql", "waiting_lora_adapters": "law",
        }  # fmt: skip
        for text in texts:
            text.cancel()
        await asyncio.gather(*texts, return_exceptions=True)
        assert await told(served) == nobody
    async with serve() as served:
        assert "lora_requests_info" not in (await served.http.get("/metrics")).text


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "models.example.org"])
async def test_strangers_load_none_from_a_server_without_a_key(serve: Serve, host: str) -> None:
    async with serve(ServerSettings(host=host), CONFIG) as served:
        load = await served.post("/v1/load_lora_adapter", lora_name="a", lora_path="/etc")
        unload = await served.post("/v1/unload_lora_adapter", lora_name="sql")
        assert (await served.complete(prompt="ab", model="sql", **SHORT)).is_success
    for answer in (load, unload):
        assert answer.status_code == 403 and "--admin-api-key" in answer.text
    async with serve(ServerSettings(host="::1"), CONFIG) as served:
        local = await served.post("/v1/load_lora_adapter", lora_name="a", lora_path="b")
    assert local.status_code == 200


async def test_a_server_without_room_for_any_loads_none(serve: Serve) -> None:
    async with serve() as served:
        answer = await served.post("/v1/load_lora_adapter", lora_name="a", lora_path="b")
    assert answer.status_code == 400 and "--enable-lora" in answer.text


def test_the_flag_takes_names_with_paths_and_json() -> None:
    found = parse_lora_modules(["a=b=c", '{"name": "d", "path": "e", "base_model_name": "f"}'])
    found += parse_lora_modules(['[{"name": "g", "path": "h"}]'])
    assert [(each["lora_name"], each["lora_path"], each["base_model_name"]) for each in found] == [
        ("a", "b=c", None), ("d", "e", "f"), ("g", "h", None),
    ]  # fmt: skip
    assert [each["lora_int_id"] for each in found] == [1, 2, 1]
    for wrong in ("a", "=b", "a=", '{"name": "a"}', '{"name": "a", "path": "b", "rank": 1}'):
        with pytest.raises(typer.BadParameter, match="--lora-modules"):
            parse_lora_modules([wrong])
    with pytest.raises(ConfigError, match="as the model is"):
        AdapterNames([SQL], ["sql"])
