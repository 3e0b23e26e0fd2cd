"""POST /generate: SGLang's own API, with token ids in and out.

The request is one to `/v1/completions` in other words; so are its checks and its work. Answers are
cumulative when streamed, as SGLang's are.
"""

from collections.abc import Iterator, Mapping, Sequence
from types import MappingProxyType
from typing import Any

import msgspec
from msgspec import UNSET, Struct, UnsetType
from starlette.types import Send

from engine.errors import RequestError
from engine.outputs import OutputDelta, PositionLogprobs
from serve.completions import completion_prompts
from serve.endpoint import GenerationRoute, send_json
from serve.engine_client import Prompt
from serve.protocol import CheckedRequest
from serve.protocol_completions import CompletionRequest
from serve.sse import DATA_ONLY, send_events
from serve.streams import absorb, collect

DEFAULT_NEW_TOKENS = 128
_NAMES = MappingProxyType(
    {
        "max_tokens": "max_new_tokens",
        "min_tokens": "min_new_tokens",
        "seed": "sampling_seed",
        "logprobs": "top_logprobs_num",
    }
)


class GenerateParams(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """SGLang's names of sampling options; None always means "as if it were not sent"."""

    max_new_tokens: int | None = None
    min_new_tokens: int | None = None
    temperature: float | None = None
    top_p: float | None = None
    top_k: int | None = None
    min_p: float | None = None
    stop: str | list[str] | None = None
    stop_regex: str | list[str] | None = None
    no_stop_trim: bool | None = None
    stop_token_ids: list[int] | None = None
    frequency_penalty: float | None = None
    presence_penalty: float | None = None
    repetition_penalty: float | None = None
    logit_bias: dict[int, float] | None = None
    ignore_eos: bool | None = None
    skip_special_tokens: bool | None = None
    spaces_between_special_tokens: bool | None = None
    n: int | None = None
    sampling_seed: int | None = None
    json_schema: str | None = None
    regex: str | None = None
    ebnf: str | None = None
    structural_tag: str | None = None
    stream_interval: int | None = None


class GenerateRequest(CheckedRequest, frozen=True, kw_only=True):
    """A text or ids, or a list of either; one of sampling options for all of them."""

    text: str | list[str] | None = None
    input_ids: list[int | list[int]] | None = None
    sampling_params: GenerateParams = GenerateParams()
    return_logprob: bool | None = None
    top_logprobs_num: int | None = None
    stream: bool | None = None
    rid: str | None = None
    priority: int | None = None
    cache_salt: str | None = None

    @property
    def many(self) -> bool:
        """Whether the answer is a list."""
        prompts = self.text if self.text is not None else self.input_ids
        listed = isinstance(prompts, list) and not isinstance(prompts[0], int)
        return listed or (self.sampling_params.n or 1) > 1

    def check_shared(self) -> None:
        if (self.text is None) == (self.input_ids is None):
            raise RequestError("Send either text or input_ids.", "text")
        if self.text == [] or self.input_ids == []:
            raise RequestError("The prompt is empty.", "text" if self.text == [] else "input_ids")
        if self.top_logprobs_num and not self.return_logprob:
            raise RequestError("top_logprobs_num needs return_logprob.", "top_logprobs_num")
        if self.stream and self.many:
            raise RequestError("Only one answer to one prompt can be streamed.", "stream")

    def as_completion(self) -> CompletionRequest:
        """The same in the words of the completions API; raises RequestError."""
        options = msgspec.structs.asdict(self.sampling_params)
        new, seed = options.pop("max_new_tokens"), options.pop("sampling_seed")
        least, tag = options.pop("min_new_tokens"), options.pop("structural_tag")
        completion = CompletionRequest(
            prompt=self.text if self.text is not None else self.input_ids,  # type: ignore[arg-type]
            max_tokens=new,
            min_tokens=least,
            seed=seed,
            structured_outputs=None if tag is None else {"structural_tag": tag},
            logprobs=(self.top_logprobs_num or 0) if self.return_logprob else None,
            priority=self.priority,
            cache_salt=self.cache_salt,
            rid=self.rid,
            **options,
        )
        completion.check_shared()
        return completion


class MetaInfo(Struct, kw_only=True):
    """Counts, the reason of the end, and log-probabilities as (value, id, text)."""

    id: str
    finish_reason: dict[str, Any] | None
    prompt_tokens: int
    completion_tokens: int
    cached_tokens: int
    output_token_logprobs: list[Any] | UnsetType = UNSET
    output_top_logprobs: list[Any] | UnsetType = UNSET


class Generated(Struct):
    """One answer, or what there is of it when streamed."""

    text: str
    output_ids: list[int]
    meta_info: MetaInfo


class GenerateRoute(GenerationRoute[GenerateRequest]):
    """Ids in, ids out."""

    kind = GenerateRequest

    def names(self, request: GenerateRequest) -> Mapping[str, str]:
        return {**_NAMES, "prompt": "input_ids" if request.text is None else "text"}

    async def answer(self, request: GenerateRequest, request_id: str, send: Send) -> None:
        prompts = await completion_prompts(
            self.service, request.as_completion(), default=DEFAULT_NEW_TOKENS
        )
        view = _View(request, prompts, request.rid or request_id)
        priority = request.priority or 0
        wanted = request.sampling_params.stream_interval
        interval = self.service.stream_interval(request.stream, wanted)
        with self.service.client.generate(request_id, prompts, priority, interval) as stream:
            if request.stream:
                await send_events(send, stream, view, DATA_ONLY)
                return
            deltas = await collect(stream)
        answers = [view.answer(index, deltas[index]) for index in sorted(deltas)]
        await send_json(send, answers if request.many else answers[0])


class _View:
    """Answers so far."""

    def __init__(self, request: GenerateRequest, prompts: Sequence[Prompt], name: str) -> None:
        self._request = request
        self._prompts = prompts
        self._name = name
        self._so_far: OutputDelta | None = None

    def of(self, deltas: dict[int, OutputDelta]) -> Iterator[Generated]:
        """The answer up to now."""
        if self._so_far is None:
            self._so_far = deltas[0]
        else:
            absorb(self._so_far, deltas[0])
        yield self.answer(0, self._so_far)

    def last(self) -> Iterator[Generated]:
        """Nothing more."""
        return iter(())

    def answer(self, index: int, delta: OutputDelta) -> Generated:
        """One answer, as it is in `delta`."""
        prompt = self._prompts[index // self._prompts[0].params.n]
        info = MetaInfo(
            id=self._name,
            finish_reason=_finish_reason(delta, prompt),
            prompt_tokens=prompt.num_tokens,
            completion_tokens=len(delta.token_ids),
            cached_tokens=delta.num_cached_tokens,
        )
        if self._request.return_logprob:
            positions = delta.logprobs or []
            info.output_token_logprobs = [_listed(each)[0] for each in positions]
            if top := self._request.top_logprobs_num:
                info.output_top_logprobs = [_likeliest(each)[:top] for each in positions]
        return Generated(delta.text, delta.token_ids, info)


def _finish_reason(delta: OutputDelta, prompt: Prompt) -> dict[str, Any] | None:
    match delta.finish_reason:
        case None:
            return None
        case "length":
            return {"type": "length", "length": prompt.params.max_tokens}
        case reason:
            matched = {} if delta.stop_reason is None else {"matched": delta.stop_reason}
            return {"type": reason, **matched}


def _listed(position: PositionLogprobs) -> list[tuple[float, int, str | None]]:
    return [(entry.logprob, i, entry.decoded_token) for i, entry in position.items()]


def _likeliest(position: PositionLogprobs) -> list[tuple[float, int, str | None]]:
    return sorted(_listed(position), key=lambda each: -each[0])
