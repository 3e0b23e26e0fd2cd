"""How likely each of some tokens is to come next, behind a query and each of several items.

    POST /v1/score             SGLang's: the probabilities of all labels for each item
    POST /generative_scoring   vLLM's: that of the first label, among the labels unless told not to

A query and an item that are both texts are one text for SGLang; vLLM tokenises them apart. Owns
what these requests mean; how they are answered is as in the completions API, which they are turned
into. Pairs of texts that a model of scores compares are `serve.pooling`'s.
"""

import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType

from msgspec import Struct
from starlette.types import Send

from engine.errors import RequestError
from serve.generation.prompts import encode
from serve.generation.streams import collect
from serve.http.endpoint import GenerationRoute, send_json
from serve.openai.completions import completion_prompts
from serve.pooling.protocol import Score, ScoreList
from serve.protocol.completions import CompletionRequest, TextOrIds
from serve.protocol.decoding import CheckedRequest, Usage, usage_of
from serve.service import Service

LABEL_NAMES: Mapping[str, str] = MappingProxyType(
    {"prompt": "items", "logprob_token_ids": "label_token_ids"}
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """`apart`: query and items are tokenised by themselves. `among_labels`: the probabilities are
    of one of the labels coming next, at this `temperature`, and their sum is 1."""

    query: TextOrIds
    items: Sequence[TextOrIds]
    labels: list[int]
    among_labels: bool
    item_first: bool
    apart: bool
    temperature: float = 1.0
    special: bool = True
    model: str | None = None
    priority: int | None = None
    cache_salt: str | None = None


class LabelScores(Struct, kw_only=True):
    """For each item the probabilities of the labels, in their order."""

    scores: list[list[float]]
    model: str
    usage: Usage
    object: str = "scoring"


class GenerativeScoringRequest(CheckedRequest, frozen=True, kw_only=True):
    """A query and items, behind which the first label is to be expected; texts or token ids."""

    needs = (("query", "items", "label_token_ids"),)
    query: str | list[int] | None = None
    items: list[str | list[int]] | None = None
    label_token_ids: list[int] | None = None
    apply_softmax: bool | None = None  # the probability among the labels: yes, if it is left out
    item_first: bool | None = None
    add_special_tokens: bool | None = None
    model: str | None = None
    priority: int | None = None
    cache_salt: str | None = None
    extra_key: str | None = None  # as in the chat API
    request_id: str | None = None

    def check_shared(self) -> None:
        for name in self.needs[0]:
            if getattr(self, name) is None:
                raise RequestError(f"{name} is missing.", name)


class GenerativeScoringRoute(GenerationRoute[GenerativeScoringRequest]):
    """vLLM's."""

    kind = GenerativeScoringRequest

    def names(self, request: GenerativeScoringRequest) -> Mapping[str, str]:
        return LABEL_NAMES

    async def answer(self, request: GenerativeScoringRequest, request_id: str, send: Send) -> None:
        question = Question(
            query=request.query or "",
            items=request.items or [],
            labels=request.label_token_ids or [],
            among_labels=request.apply_softmax is not False,
            item_first=bool(request.item_first),
            apart=True,
            special=request.add_special_tokens is not False,
            model=request.model,
            priority=request.priority,
            cache_salt=request.cache_salt,
        )
        found = await label_scores(self.service, question, request_id)
        await send_json(
            send,
            ScoreList(
                id=f"generative-scoring-{request.request_id or request_id}",
                created=int(time.time()),
                model=found.model,
                data=[Score(index=i, score=scores[0]) for i, scores in enumerate(found.scores)],
                usage=found.usage,
            ),
        )


async def label_scores(service: Service, question: Question, request_id: str) -> LabelScores:
    """The probabilities; raises RequestError."""
    if not question.labels:
        raise RequestError("label_token_ids must hold at least one id.", "label_token_ids")
    if not question.items:
        raise RequestError("items must hold at least one item.", "items")
    completion = CompletionRequest(
        prompt=await _prompts(service, question),  # type: ignore[arg-type]
        add_special_tokens=question.special,
        max_tokens=1,
        temperature=0.0,
        logprobs=0,
        logprob_token_ids=question.labels,
        model=question.model,
        priority=question.priority,
        cache_salt=question.cache_salt,
    )
    completion.check_shared()
    prompts = await completion_prompts(service, completion)
    with service.client.generate(f"score-{request_id}", prompts, question.priority or 0) as stream:
        deltas = await collect(stream)
    scores = []
    for index in sorted(deltas):
        [position] = deltas[index].logprobs or []
        values = [position[label].logprob for label in question.labels]
        among = question.among_labels
        scores.append(_among(values, question.temperature) if among else [*map(math.exp, values)])
    cached = sum(delta.num_cached_tokens for delta in deltas.values())
    usage = usage_of(sum(each.num_tokens for each in prompts), len(deltas), cached)
    return LabelScores(scores=scores, model=service.answers_as(prompts[0]), usage=usage)


def _among(logprobs: Sequence[float], temperature: float) -> list[float]:
    """The probabilities, where that one of these comes is taken for certain."""
    most = max(logprobs)
    values = [math.exp((each - most) / temperature) for each in logprobs]
    total = sum(values)
    return [each / total for each in values]


async def _prompts(service: Service, question: Question) -> list[TextOrIds]:
    """Query and item, one behind the other; of mixed kinds, or `apart`, as ids."""
    query, items = question.query, question.items
    texts = [each for each in items if isinstance(each, str)]
    if isinstance(query, str) and len(texts) == len(items) and not question.apart:
        return [each + query if question.item_first else query + each for each in texts]
    asked = await _ids(service, [query], "query", special=question.special)
    given = await _ids(service, items, "items", special=False)
    return [each + asked[0] if question.item_first else asked[0] + each for each in given]


async def _ids(
    service: Service, parts: Sequence[TextOrIds], param: str, *, special: bool
) -> list[list[int]]:
    texts = [each for each in parts if isinstance(each, str) and each]
    found = iter(
        await encode(
            service.model.tokenizer,
            texts,
            add_special=special,
            max_tokens=service.client.info.max_model_len,
            param=param,
        )
        if texts
        else ()
    )
    return [(next(found) if each else []) if isinstance(each, str) else each for each in parts]
