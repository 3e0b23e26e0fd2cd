"""POST /v1/embeddings, /pooling, /classify, /score and /rerank."""

import asyncio
import time
from collections.abc import Mapping
from typing import ClassVar

from starlette.types import Send

from engine.errors import RequestError
from engine.pooling.inputs import check_task, vector_width
from engine.pooling_params import PoolingParams
from serve.http.endpoint import GenerationRoute, send_json
from serve.native.label_scores import LABEL_NAMES, Question, label_scores
from serve.pooling.ask import Answers, ask_inputs, ask_scores, floats
from serve.pooling.encode import EncodeRequest, send_encoded
from serve.pooling.encodings import as_json, encoded, send_bytes
from serve.pooling.protocol import (
    AskedVectors,
    Classified,
    ClassifiedList,
    ClassifyRequest,
    Document,
    Embedding,
    EmbeddingList,
    EmbeddingRequest,
    Pooled,
    PooledList,
    PoolingRequest,
    Ranked,
    Ranking,
    RerankRequest,
    Score,
    ScoreList,
    ScoreRequest,
)
from serve.protocol.decoding import RequestT

_OF_BOTH = sorted({*EncodeRequest.__struct_fields__} & {*ClassifyRequest.__struct_fields__})


class PoolingRouteBase(GenerationRoute[RequestT]):
    """A route of an engine that gives vectors; `task` is what the engine must do."""

    writes: ClassVar[bool] = False
    task: ClassVar[str]

    def check(self, request: AskedVectors) -> None:
        """Raise RequestError where this model cannot serve it."""
        self.service.check_model(request.model)
        check_task(self.service.client.info, self.task)

    @property
    def name(self) -> str:
        return self.service.model.names[0]


class EmbeddingsRoute(PoolingRouteBase[EmbeddingRequest]):
    """A vector for each input, as OpenAI's clients expect."""

    kind = EmbeddingRequest
    task = "embed"

    async def answer(self, request: EmbeddingRequest, request_id: str, send: Send) -> None:
        self.check(request)
        answers = await ask_inputs(self.service, request)
        name = request.response_id("embd", request_id)
        if request.encoding_format in ("bytes", "bytes_only"):
            await send_bytes(send, answers, request, name, self.name)
            return
        data = [
            Embedding(index=index, embedding=vector)
            for index, vector in enumerate(await encoded(answers, request))
        ]
        await send_json(
            send,
            EmbeddingList(
                id=name, created=int(time.time()), model=self.name, data=data, usage=answers.usage
            ),
        )


class PoolingRoute(PoolingRouteBase[PoolingRequest]):
    """Whatever the model gives."""

    kind = PoolingRequest
    task = "pool"

    async def answer(self, request: PoolingRequest, request_id: str, send: Send) -> None:
        self.check(request)
        self._check_task(request.task)
        answers = await ask_inputs(self.service, request)
        name = request.response_id("pool", request_id)
        if request.encoding_format in ("bytes", "bytes_only"):
            width = self._width(request)
            await send_bytes(send, answers, request, name, self.name, width)
            return
        data = [
            Pooled(index=index, data=vector)
            for index, vector in enumerate(await encoded(answers, request, self._width(request)))
        ]
        await send_json(
            send,
            PooledList(
                id=name, created=int(time.time()), model=self.name, data=data, usage=answers.usage
            ),
        )

    def _check_task(self, wanted: str | None) -> None:
        info = self.service.client.info
        given = f"token_{info.task}" if info.per_token else info.task
        if wanted not in (None, given):
            raise RequestError(f"This model's task is {given}; leave task out.", "task")

    def _width(self, request: PoolingRequest) -> int | None:
        """Numbers of a token's vector, where each token has one."""
        info = self.service.client.info
        if not info.per_token:
            return None
        return vector_width(info, PoolingParams(dimensions=request.dimensions))


class ClassifyRoute(PoolingRouteBase[ClassifyRequest]):
    """The class of each input."""

    kind = ClassifyRequest
    task = "classify"

    async def answer(self, request: ClassifyRequest, request_id: str, send: Send) -> None:
        if request.encodes:
            given = {name: getattr(request, name) for name in _OF_BOTH}
            encode = EncodeRequest(**given)
            encode.check_shared()
            await send_encoded(self.service, encode, request_id, send)
            return
        self.check(request)
        answers = await ask_inputs(self.service, request)
        data = await asyncio.to_thread(self._classified, answers)
        await send_json(
            send,
            ClassifiedList(
                id=request.response_id("classify", request_id), created=int(time.time()),
                model=self.name, data=data,
                usage=answers.usage,
            ),
        )  # fmt: skip

    def _classified(self, answers: Answers) -> list[Classified]:
        labels = self.service.client.info.labels
        return [
            Classified(
                index=index, label=labels[probs.index(max(probs))], num_classes=len(probs),
                probs=as_json(answers.vectors[index]),
            )
            for index, probs in enumerate(map(floats, answers.vectors))
        ]  # fmt: skip


class ScoreRoute(PoolingRouteBase[ScoreRequest]):
    """How well texts go together."""

    kind = ScoreRequest
    task = "score"

    def names(self, request: ScoreRequest) -> Mapping[str, str]:
        return {} if request.query is None else LABEL_NAMES

    async def answer(self, request: ScoreRequest, request_id: str, send: Send) -> None:
        if request.query is not None:
            self.service.check_writes()
            found = await label_scores(self.service, _question(request), request_id)
            await send_json(send, found)
            return
        self.check(request)
        scores, usage = await ask_scores(self.service, *request.sides(), request)
        data = [Score(index=index, score=score) for index, score in enumerate(scores)]
        await send_json(
            send,
            ScoreList(
                id=request.response_id("score", request_id), created=int(time.time()),
                model=self.name, data=data,
                usage=usage,
            ),
        )  # fmt: skip


def _question(request: ScoreRequest) -> Question:
    items = [request.items] if isinstance(request.items, str) else request.items or []
    return Question(
        query=request.query or "",
        items=items,
        labels=request.label_token_ids or [],
        among_labels=bool(request.apply_softmax),
        item_first=bool(request.item_first),
        apart=False,
        temperature=1.0 if request.temperature is None else request.temperature,
        model=request.model,
        priority=request.priority,
        cache_salt=request.cache_salt,
    )


class RerankRoute(PoolingRouteBase[RerankRequest]):
    """Documents in the order in which they answer a query."""

    kind = RerankRequest
    task = "score"

    async def answer(self, request: RerankRequest, request_id: str, send: Send) -> None:
        self.check(request)
        documents = request.documents
        scores, usage = await ask_scores(self.service, [request.query], documents, request)
        order = sorted(range(len(scores)), key=lambda index: -scores[index])
        shown = request.return_documents is not False
        results = [
            Ranked(
                index=index, relevance_score=scores[index],
                document=Document(documents[index]) if shown else None,
            )
            for index in order[: request.top_n or None]
        ]  # fmt: skip
        await send_json(
            send,
            Ranking(
                id=request.response_id("rerank", request_id),
                model=self.name,
                usage=usage,
                results=results,
            ),
        )
