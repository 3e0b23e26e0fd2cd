"""Settings that change how requests are understood and answered, each seen in an answer."""

import json
import shutil
from pathlib import Path

import pytest

from engine.config import EngineConfig
from engine.errors import ConfigError
from engine.model_files import located, tokenizer_folder
from serve.model import load_served_model
from serve.settings import ServerSettings, StructuredOutputsConfig
from tests.serve.conftest import TEMPLATE
from tests.serve.served import Serve, event_data

pytestmark = pytest.mark.anyio
SHOUTS = "{{ shout }}{{ calm }}{{ messages[0].content }}"
PARTS = "{{ messages[0].content if messages[0].content is string else 'parts' }}"


async def test_no_more_logprobs_are_given_than_the_server_allows(serve: Serve) -> None:
    async with serve(ServerSettings(max_logprobs=2)) as served:
        allowed = [
            await served.complete(prompt="a", max_tokens=1, logprobs=2),
            await served.chat("a", max_tokens=1, logprobs=True, top_logprobs=2),
        ]
        refused = [
            await served.complete(prompt="a", max_tokens=1, logprobs=3),
            await served.complete(prompt="a", max_tokens=1, prompt_logprobs=3),
            await served.chat("a", max_tokens=1, logprobs=True, top_logprobs=3),
            await served.post(
                "/generate", text="a", return_logprob=True, top_logprobs_num=3,
                sampling_params={"max_new_tokens": 1},
            ),
        ]  # fmt: skip
    assert [each.status_code for each in allowed] == [200, 200]
    errors = [each.json()["error"] for each in refused]
    names = ["logprobs", "prompt_logprobs", "top_logprobs", "top_logprobs_num"]
    assert [error["param"] for error in errors] == names
    assert all("at most 2 here" in error["message"] for error in errors)


async def test_turns_have_the_role_that_is_set(serve: Serve) -> None:
    turns = [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]
    async with serve(ServerSettings(response_role="model")) as served:
        whole = await served.chat("Hi", max_tokens=1)
        chunks = event_data((await served.chat("Hi", max_tokens=1, stream=True)).text)
        continued = await served.post(
            "/v1/chat/completions", messages=turns, max_tokens=1, continue_final_message=True,
            echo=True,
        )  # fmt: skip
    assert whole.json()["choices"][0]["message"]["role"] == "model"
    assert chunks[0]["choices"][0]["delta"]["role"] == "model"
    message = continued.json()["choices"][0]["message"]
    assert message["role"] == "assistant" and message["content"].startswith("b")


async def test_templates_get_what_requests_do_not_say(serve: Serve) -> None:
    settings = ServerSettings(
        chat_template=SHOUTS, default_chat_template_kwargs={"shout": "HEY ", "calm": "ho "}
    )
    async with serve(settings) as served:
        said = [
            await served.chat("x", max_tokens=1, return_prompt_text=True),
            await served.chat(
                "x", max_tokens=1, return_prompt_text=True, chat_template_kwargs={"calm": ""}
            ),
        ]
    assert [each.json()["prompt_text"] for each in said] == ["HEY ho x", "HEY x"]


def test_a_default_that_no_template_reads_is_refused(model_folder: Path) -> None:
    settings = ServerSettings(default_chat_template_kwargs={"loud": True})
    with pytest.raises(ConfigError, match="no variable 'loud'"):
        load_served_model(model_folder, "tiny", settings)


@pytest.mark.parametrize(("form", "text"), [("auto", "x"), ("string", "x"), ("openai", "parts")])
async def test_messages_have_the_form_that_is_set(serve: Serve, form: str, text: str) -> None:
    settings = ServerSettings(chat_template=PARTS, chat_template_content_format=form)  # type: ignore[arg-type]
    async with serve(settings) as served:
        said = await served.chat("x", max_tokens=1, return_prompt_text=True)
    assert said.json()["prompt_text"] == text


async def test_sampling_defaults_of_the_operator_go_before_the_models(serve: Serve) -> None:
    override = {"temperature": 0.25, "max_new_tokens": 3}
    async with serve(ServerSettings(override_generation_config=override)) as served:
        answer = await served.chat("Hi")
        [request] = served.core.added
    assert (request.params.temperature, request.params.top_p) == (0.25, 0.9)
    assert answer.json()["usage"]["completion_tokens"] == 3


async def test_json_is_written_as_the_operator_says(serve: Serve) -> None:
    config = StructuredOutputsConfig(disable_any_whitespace=True)
    sources = []
    for settings in (ServerSettings(), ServerSettings(structured_outputs_config=config)):
        async with serve(settings) as served:
            for body in ({"json": {"type": "object"}}, {"regex": "a+"}):
                answer = await served.complete(prompt="a", max_tokens=1, structured_outputs=body)
                assert answer.status_code == 200
            sources.append([each.grammar for each in served.core.added])
    loose, tight = sources
    assert loose[0] != tight[0] and loose[1] == tight[1]


async def test_the_server_is_found_below_its_root_path(serve: Serve) -> None:
    settings = ServerSettings(root_path="/models/small", api_keys=("k",), admin_api_key="a")
    async with serve(settings) as served:
        get = served.http.get
        for prefix in ("", "/models/small"):
            assert (await get(f"{prefix}/health")).status_code == 200
            assert (await get(f"{prefix}/v1/models")).status_code == 401
            refused = await get(f"{prefix}/admin/state", headers={"x-api-key": "k"})
            assert refused.status_code == 401
            listed = await get(f"{prefix}/v1/models", headers={"x-api-key": "k"})
            assert listed.json()["data"][0]["id"] == "tiny"
        beside = await get("/models/smaller/health", headers={"x-api-key": "k"})
        page = (await get("/models/small")).text
        api = (await get("/openapi.json", headers={"x-api-key": "k"})).json()
        metrics = (await get("/metrics")).text
    assert beside.status_code == 404 and api["servers"] == [{"url": "/models/small"}]
    assert 'src="/models/small/pages/common.js"' in page and 'data-root="/models/small/"' in page
    assert 'handler="/v1/models",method="GET",status="2xx"} 2.0' in metrics


async def test_an_id_of_the_client_is_repeated_if_that_is_set_and_it_is_plain(serve: Serve) -> None:
    for repeat in (False, True):
        async with serve(ServerSettings(enable_request_id_headers=repeat)) as served:
            for sent, plain in (("abc-1.2_3:4", True), ("a b", False), ("x" * 129, False)):
                answer = await served.http.get("/version", headers={"x-request-id": sent})
                assert (answer.headers["x-request-id"] == sent) == (repeat and plain)


async def test_a_tokenizer_may_lie_elsewhere(
    serve: Serve, model_folder: Path, tmp_path: Path
) -> None:
    bare, words = tmp_path / "model", tmp_path / "words"
    bare.mkdir()
    words.mkdir()
    for path in model_folder.iterdir():
        target = words if path.name.startswith("tokenizer") else bare
        shutil.copy(path, target)
    (words / "tokenizer_config.json").write_text(
        json.dumps({"eos_token": "<|im_end|>", "chat_template": TEMPLATE + "!"})
    )
    config = located(EngineConfig(model=str(bare), tokenizer=str(words)))
    assert tokenizer_folder(config) == words
    model = load_served_model(bare, "tiny", ServerSettings(), tokenizer_folder(config))
    assert model.tokenizer is not None and model.template is not None
    assert model.template.render([{"role": "user", "content": "x"}]).endswith("!")
    assert load_served_model(bare, "tiny", ServerSettings()).tokenizer is None
