"""POST /v2/embed: vectors as Cohere's clients ask for them."""

import asyncio
from base64 import b64encode
from collections.abc import Mapping
from typing import Any

from msgspec import UNSET
from starlette.types import Send

from engine.errors import RequestError
from engine.pooling.inputs import InputReader, PoolInput
from engine.pooling_params import PoolingParams
from engine.templates.chat_template import Rendered
from engine.tokenizers.tokenizer import Side
from serve.http.endpoint import send_json
from serve.pooling.ask import Answers, ask, floats, reader_of
from serve.pooling.cohere import (
    CohereEmbeddings,
    CohereEmbedRequest,
    CohereInput,
    CohereMeta,
    InputTokens,
    TypedEmbeddings,
)
from serve.pooling.encodings import as_json
from serve.pooling.routes import PoolingRouteBase
from serve.protocol.chat import ChatMessage, ChatRequest
from serve.service import Service


class CohereEmbedRoute(PoolingRouteBase[CohereEmbedRequest]):
    """A vector for each input, in one or more types."""

    kind = CohereEmbedRequest
    task = "embed"

    def names(self, request: CohereEmbedRequest) -> Mapping[str, str]:
        texts = "texts" if request.inputs is None else "inputs"
        return {"input": texts, "messages": texts, "dimensions": "output_dimension"}

    async def answer(self, request: CohereEmbedRequest, request_id: str, send: Send) -> None:
        self.check(request)
        prefix = request.prefix(self.service.model.text_kinds)
        params = PoolingParams(dimensions=request.output_dimension)
        answers = await ask(
            self.service, lambda: _read(self.service, request, prefix), params, request
        )
        embeddings = await asyncio.to_thread(typed, answers, request)
        count = InputTokens(sum(answers.lengths))
        await send_json(
            send,
            CohereEmbeddings(
                id=f"embd-{request_id}",
                embeddings=embeddings,
                texts=UNSET if request.texts is None else request.texts,
                meta=CohereMeta(count, count),
            ),
        )


def _read(service: Service, request: CohereEmbedRequest, prefix: str) -> list[PoolInput]:
    """The ids of each input; raises RequestError for one that is too long and not to be cut."""
    reader = reader_of(service)
    if request.inputs is None or service.model.template is None:
        texts = request.texts or [each.text for each in request.inputs or ()]
        return [_ids(reader, request, prefix + text, special=True) for text in _filled(texts)]
    turns = [_rendered(service, prefix, each) for each in request.inputs]
    return [
        _ids(reader, request, turn.marked or turn.text, marked=turn.marked is not None)
        for turn in turns
    ]


def _filled(texts: list[str]) -> list[str]:
    """Raises RequestError for one that is empty, also where something goes before it."""
    if not all(texts):
        raise RequestError("The input is empty: it must hold some text.", "input")
    return texts


def _rendered(service: Service, prefix: str, given: CohereInput) -> Rendered:
    """A turn of the user's, behind what tells its kind."""
    turns = [ChatMessage(role="system", content=prefix)] if prefix else []
    turns.append(ChatMessage(role="user", content=given.text))
    return service.model.render(ChatRequest(messages=turns, add_generation_prompt=False))


def _ids(
    reader: InputReader,
    request: CohereEmbedRequest,
    text: str,
    *,
    special: bool = False,
    marked: bool = False,
) -> PoolInput:
    longest = reader.info.max_model_len
    most = min(request.max_tokens or longest, longest)
    if request.truncate != "NONE":
        cut: Side = "left" if request.truncate == "START" else "right"
        return reader.text(text, truncate=most, add_special_tokens=special, marked=marked, cut=cut)
    if reader.tokenizer is None or len(text) <= reader.tokenizer.max_chars(most):
        found = reader.text(text, add_special_tokens=special, marked=marked)
        if len(found.token_ids) <= most:
            return found
    raise RequestError(
        f"An input has more than {most} tokens; shorten it, or have truncate cut its START or END.",
        "input",
    )


def typed(answers: Answers, request: CohereEmbedRequest) -> TypedEmbeddings:
    """The vectors in each type that is wanted, as JSON has them.

    Raises RequestError for binary ones whose numbers are no multiple of 8.
    """
    vectors, made = answers.vectors, TypedEmbeddings()
    bits: list[bytes] = []
    if request.types & {"binary", "ubinary"}:
        bits = [signs(vector) for vector in vectors]
    if "float" in request.types:
        numbers: list[Any] = [as_json(each) for each in vectors]
        made.float_ = numbers
    if "ubinary" in request.types:
        made.ubinary = [list(each) for each in bits]
    if "binary" in request.types:
        made.binary = [[number - 128 for number in each] for each in bits]
    if "base64" in request.types:
        made.base64 = [b64encode(vector).decode() for vector in vectors]
    return made


def signs(vector: bytes) -> bytes:
    """A bit a number, 1 where it is not negative, the first the highest of its byte."""
    numbers = floats(vector)
    if len(numbers) % 8:
        raise RequestError(
            f"Binary embeddings hold a multiple of 8 numbers, and these have {len(numbers)}; ask "
            "for float, or for another output_dimension.",
            "embedding_types",
        )
    return int("".join("01"[number >= 0] for number in numbers), 2).to_bytes(len(numbers) // 8)
