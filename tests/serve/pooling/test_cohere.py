"""/v2/embed: Cohere's words for vectors."""

import base64
import json
from array import array
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from engine.errors import RequestError
from models.checkpoints.sentence_transformers import read_prompts
from serve.pooling.ask import Answers
from serve.pooling.cohere import CohereEmbedRequest
from serve.pooling.cohere_route import typed
from tests.engine.pooling_folders import write_folder, write_modules
from tests.serve.pooling.test_pooling import CLOSE, Model, embed
from tests.serve.served import Served

pytestmark = pytest.mark.anyio
KINDS = {"query": "on the hill ", "document": "", "clustering": "mat"}
MEAN = {"pooling_mode_mean_tokens": True}
TEMPLATE = "{% for m in messages %}{{ m.role[0] }} {{ m.content }} {% endfor %}"


def folder(where: Path, pooling: dict[str, Any], **config: Any) -> Path:
    made = write_folder(where, "bert", is_matryoshka=True, **config)
    write_modules(made, pooling, "Normalize")
    (made / "config_sentence_transformers.json").write_text(json.dumps({"prompts": KINDS}))
    return made


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Model]:
    made = Model(folder(tmp_path_factory.mktemp("m"), MEAN))
    yield made
    made.core.close()


async def ask(served: Served, **body: Any) -> dict[str, Any]:
    answer = await served.post("/v2/embed", **body)
    assert answer.status_code == 200, answer.text
    found: dict[str, Any] = answer.json()
    return found


async def test_vectors_are_those_of_the_embeddings_api(model: Model) -> None:
    texts = ["the dog", "a cat sat"]
    async with model.serve() as served:
        found = await ask(served, model="tiny", texts=texts, input_type="document")
        plain = await embed(served, texts)
        turned = await embed(served, ["on the hill the dog"])
        asked = [
            await ask(served, texts=["the dog"], input_type=kind)
            for kind in ("query", "search_query")
        ]
        short = await ask(served, texts=["the dog"], output_dimension=8)
        parts = [{"type": "text", "text": "a cat"}, {"type": "text", "text": "sat"}]
        joined = await ask(served, inputs=[{"content": parts}])
    assert found["id"].startswith("embd-") and found["texts"] == texts
    assert found["response_type"] == "embeddings_by_type" and "texts" not in joined
    counted = {"input_tokens": 4 + 5}
    assert found["meta"] == {
        "tokens": counted, "billed_units": counted, "api_version": {"version": "2"},
    }  # fmt: skip
    np.testing.assert_allclose(found["embeddings"]["float"], plain, atol=CLOSE)
    np.testing.assert_allclose(joined["embeddings"]["float"], plain[1:], atol=CLOSE)
    for each in asked:
        np.testing.assert_allclose(each["embeddings"]["float"], turned, atol=CLOSE)
        assert each["texts"] == ["the dog"]
    assert len(short["embeddings"]["float"][0]) == 8


async def test_every_type_is_of_the_same_numbers(model: Model) -> None:
    kinds = ["float", "binary", "ubinary", "base64"]
    async with model.serve() as served:
        found = (await ask(served, texts=["the dog", "a mat"], embedding_types=kinds))["embeddings"]
        few = (await ask(served, texts=["the dog"], embedding_types=["base64"]))["embeddings"]
    numbers = np.array(found["float"])
    assert [array("f", base64.b64decode(each)).tolist() for each in found["base64"]] == (
        pytest.approx(numbers)
    )
    bits = np.packbits(numbers >= 0, axis=-1)
    assert found["ubinary"] == bits.tolist() and bits.any() and (bits != 255).any()
    assert found["binary"] == (bits.astype(int) - 128).tolist()
    assert [*few] == ["base64"]


def test_signs_are_counted_in_eights() -> None:
    request = CohereEmbedRequest(texts=["a"], embedding_types=["binary", "ubinary"])
    vector = array("f", [1, -1, 0, -2, 3, -0.5, -1, 1]).tobytes()
    made = typed(Answers([vector], [1]), request)
    assert made.ubinary == [[0b10101001]] and made.binary == [[0b10101001 - 128]]
    with pytest.raises(RequestError, match="multiple of 8 numbers, and these have 7"):
        typed(Answers([vector[4:]], [1]), request)


async def test_either_end_is_cut_or_neither(model: Model) -> None:
    words = "the dog sat on a mat"
    async with model.serve() as served:
        longest = served.engine.info.max_model_len
        first = await ask(served, texts=[words], max_tokens=4)
        last = await ask(served, texts=[words], max_tokens=4, truncate="START")
        whole = await ask(served, texts=[words], max_tokens=8, truncate="NONE")
        far = await ask(served, texts=["far " * 5000 + "dog"], truncate="START")
        wide = await ask(served, texts=[words], max_tokens=10**9)
        plain = [await embed(served, each) for each in ("the dog", "a mat", words)]
        cut = {"truncate_prompt_tokens": 4, "truncation_side": "left"}
        sides = [await embed(served, given, **cut) for given in (words, [2, 5, 4, 9, 10, 3])]
        ids = await embed(served, [4, 9, 10, 3])
        end = await embed(served, "far " * (longest - 3) + "dog")
    shown = [each["embeddings"]["float"] for each in (first, last, whole)]
    np.testing.assert_allclose(shown, plain, atol=CLOSE)
    np.testing.assert_allclose(wide["embeddings"]["float"], plain[2], atol=CLOSE)
    np.testing.assert_allclose(far["embeddings"]["float"], end, atol=CLOSE)
    np.testing.assert_allclose(sides, [plain[1], ids], atol=CLOSE)
    assert first["meta"]["tokens"]["input_tokens"] == 4


async def test_a_template_writes_inputs_of_parts(tmp_path: Path) -> None:
    made = folder(tmp_path, MEAN, task_instructions={"query": "the hill"})
    (made / "tokenizer_config.json").write_text(json.dumps({"chat_template": TEMPLATE}))
    model = Model(made)
    parts = [{"content": [{"type": "text", "text": "dog"}]}]
    async with model.serve() as served:
        turns = [{"role": "system", "content": "the hill"}, {"role": "user", "content": "dog"}]
        plain = (await served.post("/v1/embeddings", messages=turns)).json()["data"][0]["embedding"]
        found = await ask(served, inputs=parts, input_type="query")
        unknown = await served.post("/v2/embed", texts=["a"], input_type="document")
    model.core.close()
    np.testing.assert_allclose(found["embeddings"]["float"], [plain], atol=CLOSE)
    assert "tells query apart" in unknown.json()["error"]["message"]


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({}, "texts"),
        ({"texts": []}, "texts"),
        ({"texts": ["a"] * 2049}, "texts"),
        ({"texts": [""]}, "texts"),
        ({"texts": ["", "a"], "input_type": "query"}, "texts"),
        ({"inputs": [{"content": []}]}, "inputs"),
        ({"texts": ["a"], "inputs": [{"content": [{"type": "text", "text": "a"}]}]}, "texts"),
        ({"inputs": [{"content": [{"type": "image_url", "image_url": {}}]}]}, "inputs"),
        ({"images": ["data:image/png;base64,AA"]}, "images"),
        ({"texts": ["a"], "input_type": "search"}, "input_type"),
        ({"texts": ["a"], "embedding_types": ["int8"]}, "embedding_types"),
        ({"texts": ["a"], "embedding_types": ["binary"], "output_dimension": 4}, "embedding_types"),
        ({"texts": ["a"], "output_dimension": 10**6}, "output_dimension"),
        ({"texts": ["a"], "output_dimension": 2**60}, "output_dimension"),
        ({"texts": ["a"], "truncate": "MIDDLE"}, "truncate"),
        ({"texts": ["a"], "max_tokens": 0}, "max_tokens"),
        ({"texts": ["the dog"], "max_tokens": 3, "truncate": "NONE"}, "texts"),
        ({"texts": ["the dog " * 9000], "truncate": "NONE"}, "texts"),
        ({"texts": ["a"], "model": "other"}, "model"),
    ],
)
async def test_wrong_requests_name_their_field(
    model: Model, fields: dict[str, Any], param: str
) -> None:
    async with model.serve() as served:
        answer = await served.post("/v2/embed", **fields)
    error = answer.json()["error"]
    assert answer.status_code in (400, 404) and error["param"].startswith(param), error


def test_models_without_kinds_of_text_say_so(tmp_path: Path) -> None:
    """Also one that does not pool what stands before a text."""
    made = folder(tmp_path, MEAN)
    assert read_prompts(made) == KINDS
    assert read_prompts(folder(tmp_path, {**MEAN, "include_prompt": False})) == {}
    with pytest.raises(RequestError, match="tells none apart; leave it out"):
        CohereEmbedRequest(texts=["a"], input_type="query").prefix({})
