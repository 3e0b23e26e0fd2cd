"""POST /v1/chat/completions/derender and /v1/completions/derender: what `/inference/v1/generate`
answered, shown as the chat and the completions API show it.

    {"generate_response": {"choices": [{"token_ids": [...], "finish_reason": "stop"}]},
     "chat_request": {...}}       what was sent to `/render`; or "prompt_token_ids"

The token ids go once more through what made texts of them: stop strings cut, tools and reasoning
are taken apart, as if the engine had just said them.
"""

import asyncio
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import msgspec
from starlette.types import Send

from engine.errors import RequestError
from serve.generation.conversation import begin
from serve.http.endpoint import GenerationRoute, send_json
from serve.openai.chat import chat_view
from serve.openai.completion_view import CompletionView
from serve.openai.completions import completion_prompts
from serve.openai.derender_stream import StreamState, chat_piece, completion_piece
from serve.openai.function_view import FunctionView
from serve.openai.given_tokens import GivenChunk, GivenResponse, read_again
from serve.protocol.chat import ChatRequest
from serve.protocol.completions import CompletionRequest
from serve.protocol.decoding import CheckedRequest, RequestT, Usage, decode_request

MAX_COUNT = 2**31 - 1
_NOT_IN_IDS = (
    "use_beam_search",
    "best_of",
    "return_hidden_states",
    "prompt_logprobs",
    "echo",
    "session_params",
    "return_cached_tokens_details",
)


class DerenderFields(CheckedRequest, frozen=True, kw_only=True):
    """Fields of both; `stream`: a chunk is given, and what `stream_state` was last answered for its
    choice."""

    model: str | None = None
    stream: bool | None = None
    generate_chunk: GivenChunk | None = None
    stream_state: StreamState | None = None

    def check_given(self, whole: object, name: str) -> None:
        """Raise RequestError unless there is what `stream` says, and only that."""
        wanted, other = ("generate_chunk", name) if self.stream else (name, "generate_chunk")
        given = {"generate_chunk": self.generate_chunk, name: whole}
        if not given[wanted]:
            raise RequestError(f"{wanted} is missing.", wanted)
        if given[other] or (self.stream_state and not self.stream):
            wrong = other if given[other] else "stream_state"
            raise RequestError(f"{wrong} does not go with stream {bool(self.stream)}.", wrong)


class DerenderChatRequest(DerenderFields, frozen=True, kw_only=True):
    """The answers to one conversation in token ids, and that conversation."""

    needs = (
        ("generate_response", "chat_request"), ("generate_response", "prompt_token_ids"),
        ("generate_chunk", "chat_request"), ("generate_chunk", "prompt_token_ids"),
    )  # fmt: skip
    generate_response: GivenResponse | None = None
    chat_request: dict[str, Any] | None = None  # as the chat API takes it
    prompt_token_ids: list[int] | None = None
    prompt_tokens: int | None = None  # for `usage`; it is known from either of the two above

    def check_shared(self) -> None:
        self.check_given(self.generate_response, "generate_response")
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
        ("generate_chunk", "completion_request"), ("generate_chunk", "prompt_token_ids"),
    )  # fmt: skip
    generate_responses: list[GivenResponse] | None = None
    completion_request: dict[str, Any] | None = None  # as the completions API takes it
    prompt_token_ids: list[list[int] | int] | None = None
    prompt_tokens: list[int] | int | None = None  # a number, with one prompt

    def check_shared(self) -> None:
        self.check_given(self.generate_responses, "generate_responses")
        if self.completion_request is None and self.prompt_token_ids is None:
            raise RequestError("Send completion_request or prompt_token_ids.", "completion_request")
        told = self.told or [0] * self.num_prompts
        _check_counts(told)
        if len(told) != self.num_prompts:
            raise RequestError(
                f"There are {self.num_prompts} prompts, and {len(told)} prompt_tokens.",
                "prompt_tokens",
            )

    @property
    def num_prompts(self) -> int:
        return len(self.generate_responses or [None])

    @property
    def told(self) -> list[int]:
        """Tokens of each prompt, as the caller counts them; none if it does not."""
        if self.prompt_tokens is None:
            return []
        return self.prompt_tokens if isinstance(self.prompt_tokens, list) else [self.prompt_tokens]

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
        given = request.generate_chunk or request.generate_response or GivenResponse(choices=[])
        view = chat_view(
            service, talk, given.request_id or asked.response_id("chatcmpl", request_id)
        )
        if isinstance(given, GivenChunk):
            if asked.functions:
                raise RequestError("functions are not streamed here; send tools.", "chat_request")
            read = partial(chat_piece, service, talk.prompt, view, given, request.stream_state)
            piece = await asyncio.to_thread(read)
            if given.usage is not None:
                piece.chunk.usage = _counted(given.usage, request.prompt_tokens)
            await send_json(send, piece)
            return
        deltas = await asyncio.to_thread(read_again, service, [talk.prompt], [given])
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
        if len(prompts) != request.num_prompts:
            raise RequestError(
                f"There are {len(prompts)} prompts, and {request.num_prompts} generate_responses.",
                "generate_responses",
            )
        given = request.generate_chunk
        view = CompletionView(
            asked,
            prompts,
            service.model.tokenizer,
            (given.request_id if given else None) or asked.response_id("cmpl", request_id),
            service.answers_as(prompts[0]),
            service.fingerprint,
        )
        told = sum(request.told) if request.told else None
        if given is not None:
            read = partial(completion_piece, service, prompts[0], view, given, request.stream_state)
            piece = await asyncio.to_thread(read)
            if given.usage is not None:
                piece.chunk.usage = _counted(given.usage, told)
            await send_json(send, piece)
            return
        answers = request.generate_responses or []
        whole = view.whole(await asyncio.to_thread(read_again, service, prompts, answers))
        if isinstance(whole.usage, Usage):
            whole.usage = _counted(whole.usage, told)
        await send_json(send, whole)


def _counted(usage: Usage, prompt_tokens: int | None) -> Usage:
    """With the caller's count of the prompt's tokens."""
    if prompt_tokens is None:
        return usage
    total = prompt_tokens + usage.completion_tokens
    return msgspec.structs.replace(usage, prompt_tokens=prompt_tokens, total_tokens=total)
