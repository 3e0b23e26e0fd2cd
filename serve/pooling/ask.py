"""From a request's texts to the engine's vectors, and to the scores of pairs."""

import asyncio
import math
from array import array
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from engine.errors import RequestError
from engine.pooling.inputs import InputReader, PoolInput, match_pairs, vector_width
from engine.pooling_params import PoolingParams
from serve.generation.prompts import check_ids
from serve.pooling.protocol import (
    MAX_INPUTS,
    AskedVectors,
    EmbeddingRequest,
    InputFields,
    PairFields,
)
from serve.protocol.decoding import Usage, usage_of
from serve.service import Service

MAX_NUMBERS = 2**25  # of all vectors of tokens in an answer: 8,192 tokens of 4,096 each


@dataclass(frozen=True, slots=True)
class Answers:
    """A vector an input, as little-endian float32, and how many tokens each has."""

    vectors: list[bytes]
    lengths: list[int]

    @property
    def usage(self) -> Usage:
        return usage_of(sum(self.lengths), 0, 0)


def floats(vector: bytes) -> list[float]:
    """The numbers of a vector."""
    return array("f", vector).tolist()


async def ask_inputs(service: Service, request: InputFields) -> Answers:
    """The vectors of a request's `input` or `messages`; raises RequestError."""
    dimensions = request.dimensions if isinstance(request, EmbeddingRequest) else None
    params = PoolingParams(dimensions=dimensions, use_activation=request.use_activation)
    reader, truncate = reader_of(service), request.truncate_prompt_tokens
    cut = request.truncation_side or "right"
    if request.messages is not None:
        rendered = await asyncio.to_thread(service.model.render, request.conversation())
        text, marked = rendered.marked or rendered.text, rendered.marked is not None
        special = bool(request.add_special_tokens)
        return await ask(
            service,
            lambda: [
                reader.text(
                    text, truncate=truncate, add_special_tokens=special, marked=marked, cut=cut
                )
            ],
            params,
            request,
        )
    special = request.add_special_tokens is not False

    def read(one: str | list[int]) -> PoolInput:
        if isinstance(one, list):
            check_ids(one, service.client.info.vocab_size, "input")
            return reader.ids(one, truncate, cut)
        return reader.text(one, truncate=truncate, add_special_tokens=special, cut=cut)

    return await ask(service, lambda: [read(one) for one in request.inputs()], params, request)


async def ask_scores(
    service: Service,
    first: Sequence[str],
    second: Sequence[str],
    request: PairFields,
) -> tuple[list[float], Usage]:
    """How well each pair goes together: by a cross-encoder, or the cosine of two embeddings.

    Of a query, which is one of the `first` texts, and of a document so many tokens are read at the
    most as the request says.
    """
    pairs = match_pairs(first, second)
    if len(pairs) > MAX_INPUTS:
        raise RequestError(f"There may be at most {MAX_INPUTS} pairs.", "documents")
    reader, truncate = reader_of(service), request.truncate_prompt_tokens
    cut = request.truncation_side or "right"
    most = (request.max_tokens_per_query or None, request.max_tokens_per_doc or None)
    params = PoolingParams(use_activation=request.use_activation)
    if service.client.info.task == "classify":
        answers = await ask(
            service,
            lambda: [reader.text(*pair, truncate=truncate, most=most, cut=cut) for pair in pairs],
            params,
            request,
        )
        return [floats(vector)[0] for vector in answers.vectors], answers.usage
    texts = list(
        dict.fromkeys((text, own) for side, own in zip((first, second), most, strict=True)
                      for text in side)
    )  # fmt: skip
    answers = await ask(
        service,
        lambda: [
            reader.text(text, truncate=truncate, most=(own, None), cut=cut) for text, own in texts
        ],
        params,
        request,
    )

    def scores() -> list[float]:
        vectors = dict(zip(texts, map(floats, answers.vectors), strict=True))
        return [cosine(vectors[a, most[0]], vectors[b, most[1]]) for a, b in pairs]

    return await asyncio.to_thread(scores), answers.usage  # 0.25 ms a pair of 4,096 numbers


def cosine(a: Sequence[float], b: Sequence[float]) -> float:
    """Of the angle between two vectors; 0 where one has no length."""
    length = math.hypot(*a) * math.hypot(*b)
    return math.fsum(x * y for x, y in zip(a, b, strict=True)) / length if length else 0.0


def reader_of(service: Service) -> InputReader:
    """What reads its inputs."""
    return InputReader(service.model.tokenizer, service.client.info)


async def ask(
    service: Service,
    read: Callable[[], list[PoolInput]],
    params: PoolingParams,
    request: AskedVectors,
) -> Answers:
    """Tokenise in a thread, for the event loop never waits for it, then ask the engine.

    Raises RequestError, also what `read` raises.
    """
    inputs = await asyncio.to_thread(read)
    lengths, info = [len(each.token_ids) for each in inputs], service.client.info
    total = sum(lengths)
    if info.per_token and total * vector_width(info, params) > MAX_NUMBERS:
        raise RequestError(
            f"The vectors of {total} tokens would hold over {MAX_NUMBERS} numbers; send fewer "
            "inputs, or shorter ones.",
            "input",
        )
    vectors = await service.client.pool(inputs, params, request.priority or 0)
    return Answers(vectors, lengths)
