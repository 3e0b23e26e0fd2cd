"""POST /inference/v1/generate: vLLM's route for programs that have the tokenizer themselves.

Token ids in, token ids out, with the names of `SamplingParams`; no text is shown. The request is
one to `/v1/completions` in other words, and so are its checks and its work.
"""

import time
from collections.abc import Iterator, Mapping
from typing import Any

import msgspec
from msgspec import UNSET, Struct, UnsetType
from starlette.types import Send

from engine.errors import RequestError
from engine.messages import FinishReason
from engine.outputs import OutputDelta
from serve.engine_client import Prompt
from serve.generation.logprobs import chat_logprobs, prompt_logprobs
from serve.generation.routed_experts import as_file
from serve.generation.streams import collect
from serve.generation.usage import TokenCounter
from serve.http.endpoint import GenerationRoute, send_whole
from serve.http.sse import DATA_ONLY, send_events
from serve.openai.completions import completion_prompts
from serve.protocol.chat import ChatLogprobs
from serve.protocol.completions import CompletionRequest
from serve.protocol.decoding import CheckedRequest, SamplingFields, StreamOptions, Usage

_NAMES = {"prompt": "token_ids", "extra_args": "extra_args", "vllm_xargs": "extra_args"}


class TokenParams(SamplingFields, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """vLLM's sampling parameters; without `max_tokens`, as many as the context has room for."""

    logprobs: int | None = None
    prompt_logprobs_start: int | None = None
    stop_regex: str | list[str] | None = None
    detokenize: bool | None = None  # of what is not shown
    extra_args: dict[str, Any] | None = None


class TokensRequest(CheckedRequest, frozen=True, kw_only=True):
    """A prompt's token ids, which are gone on with."""

    needs = (("token_ids",),)
    token_ids: list[int] | None = None
    sampling_params: TokenParams = TokenParams()
    model: str | None = None
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    request_id: str | None = None
    priority: int | None = None
    cache_salt: str | None = None
    extra_key: str | None = None  # as in the chat API

    def check_shared(self) -> None:
        if not self.token_ids:
            wrong = "is missing" if self.token_ids is None else "is empty: send one id at least"
            raise RequestError(f"token_ids {wrong}.", "token_ids")

    def as_completion(self) -> CompletionRequest:
        """The same in the words of the completions API; raises RequestError."""
        options = msgspec.structs.asdict(self.sampling_params)
        del options["detokenize"]
        completion = CompletionRequest(
            prompt=self.token_ids,  # type: ignore[arg-type]
            vllm_xargs=options.pop("extra_args"),
            model=self.model,
            stream=self.stream,
            stream_options=self.stream_options,
            request_id=self.request_id,
            priority=self.priority,
            cache_salt=self.cache_salt,
            **options,
        )
        completion.check_shared()
        return completion


class TokensChoice(Struct):
    """One continuation, or a piece of it when streamed."""

    index: int
    token_ids: list[int]
    logprobs: ChatLogprobs | None = None
    finish_reason: FinishReason | None = None
    routed_experts: str | UnsetType = UNSET  # `serve.generation.routed_experts`


class TokensGenerated(Struct, kw_only=True):
    """The whole response, or one chunk of it when streamed; a chunk may lack `usage`."""

    request_id: str
    model: str
    created: int
    choices: list[TokensChoice]
    usage: Usage | UnsetType = UNSET
    prompt_logprobs: list[Any] | UnsetType = UNSET


class TokensView:
    """One response."""

    def __init__(
        self, request: CompletionRequest, prompt: Prompt, request_id: str, model_name: str
    ) -> None:
        self._request = request
        self._id, self._model, self._created = request_id, model_name, int(time.time())
        self._counter = TokenCounter([prompt.num_tokens], prompt.params.n)

    def of(self, deltas: dict[int, OutputDelta]) -> Iterator[TokensGenerated]:
        """One chunk for each choice that has news."""
        for index, delta in deltas.items():
            chunk = self._generated([self._choice(index, delta)])
            if self._request.continuous_usage:
                chunk.usage = self._counter.of_choice(index)
            yield chunk

    def last(self) -> Iterator[TokensGenerated]:
        """The counts, if they are wanted."""
        if self._request.include_usage:
            chunk = self._generated([])
            chunk.usage = self._counter.total()
            yield chunk

    def whole(self, deltas: dict[int, OutputDelta]) -> TokensGenerated:
        """The response that is not streamed."""
        found = self._generated([self._choice(index, deltas[index]) for index in sorted(deltas)])
        found.usage = self._counter.total()
        if self._request.prompt_logprobs is not None:
            found.prompt_logprobs = prompt_logprobs(deltas[0].prompt_logprobs or [None])
        return found

    def _choice(self, index: int, delta: OutputDelta) -> TokensChoice:
        self._counter.add(index, delta)
        choice = TokensChoice(index, delta.token_ids, finish_reason=delta.finish_reason)
        if self._request.logprobs is not None:
            choice.logprobs = chat_logprobs(
                delta.logprobs or [],
                self._request.logprobs,
                as_ids=True,
                named=self._request.logprob_token_ids,
            )
        if delta.routed_experts:
            choice.routed_experts = as_file(delta.routed_experts)
        return choice

    def _generated(self, choices: list[TokensChoice]) -> TokensGenerated:
        return TokensGenerated(
            request_id=self._id, model=self._model, created=self._created, choices=choices
        )


class TokensRoute(GenerationRoute[TokensRequest]):
    """Ids in, ids out."""

    kind = TokensRequest

    def names(self, request: TokensRequest) -> Mapping[str, str]:
        return _NAMES

    async def answer(self, request: TokensRequest, request_id: str, send: Send) -> None:
        service = self.service
        completion = request.as_completion()
        room = service.client.info.max_model_len
        [prompt] = await completion_prompts(service, completion, default=room)
        shown = request.request_id or request_id
        view = TokensView(completion, prompt, shown, service.answers_as(prompt))
        interval = service.stream_interval(request.stream)
        with service.client.generate(
            request_id, [prompt], request.priority or 0, interval, shown
        ) as stream:
            if request.stream:
                await send_events(send, stream, view, DATA_ONLY)
            else:
                await send_whole(send, view, await collect(stream))
