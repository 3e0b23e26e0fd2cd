"""Prompts of embeddings over HTTP: the scripted core answers with each row's first number."""

from base64 import b64encode
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from engine.config import EngineConfig
from tests.fake_engine import WIDTH
from tests.models.checkpoints.safetensors_files import write_safetensors
from tests.serve.served import Serve, event_data

pytestmark = pytest.mark.anyio
CONFIG = EngineConfig(enable_prompt_embeds=True)


def rows_of(text: str) -> np.ndarray:
    """Rows to which `text` is the answer, over and over."""
    rows = np.zeros((len(text), WIDTH), np.float32)
    rows[:, 0] = [ord(letter) - 33 for letter in text]
    return rows


@pytest.fixture
def sent(tmp_path: Path):
    def encode(text: str) -> str:
        write_safetensors(tmp_path / "x", {"x": rows_of(text)})
        return b64encode((tmp_path / "x").read_bytes()).decode()

    return encode


async def test_embeddings_are_answered_before_texts(serve: Serve, sent: Any) -> None:
    async with serve(config=CONFIG) as served:
        asked = {"prompt_embeds": [sent("abc"), sent("de")], "prompt": ["xy"], "max_tokens": 4}
        body = (await served.complete(**asked, n=2, return_token_ids=True, logprobs=1)).json()
        empty = await served.complete(prompt_embeds=sent("abc"), prompt="", max_tokens=2)
    texts = [choice["text"] for choice in body["choices"]]
    assert texts == ["abca", "abca", "dede", "dede", "xyxy", "xyxy"]
    assert "prompt_token_ids" not in body["choices"][0]
    assert "prompt_token_ids" in body["choices"][4]
    assert body["choices"][0]["logprobs"]["tokens"] == list("abca")
    assert body["usage"]["prompt_tokens"] == 3 + 2 + 2
    assert [choice["text"] for choice in empty.json()["choices"]] == ["ab"]


async def test_embeddings_are_streamed(serve: Serve, sent: Any) -> None:
    async with serve(config=CONFIG) as served:
        response = await served.complete(prompt_embeds=sent("abc"), max_tokens=5, stream=True)
    *chunks, _ = event_data(response.text)
    assert "".join(chunk["choices"][0]["text"] for chunk in chunks) == "abcab"


async def test_generate_takes_lists_of_numbers(serve: Serve) -> None:
    first, second = rows_of("abc").tolist(), rows_of("de").tolist()
    async with serve(config=CONFIG) as served:
        params = {"max_new_tokens": 4}
        one = await served.post("/generate", input_embeds=first, sampling_params=params)
        two = await served.post("/generate", input_embeds=[first, second], sampling_params=params)
        each = await served.post(
            "/generate", input_embeds=[first, second], return_logprob=True,
            sampling_params=[{"max_new_tokens": 1}, {"max_new_tokens": 2}],
        )  # fmt: skip
    assert one.json()["text"] == "abca" and one.json()["meta_info"]["prompt_tokens"] == 3
    assert [body["text"] for body in two.json()] == ["abca", "dede"]
    assert [body["text"] for body in each.json()] == ["a", "de"]


@pytest.mark.parametrize(
    ("asked", "field", "message"),
    [
        ({"echo": True}, "echo", "cannot be used with prompt_embeds"),
        ({"suffix": "x"}, "suffix", "cannot be used with prompt_embeds"),
        ({"truncate_prompt_tokens": 2}, "truncate_prompt_tokens", "cannot be used"),
        ({"prompt_logprobs": 1}, "prompt_logprobs", "has none"),
        ({"use_beam_search": True, "n": 2}, "prompt_embeds", "leave out use_beam_search"),
        ({"prompt_embeds": []}, "prompt_embeds", "is empty"),
        ({"prompt_embeds": "gASV"}, "prompt_embeds", "no tensor"),
        ({"max_tokens": 126}, "max_tokens", "the prompt has 3"),
    ],
)
async def test_what_does_not_go_with_embeddings(
    serve: Serve, sent: Any, asked: dict[str, Any], field: str, message: str
) -> None:
    async with serve(config=CONFIG) as served:
        response = await served.complete(**{"prompt_embeds": sent("abc"), **asked})
    error = response.json()["error"]
    assert (response.status_code, error["param"]) == (400, field) and message in error["message"]


@pytest.mark.parametrize(
    ("asked", "field", "message"),
    [
        ({"input_embeds": [[1.0, 2.0]]}, "input_embeds", "this model takes [tokens, 4]"),
        ({"input_embeds": [[1.0, 2.0], [1.0]]}, "input_embeds", "no array of numbers"),
        ({"input_embeds": [[1e300] * WIDTH]}, "input_embeds", "row 0 that is not finite"),
        ({"input_embeds": [[0.0] * WIDTH] * 128}, "input_embeds", "128 rows; this model's context"),
        ({"input_embeds": []}, "input_embeds", "is empty"),
        ({"input_embeds": [[]]}, "input_embeds", "[tokens, 4]"),
        ({"text": "a"}, "text", "Send one of"),
        ({"return_logprob": True, "logprob_start_len": 0}, "logprob_start_len", "scores tokens"),
        ({"sampling_params": [{}, {}]}, "sampling_params", "as many prompts"),
    ],
)
async def test_lists_that_are_no_prompt(
    serve: Serve, asked: dict[str, Any], field: str, message: str
) -> None:
    async with serve(config=CONFIG) as served:
        response = await served.post(
            "/generate", **{"input_embeds": [rows_of("abc").tolist()], **asked}
        )
    error = response.json()["error"]
    assert (response.status_code, error["param"]) == (400, field) and message in error["message"]


async def test_without_the_flag_they_are_refused(serve: Serve, sent: Any) -> None:
    async with serve() as served:
        for response in (
            await served.complete(prompt_embeds=sent("abc")),
            await served.post("/generate", input_embeds=rows_of("abc").tolist()),
        ):
            assert response.status_code == 400
            assert "--enable-prompt-embeds" in response.json()["error"]["message"]
