"""Which requests share what is cached: those of one key and one salt."""

from itertools import product
from typing import Any

import pytest

from serve.generation.cache_namespace import namespace
from serve.http.owner import owner_of
from serve.paths import OPERATIONS
from serve.pooling.protocol import NamedFields, ScoreRequest
from serve.settings import ServerSettings
from tests.serve.served import Serve, Served

pytestmark = pytest.mark.anyio
TURN = {"role": "user", "content": "a"}
LABELS = {"query": "a", "items": "b", "label_token_ids": [5]}
GOOD: dict[str, dict[str, Any]] = {
    "/v1/completions": {"prompt": "a", "max_tokens": 1},
    "/v1/chat/completions": {"messages": [TURN], "max_tokens": 1},
    "/v1/responses": {"input": "a", "max_output_tokens": 1},
    "/v1/messages": {"model": "tiny", "messages": [TURN], "max_tokens": 1},
    "/cohere/v2/chat": {"messages": [TURN], "max_tokens": 1},
    "/generate": {"text": "a", "sampling_params": {"max_new_tokens": 1}},
    "/v1/chat/completions/batch": {"messages": [[TURN]], "max_tokens": 1},
    "/inference/v1/generate": {"token_ids": [97], "sampling_params": {"max_tokens": 1}},
    "/v1/score": LABELS,
    "/score": LABELS,
    "/generative_scoring": LABELS | {"items": ["b"]},
    "/api/chat": {"messages": [TURN], "options": {"num_predict": 1}},
    "/api/generate": {"prompt": "a", "options": {"num_predict": 1}},
    "/invocations": {"prompt": "a", "max_tokens": 1},
}
TWO = ("key-1", "key-2")


async def salt_in_the_engine(served: Served, path: str, key: str, salt: str | None) -> str:
    fields = GOOD[path] | ({} if salt is None else {"cache_salt": salt})
    headers = {"authorization": f"Bearer {key}"}
    response = await served.http.post(path, json=fields, headers=headers)
    assert response.status_code == 200, response.text
    return str(served.core.added[-1].cache_salt)


async def test_each_key_has_a_cache_of_its_own_on_every_route(serve: Serve) -> None:
    async with serve(ServerSettings(api_keys=TWO)) as served:
        seen: dict[tuple[str, str | None], set[str]] = {}
        for path, key, salt in product(GOOD, TWO, (None, "x", "y")):
            found = await salt_in_the_engine(served, path, key, salt)
            seen.setdefault((key, salt), set()).add(found)
        assert all(len(each) == 1 for each in seen.values())
        assert len(set.union(*seen.values())) == len(seen)
        [mine] = seen["key-1", None]
        other = await salt_in_the_engine(served, "/v1/completions", "key-2", mine)
        assert other != mine and "key" not in mine


def test_every_route_that_reads_prompts_is_among_them() -> None:
    """But for vectors, of whose prompts nothing is cached."""
    paths = {
        each.path for each in OPERATIONS
        if "cache_salt" in each.takes.__struct_fields__
        and (each.takes is ScoreRequest or not issubclass(each.takes, NamedFields))
    }  # fmt: skip
    read = {path for path in paths if not path.endswith("/render")}  # which end before the cache
    assert read == GOOD.keys() - {"/invocations"}


@pytest.mark.parametrize(
    ("settings", "key"),
    [(ServerSettings(), ""), (ServerSettings(api_keys=TWO, isolate_prefix_cache=False), "key-2")],
)
async def test_without_keys_or_where_keys_share_the_salt_alone_counts(
    serve: Serve, settings: ServerSettings, key: str
) -> None:
    async with serve(settings) as served:
        for path, salt in product(GOOD, (None, "x")):
            assert await salt_in_the_engine(served, path, key, salt) == (salt or "")


async def test_a_salt_has_a_length(serve: Serve) -> None:
    async with serve(ServerSettings(api_keys=TWO)) as served:
        for path in GOOD:
            assert await salt_in_the_engine(served, path, "key-1", "é" * 1024)
            for wrong in ("", "x" * 1025):
                headers = {"authorization": "Bearer key-1"}
                body = GOOD[path] | {"cache_salt": wrong}
                response = await served.http.post(path, json=body, headers=headers)
                assert response.status_code == 400
                assert "cache_salt" in response.text


def test_nothing_that_is_sent_is_another_keys_namespace() -> None:
    pairs = [(owner, salt) for owner in ("", "ab", "a") for salt in ("", "b", "/", "ab/")]
    assert len({namespace(*pair) for pair in pairs}) == len(pairs)
    assert owner_of({}) == ""
