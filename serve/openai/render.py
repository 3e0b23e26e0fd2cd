"""POST /v1/chat/completions/render and /v1/completions/render: vLLM's routes that stop where the
model would begin. Other APIs of conversations have one beside their own.

    {"messages": [...], "max_tokens": 5}
    {"request_id": "chatcmpl-...", "token_ids": [...], "sampling_params": {"max_tokens": 5, ...}}

What comes out is a request to `/inference/v1/generate`, of this server or of another that has the
same model; `serve.openai.derender` makes a chat's or a completion's response of its answer.
"""

from typing import Any

import msgspec
from msgspec import UNSET, Struct, UnsetType
from starlette.types import Scope, Send

from engine.errors import RequestError
from engine.sampling.params import SamplingParams
from serve.engine_client import Prompt
from serve.generation.conversation import begin
from serve.http.endpoint import GenerationRoute, send_json
from serve.openai.completions import CompletionsRoute, completion_prompts
from serve.protocol.chat import ChatRequest
from serve.protocol.completions import CompletionRequest
from serve.protocol.decoding import GenerationRequest, RequestT, StreamOptions
from serve.service import Service

_NOT_IN_IDS = (
    "use_beam_search",
    "best_of",
    "return_hidden_states",
    "echo",
    "prompt_embeds",
    "session_params",
    "return_routed_experts",
    "return_spec_tokens_details",
)


class RenderedPrompt(Struct, kw_only=True):
    """A prompt's token ids, and the options in the words of `SamplingParams`."""

    request_id: str
    token_ids: list[int]
    sampling_params: dict[str, Any]
    model: str
    stream: bool
    stream_options: StreamOptions | UnsetType = UNSET
    priority: int | UnsetType = UNSET
    cache_salt: str | UnsetType = UNSET  # with the extra_key in it
    prompt_text: str | UnsetType | None = UNSET  # where return_prompt_text asks for it


class RenderRoute(GenerationRoute[RequestT]):
    """The prompt that a request is to the model."""

    computes = False

    def _cache_owner(self, scope: Scope) -> str:
        return ""  # whose cache it is, is to be said where the ids are sent


class ChatRenderRoute(RenderRoute[ChatRequest]):
    """Of a conversation."""

    kind = ChatRequest

    async def answer(self, request: ChatRequest, request_id: str, send: Send) -> None:
        name = request.response_id("chatcmpl", request_id)
        await send_json(send, await rendered_chat(self.service, request, name))


async def rendered_chat(service: Service, request: ChatRequest, name: str) -> RenderedPrompt:
    """Raises RequestError for what token ids cannot say."""
    _check(request)
    talk = await begin(service, request)
    if talk.prompt.grammar and service.model.thinking is not None:
        raise RequestError(
            "What is demanded of this model's answer depends on where its reasoning ends, which "
            "token ids alone cannot say; ask the route of chats.",
            "tools" if request.tools else "response_format",
        )
    return _rendered(service, request, talk.prompt, name)


class CompletionRenderRoute(RenderRoute[CompletionRequest]):
    """The token ids of each prompt."""

    kind = CompletionRequest
    names = CompletionsRoute.names

    async def answer(self, request: CompletionRequest, request_id: str, send: Send) -> None:
        _check(request)
        prompts = await completion_prompts(self.service, request)
        name = request.response_id("cmpl", request_id)
        names = [name] if len(prompts) == 1 else [f"{name}-{i}" for i in range(len(prompts))]
        await send_json(
            send,
            [
                _rendered(self.service, request, prompt, each)
                for prompt, each in zip(prompts, names, strict=True)
            ],
        )


def _check(request: GenerationRequest) -> None:
    """Raise RequestError for what the answer to token ids cannot have."""
    for name in _NOT_IN_IDS:
        if getattr(request, name, None):
            raise RequestError(f"{name} cannot be rendered; leave it out.", name)


def _rendered(
    service: Service, request: GenerationRequest, prompt: Prompt, name: str
) -> RenderedPrompt:
    return RenderedPrompt(
        request_id=name,
        token_ids=[*(prompt.encoder_token_ids or prompt.token_ids)],
        sampling_params=_options(prompt.params, request.thinking_token_budget),
        model=service.answers_as(prompt),
        stream=bool(request.stream),
        stream_options=request.stream_options or UNSET,
        priority=UNSET if request.priority is None else request.priority,
        cache_salt=request.cache_salt or UNSET,
        prompt_text=prompt.text if request.return_prompt_text else UNSET,
    )


def _options(params: SamplingParams, thinking: int | None) -> dict[str, Any]:
    """All that is said, also what is usual here: the model's own defaults count where it is not."""
    said: dict[str, Any] = msgspec.to_builtins(params)
    del said["detokenize"]
    said["thinking_token_budget"] = thinking
    if params.logprob_token_ids is not None:
        said["logprobs"] = 0
    return {name: value for name, value in said.items() if value is not None}
