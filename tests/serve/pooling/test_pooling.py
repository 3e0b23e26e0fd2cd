"""The routes for vectors, over tiny real models in this process, and the official client."""

import asyncio
import base64
import json
from array import array
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import numpy as np
import openai
import pytest

from engine.config import EngineConfig, PoolerConfig
from engine.cores import make_core
from engine.output_processor import OutputProcessor
from serve.app import build_app
from serve.commands.batch import call
from serve.engine_client import EngineClient
from serve.generation.grammars import GrammarCompiler
from serve.model import load_served_model
from serve.operations.metrics import Metrics
from serve.service import Service
from serve.settings import ServerSettings
from tests.engine.pooling_folders import write_folder, write_modules
from tests.serve.attacks.test_floods import counted
from tests.serve.served import InProcessEngine, Serve, Served

pytestmark = pytest.mark.anyio
SMALL = {"max_num_seqs": 4, "max_num_batched_tokens": 64}
LONG = "the dog " * 40
CLOSE = 5e-7
WRITERS = (":as_json", ":packed", ":floats", ":cosine")  # of large vectors
TURNS = [{"role": "user", "content": "a"}]


class Model:
    """A folder and its engine, which the applications of several tests ask one after another."""

    def __init__(self, folder: Path, **settings: Any) -> None:
        self.folder = folder
        self.config = EngineConfig(model=str(folder), **SMALL, **settings)
        self.core: Any = make_core(self.config)
        self.core.step_seconds = 0.0

    @asynccontextmanager
    async def serve(self, **settings: Any) -> AsyncIterator[Served]:
        options = ServerSettings(**settings)
        model = load_served_model(self.folder, "tiny", options)
        metrics = Metrics("tiny")
        client = EngineClient(OutputProcessor(model.tokenizer), metrics)
        link: Any = InProcessEngine(self.core)
        link._beams = self.core  # which searches no beams
        await client.connect(link)
        pump = asyncio.create_task(client.pump())
        grammars = GrammarCompiler(self.folder)
        app = build_app(Service(options, self.config, model, client, metrics, grammars))
        served = Served(app, self.core, client)
        async with served.http:
            yield served
        pump.cancel()
        with suppress(asyncio.CancelledError):
            await pump


@pytest.fixture(scope="module")
def embedder(tmp_path_factory: pytest.TempPathFactory) -> Any:
    folder = write_folder(tmp_path_factory.mktemp("m"), "bert", is_matryoshka=True)
    write_modules(folder, {"pooling_mode_mean_tokens": True}, "Normalize")
    model = Model(folder)
    yield model
    model.core.close()


@pytest.fixture(scope="module")
def ranker(tmp_path_factory: pytest.TempPathFactory) -> Any:
    model = Model(write_folder(tmp_path_factory.mktemp("m"), "bert_cross_encoder"))
    yield model
    model.core.close()


@pytest.fixture(scope="module")
def classifier(tmp_path_factory: pytest.TempPathFactory) -> Any:
    model = Model(write_folder(tmp_path_factory.mktemp("m"), "bert_classifier"))
    yield model
    model.core.close()


async def embed(served: Served, given: Any, **more: Any) -> list[Any]:
    response = await served.post("/v1/embeddings", input=given, **more)
    assert response.status_code == 200, response.text
    return [each["embedding"] for each in response.json()["data"]]


async def test_the_official_client_gets_vectors(embedder: Model) -> None:
    async with embedder.serve() as served:
        client = openai.AsyncOpenAI(
            base_url="http://test/v1", api_key="none", http_client=served.http
        )
        answer = await client.embeddings.create(model="tiny", input=["the dog", "a cat sat"])
        short = await client.embeddings.create(model="tiny", input="the dog", dimensions=8)
        plain = await embed(served, ["the dog", "a cat sat"])
    assert [each.index for each in answer.data] == [0, 1] and answer.object == "list"
    assert answer.usage.prompt_tokens == answer.usage.total_tokens == 4 + 5
    np.testing.assert_allclose([each.embedding for each in answer.data], plain, atol=CLOSE)
    assert len(short.data[0].embedding) == 8
    assert np.linalg.norm(short.data[0].embedding) == pytest.approx(1)


async def test_texts_ids_and_both_encodings_are_one(embedder: Model) -> None:
    async with embedder.serve() as served:
        [text] = await embed(served, "the dog")
        [ids] = await embed(served, [2, 4, 5, 3])
        _, second = await embed(served, [[2, 4], [2, 4, 5, 3]])
        [encoded] = await embed(served, "the dog", encoding_format="base64")
        [bare] = await embed(served, "the dog", add_special_tokens=False)
        [raw] = await embed(served, "the dog", use_activation=False)
        pooled = (await served.post("/pooling", input="the dog", task="embed")).json()["data"][0]
    decoded = array("f", base64.b64decode(encoded)).tolist()
    for same in (ids, decoded, pooled["data"]):  # programs of other shapes round otherwise
        np.testing.assert_allclose(same, text, atol=CLOSE)
    np.testing.assert_allclose(second, text, atol=CLOSE)
    assert bare != text and np.linalg.norm(raw) != pytest.approx(1)


async def test_a_model_may_give_a_vector_a_token(tmp_path: Path) -> None:
    folder = write_folder(tmp_path, "qwen2_process_reward")
    model = Model(folder, pooler_config=PoolerConfig(step_tag_id=9))
    async with model.serve() as served:
        ask = {"input": [[5, 9, 3, 9], [5]]}
        each = (await served.post("/pooling", **ask)).json()["data"]
        coded = (await served.post("/pooling", **ask, encoding_format="base64")).json()["data"]
        refused = await served.post("/classify", **ask)
        writes = await served.post("/v1/completions", prompt=[5], max_tokens=1)
    model.core.close()
    first, none = (one["data"] for one in each)
    assert [len(row) for row in first] == [2, 2] and none == []
    assert [sum(row) for row in first] == pytest.approx([1, 1])
    flat = array("f", base64.b64decode(coded[0]["data"])).tolist()
    assert flat == pytest.approx([one for row in first for one in row], abs=CLOSE)
    for answer in (refused, writes):
        assert answer.status_code == 400 and "/pooling" in answer.json()["error"]["message"]


@pytest.mark.parametrize(
    ("path", "body", "param", "sentence"),
    [
        ("/v1/embeddings", {"input": ""}, "input", "empty"),
        ("/v1/embeddings", {"input": []}, "input", "texts only"),
        ("/v1/embeddings", {"input": ["the dog", ""]}, "input", "empty"),
        ("/v1/embeddings", {"input": ["a", 2]}, "input", "texts only"),
        ("/v1/embeddings", {"input": ["a"] * 2049}, "input", "at most 2048"),
        ("/v1/embeddings", {"input": "a " * 60}, "input", "62 tokens and this model takes 48"),
        ("/v1/embeddings", {"input": [67]}, "input", "67, which is no token id"),
        ("/v1/embeddings", {"input": LONG}, "input", "320 characters, too many"),
        ("/v1/embeddings", {"input": "a", "dimensions": 41}, "dimensions", "1 to 40"),
        ("/v1/embeddings", {"input": "a", "encoding_format": "int8"}, "encoding_format", "int8"),
        ("/v1/embeddings", {"input": "a", "messages": []}, "input", "either"),
        ("/v1/embeddings", {"input": "a", "chat_template": "b"}, "chat_template", "messages"),
        (
            "/v1/embeddings",
            {"input": "a", "chat_template_kwargs": {"b": 1}},
            "chat_template_kwargs",
            "messages",
        ),
        (
            "/pooling",
            {"input": "a", "add_generation_prompt": True},
            "add_generation_prompt",
            "messages",
        ),
        ("/pooling", {"input": "a", "continue_final_message": True}, "continue_final_message",
         "messages"),
        ("/pooling", {"input": "a", "task": "classify"}, "task", "task is embed"),
        ("/v1/embeddings", {"input": "a", "embed_dtype": "float16"}, "embed_dtype", "base64"),
        ("/v1/embeddings", {"input": "a", "endianness": "big"}, "endianness", "base64"),
        (
            "/v1/embeddings",
            {"input": ["a"] * 129, "encoding_format": "bytes"},
            "encoding_format",
            "bytes_only",
        ),
        ("/v1/embeddings", {"input": "a", "priority": 1}, "priority", "--scheduling-policy"),
        ("/v1/embeddings", {"input": "a", "priority": 2**40}, "priority", "within"),
        ("/rerank", {"query": "a", "documents": ["a"], "max_tokens_per_doc": -1},
         "max_tokens_per_doc", "negative"),
        ("/rerank", {"query": "a", "documents": ["a"], "max_tokens_per_query": -1},
         "max_tokens_per_query", "negative"),
        ("/rerank", {"query": "a", "documents": ["a"], "truncation_side": "left"},
         "truncation_side", "send that too"),
        ("/rerank", {"query": "a", "documents": ["a"], "instruction": "Be kind."},
         "instruction", "not supported here"),
        ("/v1/embeddings", {"input": "a", "padding": "max_length"}, "padding", "not supported"),
        ("/v1/embeddings", {"input": "a", "cache_salt": ""}, "cache_salt", "1 to 1024"),
        ("/v1/embeddings", {"input": "a", "rid": "a", "request_id": "b"}, "rid", "send one"),
        ("/v1/embeddings", {}, "input", "either"),
        (
            "/v1/embeddings",
            {"input": "a", "truncate_prompt_tokens": 49},
            "truncate_prompt_tokens",
            "1 to 48",
        ),
        ("/v1/embeddings", {"input": [2**64]}, "input", "no token id"),
        ("/v1/embeddings", {"input": [[2], [-(2**70)]]}, "input", "no token id"),
        ("/v1/embeddings", {"input": "a", "dimensions": 2**64}, "dimensions", "at most"),
        ("/v1/embeddings", {"messages": TURNS}, "messages", "template"),
        ("/classify", {"input": "a"}, "model", "no classes"),
        ("/score", {"text_1": ["a", "a"], "text_2": ["a"] * 3}, "text_1", "2 texts"),
        ("/score", {"text_1": "a", "documents": "a"}, "text_1", "text_1 and text_2"),
        ("/rerank", {"query": "a", "documents": []}, "documents", "one document"),
        ("/v1/chat/completions", {"messages": TURNS}, "model", "vectors"),
        ("/v1/completions", {"prompt": "a"}, "model", "a BertModel writes no text"),
    ],
)  # fmt: skip
async def test_what_cannot_be_served_is_said(
    embedder: Model, path: str, body: dict[str, Any], param: str, sentence: str
) -> None:
    async with embedder.serve() as served:
        response = await served.post(path, **body)
        assert response.status_code == 400, response.text
        error = response.json()["error"]
        assert error["param"] == param and sentence in error["message"]
        assert len(await embed(served, "the dog")) == 1
        assert served.engine.num_sequences == 0


async def test_what_is_too_long_may_be_cut(embedder: Model) -> None:
    async with embedder.serve() as served:
        body = (await served.post("/v1/embeddings", input=LONG, truncate_prompt_tokens=-1)).json()
        assert body["usage"]["prompt_tokens"] == 48
        many = await embed(served, ["the dog", *["a " * n for n in range(1, 40)]])
        [alone] = await embed(served, "the dog")
        metrics = (await served.http.get("/metrics")).text
    np.testing.assert_allclose(many[0], alone, atol=CLOSE)
    assert 'vllm:request_success_total{engine="0",finished_reason="stop"' in metrics
    line = next(each for each in metrics.splitlines() if each.startswith("vllm:request_success_t"))
    assert line.endswith(" 42.0")


async def test_conversations_have_vectors_too(embedder: Model) -> None:
    template = "{% for m in messages %}{{ m.content }} on a mat{% endfor %}"
    messages = [{"role": "user", "content": "the dog"}]
    async with embedder.serve(chat_template=template) as served:
        body = (await served.post("/v1/embeddings", messages=messages)).json()
        [same] = await embed(served, "the dog on a mat", add_special_tokens=False)
        spelled = [{"role": "user", "content": "the [SEP] dog"}]  # three words of text, no token
        longer = (await served.post("/v1/embeddings", messages=spelled)).json()
    assert longer["usage"]["prompt_tokens"] == body["usage"]["prompt_tokens"] + 3
    async with embedder.serve(trust_request_chat_template=True) as served:
        own = (
            await served.post("/v1/embeddings", messages=messages, chat_template=template)
        ).json()
    for other in (own["data"][0]["embedding"], same):
        np.testing.assert_allclose(body["data"][0]["embedding"], other, atol=CLOSE)


@pytest.mark.parametrize("version", ["", "/v1", "/v2"])
async def test_documents_are_put_in_order(ranker: Model, version: str) -> None:
    documents = ["a cat", "the sun ran far", "the dog sat on a mat"]
    async with ranker.serve() as served:
        ranks = (
            await served.post(f"{version}/rerank", query="a dog", documents=documents, top_n=2)
        ).json()
        scores = (await served.post("/v1/score", queries="a dog", documents=documents)).json()
        refused = await served.post("/v1/embeddings", input="a")
    values = [each["score"] for each in scores["data"]]
    assert all(0 < value < 1 for value in values) and len(set(values)) == 3
    best = sorted(range(3), key=lambda index: -values[index])[:2]
    assert [each["index"] for each in ranks["results"]] == best
    first = ranks["results"][0]
    assert first["relevance_score"] == pytest.approx(values[best[0]], rel=1e-5)
    assert first["document"] == {"text": documents[best[0]]}
    assert scores["usage"]["total_tokens"] == 3 * 3 + 2 * 3 + 2 + 4 + 6
    assert refused.status_code == 400 and "--convert embed" in refused.json()["error"]["message"]


async def test_documents_may_be_cut(ranker: Model, embedder: Model) -> None:
    """Each to its first tokens, for a cross-encoder and for embeddings; 0 is all of them."""
    query, documents = "a dog", ["the dog sat on a mat", "the dog " * 60]
    for model in (ranker, embedder):
        async with model.serve() as served:

            async def scores(query: str, documents: list[str], **more: Any) -> list[float]:
                body = {"query": query, "documents": documents, **more}
                results = (await served.post("/rerank", **body)).json()["results"]
                return [
                    each["relevance_score"] for each in sorted(results, key=lambda e: e["index"])
                ]

            cut = await scores(query, documents, max_tokens_per_doc=2)
            short = await scores(query, ["the dog", "the dog"])
            whole = await scores(query, documents[:1])
            same = await scores(query, documents[:1], max_tokens_per_doc=0)
            own = await scores(documents[0], documents[:1], max_tokens_per_doc=2)
            cut_query = await scores("the dog " * 3, documents[:1], max_tokens_per_query=2)
            short_query = await scores("the dog", documents[:1])
        np.testing.assert_allclose(cut, short, atol=CLOSE)
        np.testing.assert_allclose(whole, same, atol=CLOSE)
        np.testing.assert_allclose(cut_query, short_query, atol=CLOSE)
        assert abs(whole[0] - cut[0]) > 1e-4
        assert model is ranker or own[0] < 1 - 1e-4  # the query is whole, the document is not


async def test_documents_may_be_cut_where_pairs_are_scored(ranker: Model) -> None:
    pair = {"text_1": "a dog", "text_2": ["the dog sat on a mat"]}
    async with ranker.serve() as served:
        scores = [
            (await served.post("/score", **{**pair, **more})).json()["data"][0]["score"]
            for more in ({"max_tokens_per_doc": 2}, {"text_2": ["the dog"]}, {})
        ]
        wrong = await served.post("/score", **pair, max_tokens_per_doc=-1)
    np.testing.assert_allclose(scores[0], scores[1], atol=CLOSE)
    assert abs(scores[0] - scores[2]) > 1e-4
    assert wrong.json()["error"]["param"] == "max_tokens_per_doc"


async def test_responses_have_the_id_that_was_asked_for(embedder: Model) -> None:
    bodies: dict[str, dict[str, Any]] = {
        "/v1/embeddings": {"input": "a"},
        "/pooling": {"input": "a"},
        "/score": {"text_1": "a", "text_2": "b"},
        "/rerank": {"query": "a", "documents": ["b"]},
    }
    async with embedder.serve() as served:
        for path, body in bodies.items():
            named = (await served.post(path, **body, request_id="mine")).json()["id"]
            other = (await served.post(path, **body)).json()["id"]
            assert named.endswith("-mine") and named.split("-")[0] == other.split("-")[0]
            salted = await served.post(path, **body, rid="mine", cache_salt="s", extra_key="e")
            assert salted.json()["id"] == "mine"
        wrong = await served.post("/v1/embeddings", input="a", request_id="")
    assert wrong.json()["error"]["param"] == "request_id"


@pytest.mark.parametrize(
    ("dtype", "close"), [("float32", 0), ("float16", 1e-3), ("bfloat16", 4e-3)]
)
@pytest.mark.parametrize("order", ["little", "big", "native"])
async def test_vectors_have_other_types_and_orders(
    embedder: Model, dtype: str, close: float, order: str
) -> None:
    form = {"embed_dtype": dtype, "endianness": order}
    async with embedder.serve() as served:
        plain = await embed(served, ["the dog", "a cat sat"])
        coded = await embed(served, ["the dog", "a cat sat"], encoding_format="base64", **form)
        body = {"input": ["the dog", "a cat sat"], **form}
        raw = await served.post("/v1/embeddings", encoding_format="bytes", **body)
        only = await served.post("/pooling", encoding_format="bytes_only", **body)
    metadata = json.loads(raw.headers["metadata"])
    assert metadata["usage"]["prompt_tokens"] == 9 and "metadata" not in only.headers
    assert raw.headers["content-type"] == "application/octet-stream"
    for index, described in enumerate(metadata["data"]):
        assert (described["index"], described["embed_dtype"]) == (index, dtype)
        piece = raw.content[described["start"] : described["end"]]
        [length] = described["shape"]
        assert len(numbers(piece, dtype, order)) == length
        for found in (piece, base64.b64decode(coded[index])):
            np.testing.assert_allclose(
                numbers(found, dtype, order), plain[index], atol=CLOSE, rtol=close
            )
    assert raw.content[: described["end"]] == raw.content and len(only.content) == len(raw.content)


def numbers(data: bytes, dtype: str, order: str) -> np.ndarray:
    mark = ">" if order == "big" else "<"
    if dtype == "bfloat16":
        return (np.frombuffer(data, f"{mark}u2").astype("<u4") << 16).view("<f4")
    return np.frombuffer(data, f"{mark}f{'2' if dtype == 'float16' else '4'}")


async def test_a_vector_is_health_too(embedder: Model) -> None:
    async with embedder.serve() as served:
        assert (await served.http.get("/health_generate")).status_code == 200
        info = (await served.http.get("/model_info")).json()
    assert info["is_generation"] is False


async def test_embeddings_score_by_their_cosine(embedder: Model) -> None:
    async with embedder.serve() as served:
        body = (await served.post("/score", text_1="the dog", text_2=["the dog", "a cat"])).json()
        a, b = await embed(served, ["the dog", "a cat"])
    same, other = (each["score"] for each in body["data"])
    assert same == pytest.approx(1)
    assert other == pytest.approx(float(np.dot(a, b)), abs=1e-6)


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/v1/embeddings", {}),
        ("/v1/embeddings", {"encoding_format": "base64", "embed_dtype": "float16"}),
        ("/pooling", {}),
        ("/score", {"text_1": "the dog"}),
        ("/rerank", {"query": "the dog"}),
    ],
)
async def test_large_vectors_are_written_while_others_are_served(
    embedder: Model, path: str, body: dict[str, Any]
) -> None:
    """400 of 4,096 numbers: 60 to 150 ms of one core, in functions that the loop does not run."""
    texts = ["the dog " + "a " * count for count in range(400)]
    given = {"/score": {"text_2": texts}, "/rerank": {"documents": texts}}
    numbers = np.random.default_rng(0).random(4096, np.float32).tobytes()

    async def vectors(inputs: list[Any], *_: object) -> list[bytes]:
        return [numbers] * len(inputs)

    async with embedder.serve() as served:
        served.engine.pool = vectors  # type: ignore[method-assign, assignment]
        body = body | given.get(path, {"input": texts}) | {"truncate_prompt_tokens": -1}
        sent = json.dumps(body).encode()
        await call(served.app, path, b"{}")
        with counted() as lines:
            status, *_ = await asyncio.create_task(call(served.app, path, sent))
    here = {name for name in lines if name.endswith(WRITERS)}
    assert status == 200 and not here and 100 < lines.total() < 50_000, (here, lines.most_common(3))


async def test_classes_have_names(classifier: Model) -> None:
    async with classifier.serve() as served:
        body = (await served.post("/v1/classify", input=["the dog sat", "far away"])).json()
        refused = await served.post("/score", text_1="a", text_2="a")
    for each in body["data"]:
        assert each["num_classes"] == 3 and sum(each["probs"]) == pytest.approx(1)
        assert each["label"] == ["joy", "anger", "awe"][int(np.argmax(each["probs"]))]
    assert refused.status_code == 400 and "3 classes" in refused.json()["error"]["message"]


async def test_a_model_that_writes_says_how_to_get_vectors(serve: Serve) -> None:
    async with serve() as served:
        for path, body in {
            "/v1/embeddings": {"input": "a"},
            "/classify": {"input": "a"},
            "/pooling": {"input": "a"},
            "/score": {"text_1": "a", "text_2": "a"},
            "/rerank": {"query": "a", "documents": ["a"]},
        }.items():
            response = await served.post(path, **body)
            assert response.status_code == 400
            assert "--runner pooling" in response.json()["error"]["message"]
        assert not served.core.added


async def test_vectors_in_sglang_s_words(embedder: Model, classifier: Model) -> None:
    texts = ["the dog", "a cat sat"]
    async with embedder.serve() as served:
        alone = (await served.post("/encode", text=texts[0], rid="mine")).json()
        several = (await served.post("/encode", text=texts)).json()
        ids = (await served.post("/tokenize", prompt=texts[0])).json()["tokens"]
        by_ids = (await served.post("/encode", input_ids=ids)).json()
        listed = (await served.post("/encode", input_ids=[ids])).json()
        usual = await embed(served, texts)
    assert alone["meta_info"] == {"id": "mine", "prompt_tokens": 4}
    assert [each["meta_info"]["prompt_tokens"] for each in several] == [4, 5]
    for found, vector in [(alone, usual[0]), (by_ids, usual[0]), *zip(several, usual, strict=True)]:
        np.testing.assert_allclose(found["embedding"], vector, atol=CLOSE)
    assert [each["embedding"] for each in listed] == [by_ids["embedding"]]
    async with classifier.serve() as served:
        raw = (await served.post("/classify", text=texts)).json()
        probs = (await served.post("/classify", text=texts, use_activation=True)).json()
        classes = (await served.post("/classify", input=texts)).json()["data"]
    for given, softened, each in zip(raw, probs, classes, strict=True):
        np.testing.assert_allclose(softened["embedding"], each["probs"], atol=CLOSE)
        weights = np.exp(given["embedding"])
        np.testing.assert_allclose(weights / weights.sum(), each["probs"], atol=1e-5)


@pytest.mark.parametrize(
    ("path", "fields", "param"),
    [
        ("/encode", {}, "text"),
        ("/encode", {"text": "a", "input_ids": [5]}, "text"),
        ("/encode", {"text": []}, "text"),
        ("/encode", {"input_ids": [10**9]}, "input_ids"),
        ("/encode", {"text": "a", "model": "nobody"}, "model"),
        ("/classify", {"text": "a", "input": "b"}, "input"),
        ("/classify", {"text": "a", "add_special_tokens": False}, "add_special_tokens"),
    ],
)
async def test_what_is_wrong_there_is_named(
    embedder: Model, path: str, fields: dict[str, Any], param: str
) -> None:
    async with embedder.serve() as served:
        answer = await served.post(path, **fields)
    assert answer.status_code in (400, 404) and answer.json()["error"]["param"] == param
