"""`vllm_xargs`: arguments of logits processors, on their way to the engine."""

import pytest

from engine.errors import RequestError
from tests.serve.served import Serve

pytestmark = pytest.mark.anyio


@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/completions"])
async def test_arguments_travel(serve: Serve, path: str) -> None:
    conversation = {"messages": [{"role": "user", "content": "a"}]}
    prompt = conversation if "chat" in path else {"prompt": "a"}
    arguments = {"boost_token": 5, "boost": 1.5, "only": [1, 2], "invert": True}
    async with serve() as served:
        answer = await served.post(path, **prompt, max_tokens=1, vllm_xargs=arguments)
        none = await served.post(path, **prompt, max_tokens=1, vllm_xargs={})
        wrong = await served.post(path, **prompt, max_tokens=1, vllm_xargs={"a": "text"})
        beams = await served.post(path, **prompt, use_beam_search=True, vllm_xargs={"a": 1})
        sglang = await served.post(path, **prompt, max_tokens=1, custom_params=arguments)
        both = await served.post(path, **prompt, vllm_xargs={"a": 1}, custom_params={"a": 1})
        wrong_too = await served.post(path, **prompt, custom_params={"a": "text"})
        first, second, third = served.core.added
    assert answer.is_success and none.is_success and sglang.is_success
    assert first.params.extra_args == third.params.extra_args == arguments
    assert second.params.extra_args is None
    for refused in (both, wrong_too):
        assert refused.status_code == 400
        assert refused.json()["error"]["param"] == "custom_params"
    for refused in (wrong, beams):
        assert refused.status_code == 400
        assert refused.json()["error"]["param"] == "vllm_xargs"
    assert wrong.json()["error"]["message"].startswith("vllm_xargs.a must be a finite number")


async def test_messages_have_them_as_well(serve: Serve) -> None:
    body = {"model": "tiny", "max_tokens": 1, "messages": [{"role": "user", "content": "a"}]}
    async with serve() as served:
        answer = await served.post("/v1/messages", **body, vllm_xargs={"boost_token": 5})
    assert answer.is_success
    assert served.core.added[0].params.extra_args == {"boost_token": 5}


async def test_what_the_engine_refuses_is_named_as_it_was_sent(serve: Serve, monkeypatch) -> None:
    def refuse(*_: object) -> int:
        raise RequestError("extra_args holds 'a', which no logits processor takes.", "extra_args")

    async with serve() as served:
        monkeypatch.setattr(served.core, "add", refuse)
        answer = await served.complete(prompt="a", stream=True, vllm_xargs={"a": 1})
    assert answer.status_code == 400
    error = answer.json()["error"]
    assert (error["param"], error["message"].split()[0]) == ("vllm_xargs", "vllm_xargs")
