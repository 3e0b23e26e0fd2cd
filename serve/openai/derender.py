"""POST /v1/chat/completions/derender and /v1/completions/derender: what `/inference/v1/generate`
answered, shown as the chat and the completions API show it.

    {"generate_response": {"choices": [{"token_ids": [...], "finish_reason": "stop"}]},
     "chat_request": {...}}       what was sent to `/render`; or "prompt_token_ids"

The token ids go once more through what made texts of them: stop strings cut, tools and reasoning
are taken apart, as if the engine had just said them.
"""

import asyncio
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import msgspec
from msgspec import Struct
from starlette.types import Send

from engine.errors import RequestError
from engine.messages import EngineStats, RequestDelta, StepReport, TokenLogprobs
from engine.output_processor import OutputProcessor
from engine.outputs import OutputDelta
from serve.engine_client import Prompt
from serve.errors import error_of
from serve.generation.conversation import begin
from serve.generation.prompts import check_ids
from serve.http.endpoint import GenerationRoute, send_json
from serve.openai.chat import chat_view
from serve.openai.completion_view import CompletionView
from serve.openai.completions import completion_prompts
from serve.openai.function_view import FunctionView
from serve.protocol.chat import ChatLogprobs, ChatRequest
from serve.protocol.completions import CompletionRequest
from serve.protocol.decoding import CheckedRequest, RequestT, Usage, decode_request
from serve.service import Service

MAX_COUNT = 2**31 - 1
_ID = "token_id:"
_NOT_IN_IDS = (
    "use_beam_search",
    "best_of",
    "return_hidden_states",
    "prompt_logprobs",
    "echo",
    "session_params",
    "return_cached_tokens_details",
)


class GivenChoice(Struct, frozen=True, kw_only=True):
    """One answer in token ids."""

    index: int = 0
    token_ids: list[int]
    logprobs: ChatLogprobs | None = None
    finish_reason: Literal["stop", "length", "abort", "repetition"] | None = None


class GivenResponse(Struct, frozen=True, kw_only=True):
    """What `/inference/v1/generate` answered; what is not needed of it may be there."""

    request_id: str | None = None
    choices: list[GivenChoice]


class DerenderFields(CheckedRequest, frozen=True, kw_only=True):
    """Fields of both."""

    model: str | None = None
    stream: bool | None = None

    def check_shared(self) -> None:
        if self.stream:
            raise RequestError("derender takes whole answers; leave out stream.", "stream")


class DerenderChatRequest(DerenderFields, frozen=True, kw_only=True):
    """The answers to one conversation in token ids, and that conversation."""

    needs = (("generate_response", "chat_request"), ("generate_response", "prompt_token_ids"))
    generate_response: GivenResponse | None = None
    chat_request: dict[str, Any] | None = None  # as the chat API takes it
    prompt_token_ids: list[int] | None = None
    prompt_tokens: int | None = None  # for `usage`; it is known from either of the two above

    def check_shared(self) -> None:
        super().check_shared()
        if self.generate_response is None:
            raise RequestError("generate_response is missing.", "generate_response")
        if self.chat_request is None and self.prompt_token_ids is None:
            raise RequestError("Send chat_request or prompt_token_ids.", "chat_request")
        _check_counts([] if self.prompt_tokens is None else [self.prompt_tokens])

    def as_chat(self) -> ChatRequest:
        """What was asked; raises RequestError."""
        given = self.chat_request or {"input_ids": self.prompt_token_ids}
        return _asked(given, ChatRequest)


class DerenderCompletionRequest(DerenderFields, frozen=True, kw_only=True):
    """The answers to each of some prompts in token ids, and these prompts."""

    needs = (
        ("generate_responses", "completion_request"), ("generate_responses", "prompt_token_ids"),
    )  # fmt: skip
    generate_responses: list[GivenResponse] | None = None
    completion_request: dict[str, Any] | None = None  # as the completions API takes it
    prompt_token_ids: list[list[int]] | None = None
    prompt_tokens: list[int] | None = None

    def check_shared(self) -> None:
        super().check_shared()
        if not self.generate_responses:
            raise RequestError("There must be a response at least.", "generate_responses")
        if self.completion_request is None and self.prompt_token_ids is None:
            raise RequestError("Send completion_request or prompt_token_ids.", "completion_request")
        if self.prompt_tokens is not None:
            _check_counts(self.prompt_tokens)
            if len(self.prompt_tokens) != len(self.generate_responses):
                raise RequestError(
                    f"There are {len(self.generate_responses)} generate_responses, and "
                    f"{len(self.prompt_tokens)} prompt_tokens.",
                    "prompt_tokens",
                )

    def as_completion(self) -> CompletionRequest:
        """What was asked; raises RequestError."""
        given = self.completion_request or {"prompt": self.prompt_token_ids}
        return _asked(given, CompletionRequest)


def _check_counts(counts: Sequence[int]) -> None:
    if any(not 0 <= count <= MAX_COUNT for count in counts):
        raise RequestError(f"prompt_tokens must be between 0 and {MAX_COUNT}.", "prompt_tokens")


def _asked(given: dict[str, Any], kind: type[RequestT]) -> RequestT:
    """As a request of its own, that a stream may have answered in the meantime."""
    plain = {
        name: value for name, value in given.items() if name not in ("stream", "stream_options")
    }
    for name in _NOT_IN_IDS:
        if plain.get(name):
            raise RequestError(f"{name} is nothing that token ids can show; leave it out.", name)
    return decode_request(msgspec.json.encode(plain), kind)


class DerenderChatRoute(GenerationRoute[DerenderChatRequest]):
    """Token ids as a chat's answer."""

    kind = DerenderChatRequest
    computes = False

    async def answer(self, request: DerenderChatRequest, request_id: str, send: Send) -> None:
        service, asked = self.service, request.as_chat()
        service.check_model(request.model)
        talk = await begin(service, asked)
        given = request.generate_response or GivenResponse(choices=[])
        deltas = await asyncio.to_thread(read_again, service, [talk.prompt], [given])
        name = given.request_id or asked.response_id("chatcmpl", request_id)
        view = chat_view(service, talk, name)
        whole = (FunctionView(view) if asked.functions else view).whole(deltas)
        whole.usage = _counted(whole.usage, request.prompt_tokens)
        await send_json(send, whole)


class DerenderCompletionRoute(GenerationRoute[DerenderCompletionRequest]):
    """Token ids as continuations."""

    kind = DerenderCompletionRequest
    computes = False

    def names(self, request: DerenderCompletionRequest) -> Mapping[str, str]:
        return {"generate_response": "generate_responses"}

    async def answer(self, request: DerenderCompletionRequest, request_id: str, send: Send) -> None:
        service, asked = self.service, request.as_completion()
        service.check_model(request.model)
        service.check_model(asked.model)
        prompts = await completion_prompts(service, asked)
        given = request.generate_responses or []
        if len(given) != len(prompts):
            raise RequestError(
                f"There are {len(prompts)} prompts, and {len(given)} generate_responses.",
                "generate_responses",
            )
        deltas = await asyncio.to_thread(read_again, service, prompts, given)
        view = CompletionView(
            asked,
            prompts,
            service.model.tokenizer,
            asked.response_id("cmpl", request_id),
            service.answers_as(prompts[0]),
            service.fingerprint,
        )
        whole = view.whole(deltas)
        if isinstance(whole.usage, Usage):
            told = request.prompt_tokens
            whole.usage = _counted(whole.usage, None if told is None else sum(told))
        await send_json(send, whole)


def _counted(usage: Usage, prompt_tokens: int | None) -> Usage:
    """With the caller's count of the prompt's tokens."""
    if prompt_tokens is None:
        return usage
    total = prompt_tokens + usage.completion_tokens
    return msgspec.structs.replace(usage, prompt_tokens=prompt_tokens, total_tokens=total)


def read_again(
    service: Service, prompts: Sequence[Prompt], given: Sequence[GivenResponse]
) -> dict[int, OutputDelta]:
    """What the engine said, from its token ids: choice p * n + i is answer i to prompt p.

    Raises RequestError for answers that are none to these prompts.
    """
    processor = OutputProcessor(service.model.tokenizer)
    found: dict[int, OutputDelta] = {}
    for place, (prompt, response) in enumerate(zip(prompts, given, strict=True)):
        count = prompt.params.n
        choices = {choice.index: choice for choice in response.choices}
        if sorted(choices) != list(range(count)) or len(choices) != len(response.choices):
            raise RequestError(
                f"A response must have choices 0 to {count - 1}, once each, for n is {count}.",
                "generate_response",
            )
        begun = processor.add(str(place), prompt.token_ids, prompt.params, grammar=prompt.grammar)
        ids = [each for request in begun for each in request.sequences]
        deltas = [_delta(service, prompt, ids[i], choices[i]) for i in range(count)]
        for output in processor.process(StepReport(deltas=deltas, stats=EngineStats())).outputs:
            if output.finish_reason == "error":
                raise error_of(output)
            found[place * count + output.index] = output
    return found


def _delta(service: Service, prompt: Prompt, engine_id: int, choice: GivenChoice) -> RequestDelta:
    """One answer, as the engine tells it in one step."""
    info, ids = service.client.info, choice.token_ids
    if ids:
        check_ids(ids, info.vocab_size, "token_ids")
    if len(ids) > info.max_model_len:
        raise RequestError(
            f"An answer has at most {info.max_model_len} tokens, got {len(ids)}.", "token_ids"
        )
    ended = choice.finish_reason == "stop" and bool(ids)
    named = ended and ids[-1] in (prompt.params.stop_token_ids or ())
    by_token = ended and (named or ids[-1] in info.eos_token_ids)
    return RequestDelta(
        request_id=engine_id,
        new_token_ids=ids,
        finish_reason=choice.finish_reason or "length",
        complete=not by_token,
        stop_token_id=ids[-1] if named and ids[-1] not in info.eos_token_ids else None,
        logprobs=_logprobs(prompt, choice),
    )


def _logprobs(prompt: Prompt, choice: GivenChoice) -> list[TokenLogprobs] | None:
    """Raises RequestError for none where they are wanted, or other ones than of the tokens."""
    wanted = prompt.params.logprobs is not None or prompt.params.logprob_token_ids is not None
    if not wanted:
        return None
    said = choice.logprobs.content if choice.logprobs else []
    if len(said) != len(choice.token_ids):
        raise RequestError(
            "logprobs are asked for, so each of token_ids needs one of its own.", "logprobs"
        )
    found = []
    for token_id, entry in zip(choice.token_ids, said, strict=True):
        ids = [_token_id(top.token) for top in entry.top_logprobs]
        rank = (ids.index(token_id) if token_id in ids else len(ids)) + 1
        scores = [entry.logprob, *(top.logprob for top in entry.top_logprobs)]
        found.append(TokenLogprobs([token_id, *ids], scores, rank))
    return found


def _token_id(token: str) -> int:
    number = token.removeprefix(_ID)
    if number == token or not number.isascii() or not number.isdigit() or len(number) > 9:
        raise RequestError(f"logprobs must name tokens as {_ID}5, got {token[:40]!a}.", "logprobs")
    return int(number)
