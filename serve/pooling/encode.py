"""POST /encode, and /classify with `text`: SGLang's own words for vectors, scores and rewards.

    {"text": "..."}          {"embedding": [...], "meta_info": {"id": ..., "prompt_tokens": 5}}
    {"text": ["...", ...]}   a list of these

Scores are as the model's head gives them, as SGLang has it, unless `use_activation` says otherwise.
"""

import asyncio
from collections.abc import Mapping
from typing import Any

from msgspec import Struct
from starlette.types import Send

from engine.errors import RequestError
from engine.pooling.inputs import check_task
from serve.http.endpoint import GenerationRoute, send_json
from serve.pooling.ask import ask_inputs
from serve.pooling.encodings import as_json
from serve.pooling.protocol import EmbeddingRequest, PoolingFields
from serve.service import Service


class EncodeRequest(PoolingFields, frozen=True, kw_only=True):
    """Texts or token ids, of which whatever the model gives is wanted."""

    needs = (("text",), ("input_ids",))
    text: str | list[str] | None = None
    input_ids: list[int | list[int]] | None = None
    dimensions: int | None = None
    rid: str | None = None

    def check_shared(self) -> None:
        super().check_shared()
        if (self.text is None) == (self.input_ids is None):
            raise RequestError("Send either text or input_ids.", "text")

    @property
    def several(self) -> bool:
        """Whether the answer is a list."""
        given = self.input_ids if self.text is None else self.text
        return isinstance(given, list) and not (given and isinstance(given[0], int))


class EncodedInfo(Struct):
    """The response's id, and how many tokens were read."""

    id: str
    prompt_tokens: int


class Encoded(Struct):
    """A vector; scores of classes, or of tokens, are one too."""

    embedding: list[float | list[float]]
    meta_info: EncodedInfo


class EncodeRoute(GenerationRoute[EncodeRequest]):
    """Whatever the model gives."""

    kind = EncodeRequest
    writes = False

    def names(self, request: EncodeRequest) -> Mapping[str, str]:
        return {"input": "input_ids" if request.text is None else "text"}

    async def answer(self, request: EncodeRequest, request_id: str, send: Send) -> None:
        await send_encoded(self.service, request, request_id, send)


async def send_encoded(
    service: Service, request: EncodeRequest, request_id: str, send: Send
) -> None:
    """The answer of both routes; raises RequestError."""
    service.check_model(request.model)
    info = service.client.info
    check_task(info, "pool")
    raw = info.task == "classify" and request.use_activation is None
    answers = await ask_inputs(
        service,
        EmbeddingRequest(
            input=request.input_ids if request.text is None else request.text,  # type: ignore[arg-type]
            truncate_prompt_tokens=request.truncate_prompt_tokens,
            use_activation=False if raw else request.use_activation,
            priority=request.priority,
            dimensions=request.dimensions,
        ),
    )
    width = info.embedding_size if info.per_token else None
    name = request.rid or request_id

    def encoded() -> list[Encoded]:
        vectors: list[Any] = [as_json(vector, width) for vector in answers.vectors]
        counts = answers.lengths
        return [
            Encoded(vector, EncodedInfo(name, count))
            for vector, count in zip(vectors, counts, strict=True)
        ]

    found = await asyncio.to_thread(encoded)
    await send_json(send, found if request.several else found[0])
