"""`prediction`: what the answer may be goes to the engine, and usage tells how far it was right."""

from pathlib import Path
from typing import Any

import pytest
from tokenizers import Tokenizer

from serve.settings import ServerSettings
from tests.serve.served import Serve, event_data

pytestmark = pytest.mark.anyio
TOLD = {"accepted_prediction_tokens": 3, "rejected_prediction_tokens": 2}


def predicted(content: Any) -> dict[str, Any]:
    return {"type": "content", "content": content}


@pytest.mark.parametrize("content, text", [
    ("Hi", "Hi"),
    ([{"type": "text", "text": "H"}, {"type": "text", "text": "i"}], "H\ni"),
    ("", ""),
])  # fmt: skip
async def test_its_tokens_go_to_the_engine(
    serve: Serve, model_folder: Path, content: Any, text: str
) -> None:
    async with serve() as served:
        usual = await served.chat("Hi", max_tokens=4)
        answer = await served.chat("Hi", max_tokens=4, prediction=predicted(content))
        sent = served.core.added[-1].prediction_token_ids
    assert Tokenizer.from_file(str(model_folder / "tokenizer.json")).decode(sent) == text
    assert answer.json()["choices"] == usual.json()["choices"]


async def test_no_more_of_it_goes_there_than_the_context_holds(serve: Serve) -> None:
    async with serve() as served:
        answer = await served.chat("Hi", max_tokens=4, prediction=predicted("ab" * 50_000))
        sent = served.core.added[-1].prediction_token_ids
    assert answer.status_code == 200 and len(sent) == served.core.info.max_model_len


@pytest.mark.parametrize("stream", [False, True])
async def test_usage_tells_how_far_it_was_right(serve: Serve, stream: bool) -> None:
    asked: dict[str, Any] = {"max_tokens": 4, "n": 2}
    if stream:
        asked |= {"stream": True, "stream_options": {"include_usage": True}}
    async with serve() as served:
        served.core.said_first = {"num_drafted": 5, "num_accepted": 3}
        answer = await served.chat("Hi", **asked, prediction=predicted("Hello"))
        usual = await served.chat("Hi", **asked)
    said, plain = [
        event_data(each.text)[-2 if stream else 0]["usage"] if stream else each.json()["usage"]
        for each in (answer, usual)
    ]
    assert said["completion_tokens_details"] == {name: 2 * n for name, n in TOLD.items()}
    assert "completion_tokens_details" not in plain


async def test_of_several_conversations_the_counts_are_summed(serve: Serve) -> None:
    messages = [[{"role": "user", "content": text}] for text in ("a", "b")]
    async with serve() as served:
        served.core.said_first = {"num_drafted": 5, "num_accepted": 3}
        answer = await served.post(
            "/v1/chat/completions/batch", messages=messages, prediction=predicted("c"), max_tokens=2
        )
    details = answer.json()["usage"]["completion_tokens_details"]
    assert details == {name: 2 * n for name, n in TOLD.items()}


@pytest.mark.parametrize("own", [{}, {"repetition_penalty": 1.2}])
async def test_penalties_that_the_request_did_not_ask_for_are_no_reason_to_refuse_it(
    serve: Serve, own: dict[str, float]
) -> None:
    """Those that it did ask for go to the engine, which refuses them."""
    settings = ServerSettings(override_generation_config={"repetition_penalty": 1.1})
    async with serve(settings) as served:
        answer = await served.chat("Hi", max_tokens=2, prediction=predicted("Hi"), **own)
        sent = served.core.added[-1].prediction_token_ids
    assert answer.status_code == 200 and bool(sent) == bool(own)


async def test_a_beam_search_has_none(serve: Serve) -> None:
    async with serve() as served:
        answer = await served.chat("Hi", use_beam_search=True, prediction=predicted("a"))
    assert answer.status_code == 400
    assert answer.json()["error"]["param"] == "prediction"
