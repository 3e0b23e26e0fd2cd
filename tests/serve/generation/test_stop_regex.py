"""`stop_regex` in requests; the core repeats the prompt, a letter a token."""

from typing import Any

import openai
import pytest

from tests.serve.served import Serve, event_data

pytestmark = pytest.mark.anyio


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(
    ("fields", "text", "reason"),
    [
        ({"stop_regex": r"#+ ?\w"}, "so ", r"#+ ?\w"),
        ({"stop_regex": ["zz", r"## u\w+:"]}, "so ", r"## u\w+:"),
        ({"stop_regex": r"#+ ?\w", "include_stop_str_in_output": True}, "so ## u", r"#+ ?\w"),
        ({"stop_regex": r"#+ ?\w", "no_stop_trim": True}, "so ## u", r"#+ ?\w"),
        ({"stop_regex": r"us.r", "stop": ["# use"]}, "so #", "# use"),
        ({"stop_regex": r"## s", "max_tokens": 5}, "so ##", None),
        ({"stop_regex": "o", "min_tokens": 3}, "so ## user: s", "o"),
    ],
)
async def test_text_ends_where_a_regex_matches(
    serve: Serve, stream: bool, fields: dict[str, Any], text: str, reason: str | None
) -> None:
    async with serve() as served:
        given = {"max_tokens": 30, "n": 2, "stream": stream, **fields}
        response = await served.complete(prompt="so ## user: ", **given)
        assert not served.core.has_work
    said = event_data(response.text)[:-1] if stream else [response.json()]
    choices = [choice for each in said for choice in each["choices"]]
    for index in (0, 1):
        mine = [choice for choice in choices if choice["index"] == index]
        assert "".join(choice["text"] for choice in mine) == text
        assert mine[-1]["finish_reason"] == ("stop" if reason else "length")
        assert mine[-1]["stop_reason"] == reason


async def test_the_official_client_and_sglangs_api(serve: Serve) -> None:
    async with serve() as served:
        client = openai.AsyncOpenAI(base_url="http://test/v1", api_key="x", http_client=served.http)
        stream = await client.chat.completions.create(
            model="tiny",
            messages=[{"role": "user", "content": "one two 3 four"}],
            stream=True,
            extra_body={"stop_regex": r"\s\d"},
        )
        texts = [c.choices[0].delta.content or "" async for c in stream if c.choices]
        options = {"stop_regex": r"o\s", "no_stop_trim": True}
        response = await served.post("/generate", text="two 3", sampling_params=options)
    assert "".join(texts) == "user\none two"
    assert response.json()["text"] == "two "
    assert response.json()["meta_info"]["finish_reason"] == {"type": "stop", "matched": r"o\s"}


@pytest.mark.parametrize("pattern", ["(", "a*", "^a", r"(a)\1", "a{9999}", "", ["a"] * 40, 5])
async def test_a_regex_that_cannot_be_served_is_named(serve: Serve, pattern: object) -> None:
    async with serve() as served:
        for response in (
            await served.complete(prompt="ab", stop_regex=pattern),
            await served.chat("ab", stop_regex=pattern, stream=True),
        ):
            assert response.status_code == 400
            assert response.json()["error"]["param"] == "stop_regex"
        assert not served.core.added
