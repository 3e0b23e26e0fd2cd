"""How much of a prompt the prefix cache held, in every API and its stream."""

from typing import Any

import pytest

from engine.outputs import OutputDelta
from serve.generation.streams import absorb
from tests.serve.served import Serve

pytestmark = pytest.mark.anyio
ASKED = [{"role": "user", "content": "abcdefgh"}]
OPENAI = {"prompt_tokens_details": {"cached_tokens": 7}}
APIS: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "/v1/completions": ({"prompt": "abcdefgh", "max_tokens": 2}, OPENAI),
    "/v1/chat/completions": ({"messages": ASKED, "max_tokens": 2}, OPENAI),
    "/v1/responses": (
        {"input": ASKED, "max_output_tokens": 2}, {"input_tokens_details": {"cached_tokens": 7}},
    ),
    "/v1/messages": (
        {"model": "tiny", "messages": ASKED, "max_tokens": 2}, {"cache_read_input_tokens": 7},
    ),
}  # fmt: skip


@pytest.mark.parametrize("path", APIS)
async def test_every_api_says_it(serve: Serve, path: str) -> None:
    body, said = APIS[path]
    asked = {"stream_options": {"include_usage": True}} if said is OPENAI else {}
    async with serve() as served:
        nothing = (await served.post(path, **body)).json()["usage"]
        served.core.said_first = {"num_cached_tokens": 7}
        usage = (await served.post(path, **body)).json()["usage"]
        stream = (await served.post(path, **body, **asked, stream=True)).text
    [(name, expected)] = said.items()
    assert usage[name] == expected
    assert f'"{name}":{expected}'.replace("'", '"').replace(" ", "") in stream
    assert nothing.get(name) in (None, 0, {"cached_tokens": 0})


async def test_each_prompt_counts_once(serve: Serve) -> None:
    """Its other answers found what the first had computed."""
    async with serve() as served:
        served.core.said_first = {"num_cached_tokens": 7}
        body = {"prompt": ["abcdefgh", "bcdefghi"], "max_tokens": 2, "n": 2}
        usage = (await served.complete(**body)).json()["usage"]
    assert usage["prompt_tokens_details"] == {"cached_tokens": 14}


def test_what_is_said_with_the_first_tokens_is_kept_behind_scores_of_a_prompt() -> None:
    """The pieces of a long prompt whose tokens are scored come before, and say nothing of it."""
    said = {"num_cached_tokens": 32, "num_external_tokens": 16}
    whole = OutputDelta(request_id="a", index=0)
    absorb(whole, OutputDelta(request_id="a", index=0, **said))
    absorb(whole, OutputDelta(request_id="a", index=0))
    assert {name: getattr(whole, name) for name in said} == said
