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
    assert back == {"prompt": "Hé", "text": "Hé"}


async def test_a_conversation_is_what_the_template_makes_of_it(serve: Serve) -> None:
    messages = [{"role": "user", "content": "Hi"}]
    async with serve() as served:
        body = (await served.post("/tokenize", messages=messages)).json()
        back = (await served.post("/detokenize", tokens=body["tokens"])).json()
        closed = await served.post("/tokenize", messages=messages, add_generation_prompt=False)
    whole = "<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n"
    assert back["prompt"] == whole and "token_strs" not in body
    assert closed.json()["count"] < body["count"]


@pytest.mark.parametrize("version", ["", "/v1"])
async def test_lists_of_texts_and_back(serve: Serve, version: str) -> None:
    defaults = {"add_generation_prompt": True, "continue_final_message": False, "tools": None}
    async with serve() as served:
        body = (
            await served.post(
                f"{version}/tokenize", prompt=["ab", "c"], return_token_strs=True, **defaults
            )
        ).json()
        back = await served.post(f"{version}/detokenize", tokens=body["tokens"])
        ended = [*body["tokens"][1], 257]
        skipped = await served.post(f"{version}/detokenize", tokens=ended, skip_special_tokens=True)
        kept = await served.post(f"{version}/detokenize", tokens=ended)
    assert body["count"] == [2, 1] and body["token_strs"] == [["a", "b"], ["c"]]
    assert back.json()["text"] == ["ab", "c"]
    assert (skipped.json()["text"], kept.json()["text"]) == ("c", "c<|im_end|>")


TOOL = {"type": "function", "function": {"name": "f"}}


@pytest.mark.parametrize(("path", "fields", "status", "param"), [
    ("/tokenize", {}, 400, "prompt"),
    ("/tokenize", {"prompt": "x", "messages": []}, 400, "prompt"),
    ("/tokenize", {"prompt": "x", "chat_template": "y"}, 400, "chat_template"),
    ("/tokenize", {"prompt": "x", "chat_template_kwargs": {"a": 1}}, 400, "chat_template_kwargs"),
    ("/tokenize", {"prompt": "x", "add_generation_prompt": False}, 400, "add_generation_prompt"),
    ("/tokenize", {"prompt": "x", "tools": [TOOL]}, 400, "tools"),
    ("/tokenize", {"prompt": "x", "temperature": 1}, 400, "temperature"),
    ("/tokenize", {"messages": [{"role": "user", "content": "x"}], "max_tokens": 5}, 400,
     "max_tokens"),
    ("/tokenize", {"prompt": []}, 400, "prompt"),
    ("/detokenize", {"tokens": [1, [2]]}, 400, "tokens"),
    ("/detokenize", {"tokens": [[1], []]}, 400, "tokens"),
    ("/tokenize", {"prompt": "x", "model": "y"}, 404, "model"),
    ("/tokenize", {"prompt": "x" * 100_000}, 400, "prompt"),
    ("/detokenize", {"tokens": [300]}, 400, "tokens"),
    ("/detokenize", {"tokens": []}, 400, "tokens"),
    ("/detokenize", {}, 400, "tokens"),
])  # fmt: skip
async def test_what_cannot_be_done(
    serve: Serve, path: str, fields: dict[str, Any], status: int, param: str | None
) -> None:
    async with serve() as served:
        response = await served.post(path, **fields)
    assert response.status_code == status
    assert response.json()["error"]["param"] == param
