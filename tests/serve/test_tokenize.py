"""/tokenize and /detokenize."""

from typing import Any

import pytest

from tests.serve.served import Serve

pytestmark = pytest.mark.anyio


async def test_a_text_and_back(serve: Serve) -> None:
    async with serve() as served:
        body = (await served.post("/tokenize", prompt="Hé", return_token_strs=True)).json()
        back = (await served.post("/detokenize", tokens=body["tokens"])).json()
        assert not served.core.added
    assert body["count"] == 3 and body["max_model_len"] == 128
    assert body["token_strs"][0] == "H"
    assert back == {"prompt": "Hé"}


async def test_a_conversation_is_what_the_template_makes_of_it(serve: Serve) -> None:
    messages = [{"role": "user", "content": "Hi"}]
    async with serve() as served:
        body = (await served.post("/tokenize", messages=messages)).json()
        back = (await served.post("/detokenize", tokens=body["tokens"])).json()
        closed = await served.post("/tokenize", messages=messages, add_generation_prompt=False)
    whole = "<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n"
    assert back == {"prompt": whole} and "token_strs" not in body
    assert closed.json()["count"] < body["count"]


@pytest.mark.parametrize(("path", "fields", "status", "param"), [
    ("/tokenize", {}, 400, "prompt"),
    ("/tokenize", {"prompt": "x", "messages": []}, 400, "prompt"),
    ("/tokenize", {"prompt": "x", "chat_template": "y"}, 400, "chat_template"),
    ("/tokenize", {"prompt": "x", "model": "y"}, 404, "model"),
    ("/tokenize", {"prompt": "x" * 100_000}, 400, "prompt"),
    ("/detokenize", {"tokens": [300]}, 400, "tokens"),
    ("/detokenize", {"tokens": []}, 400, "tokens"),
    ("/detokenize", {}, 400, None),
])  # fmt: skip
async def test_what_cannot_be_done(
    serve: Serve, path: str, fields: dict[str, Any], status: int, param: str | None
) -> None:
    async with serve() as served:
        response = await served.post(path, **fields)
    assert response.status_code == status
    assert response.json()["error"]["param"] == param
