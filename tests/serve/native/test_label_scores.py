"""The probabilities of labels behind a query and items, as SGLang and vLLM are asked for them.

The scripted core says a prompt's first token, with probability 1/2, and any other token t of those
that are named with probability exp(-t).
"""

from math import exp
from typing import Any

import pytest

from tests.serve.served import Serve

pytestmark = pytest.mark.anyio
ASKED = {"query": [5], "items": [[6], [7, 8]], "label_token_ids": [5, 1, 6]}
FIRST = [0.5, exp(-1), exp(-6)]  # a query of 5 is said first
LATER = [[exp(-5), exp(-1), 0.5], [exp(-5), exp(-1), exp(-6)]]  # 6 is, and 7


async def test_each_item_has_the_probabilities_of_all_labels(serve: Serve) -> None:
    async with serve() as served:
        usual = (await served.post("/v1/score", **ASKED)).json()
        turned = (await served.post("/score", **ASKED, item_first=True)).json()
        among = (await served.post("/v1/score", **ASKED, apply_softmax=True)).json()
        hot = await served.post("/v1/score", **ASKED, apply_softmax=True, temperature=2)
        plain = await served.post("/v1/score", **ASKED, temperature=1.0)
        added = [each.prompt_token_ids for each in served.core.added]
    assert added[:6] == [[5, 6], [5, 7, 8], [6, 5], [7, 8, 5], [5, 6], [5, 7, 8]]
    roots = [each**0.5 for each in FIRST]
    assert hot.json()["scores"] == [pytest.approx([each / sum(roots) for each in roots])] * 2
    assert plain.json()["scores"] == usual["scores"]
    assert usual["object"] == "scoring" and usual["model"] == "tiny"
    assert usual["usage"] == {"prompt_tokens": 5, "completion_tokens": 2, "total_tokens": 7}
    assert usual["scores"] == [pytest.approx(FIRST)] * 2
    assert turned["scores"] == [pytest.approx(each) for each in LATER]
    assert among["scores"] == [pytest.approx([each / sum(FIRST) for each in FIRST])] * 2


async def test_the_first_label_is_expected(serve: Serve) -> None:
    async with serve() as served:
        path = "/generative_scoring"
        usual = (await served.post(path, **ASKED, request_id="mine")).json()
        apart = (await served.post(path, **ASKED, apply_softmax=False, item_first=True)).json()
    assert (usual["object"], usual["id"]) == ("list", "generative-scoring-mine")
    assert [each["index"] for each in usual["data"]] == [0, 1]
    assert [e["score"] for e in usual["data"]] == [pytest.approx(0.5 / sum(FIRST))] * 2
    assert [e["score"] for e in apart["data"]] == pytest.approx([exp(-5)] * 2)


async def test_texts_are_one_text_or_two(serve: Serve) -> None:
    """What a text begins with, SGLang puts before both of them and vLLM before the query."""
    asked: dict[str, Any] = {"query": "ab", "items": ["c", ""], "label_token_ids": [1]}
    async with serve() as served:
        await served.post("/v1/score", **{**asked, "items": "c"})
        await served.post("/v1/score", **{**asked, "items": ["c", [67]]})
        await served.post("/generative_scoring", **asked)
        texts = [each.prompt_token_ids for each in served.core.added]
    ab, abc = [64, 65], [64, 65, 66]
    assert texts == [abc, abc, [*ab, 67], abc, ab]


@pytest.mark.parametrize("path", ["/v1/score", "/generative_scoring"])
@pytest.mark.parametrize(
    ("changed", "param"),
    [
        ({"label_token_ids": []}, "label_token_ids"),
        ({"label_token_ids": [300]}, "label_token_ids"),
        ({"label_token_ids": [1, 1]}, "label_token_ids"),
        ({"label_token_ids": None}, None),
        ({"items": []}, "items"),
        ({"items": [[300]]}, "items"),
        ({"items": [["a"]]}, "items"),
        ({"items": ["a" * 9000]}, "items"),
        ({"items": [[5]] * 1025}, "items"),
        ({"query": 5}, "query"),
        ({"item_first": 1}, "item_first"),
        ({"model": "nobody"}, "model"),
        ({"some": 1}, "some"),
    ],
)
async def test_what_is_wrong_is_named(
    serve: Serve, path: str, changed: dict[str, Any], param: str | None
) -> None:
    async with serve() as served:
        answer = await served.post(path, **{**ASKED, **changed})
    assert answer.status_code in (400, 404)
    assert param is None or answer.json()["error"]["param"] == param, answer.text


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({**ASKED, "text_1": "a"}, "query"),
        ({**ASKED, "use_activation": True}, "use_activation"),
        ({"text_1": "a", "text_2": "b", "item_first": True}, "item_first"),
        ({"text_1": "a", "text_2": "b", "temperature": 2}, "temperature"),
        ({**ASKED, "temperature": 2}, "temperature"),
        ({**ASKED, "apply_softmax": True, "temperature": 0}, "temperature"),
        ({**ASKED, "rid": "a"}, "rid"),
    ],
)
async def test_the_two_kinds_of_scores_do_not_mix(
    serve: Serve, fields: dict[str, Any], param: str
) -> None:
    async with serve() as served:
        answer = await served.post("/score", **fields)
    assert answer.status_code == 400 and answer.json()["error"]["param"] == param
