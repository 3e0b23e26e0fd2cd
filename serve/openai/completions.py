"""POST /v1/completions: prompts in, continuations out, whole or streamed."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import msgspec
from starlette.types import Scope, Send

from engine.errors import RequestError
from engine.sampling.params import SamplingParams
from engine.vectors.prompt_embeds import Rows
from serve.engine_client import Prompt
from serve.generation.beams import beams_of, check_beams, sampling_defaults
from serve.generation.best_of import drawn
from serve.generation.prompt_embeds import check_embeds, decoded, embedded_prompt
from serve.generation.prompts import check_ids, divide, encode, longest_prompt, truncate
from serve.generation.routed_experts import rows_told
from serve.generation.sampling import fit, sampling_params
from serve.generation.streams import collect
from serve.generation.thinking import thinking_budget
from serve.generation.timing import timeline_to_tell
from serve.http.endpoint import GenerationRoute, send_whole
from serve.http.sse import DATA_ONLY, send_events
from serve.native.session_turns import HeardView, ids_of, own_turn
from serve.native.sessions import Turn
from serve.openai.completion_view import CompletionView
from serve.openai.infill import ends_of, fill_in, infill_of
from serve.protocol.completions import DEFAULT_MAX_TOKENS, CompletionRequest
from serve.protocol.decoding import MAX_PROMPTS
from serve.protocol.structured_outputs import Constraint, constraint_of
from serve.service import Service

_LAST_TOKENS = 64


class CompletionsRoute(GenerationRoute[CompletionRequest]):
    """The older of OpenAI's APIs, and the one that scores prompts."""

    kind = CompletionRequest

    def names(self, request: CompletionRequest) -> Mapping[str, str]:
        return {} if request.best_of is None else {"n": "best_of"}

    async def serve(self, request: CompletionRequest, scope: Scope, send: Send) -> None:
        request_id: str = scope["state"]["request_id"]
        if request.session_params is None:
            await self.answer(request, request_id, send)
            return
        special = request.add_special_tokens is not False
        ids = await ids_of(self.service, request.prompts()[0], add_special=special)
        name = request.response_id("cmpl", request_id)
        with own_turn(self.service, scope, request.session_params, name, ids) as turn:
            whole = msgspec.structs.replace(request, prompt=turn.prompt.tolist())
            await self.answer(whole, request_id, send, turn)

    async def answer(
        self, request: CompletionRequest, request_id: str, send: Send, turn: Turn | None = None
    ) -> None:
        service = self.service
        service.check_model(request.model)
        prompts = await completion_prompts(service, request)
        name, response_id = f"cmpl-{request_id}", request.response_id("cmpl", request_id)
        view = CompletionView(
            request,
            prompts,
            service.model.tokenizer,
            response_id,
            service.answers_as(prompts[0]),
            service.fingerprint,
        )
        interval = service.stream_interval(request.stream, request.stream_interval)
        with service.client.generate(
            name, prompts, request.priority or 0, interval, response_id
        ) as stream:
            view.timeline = timeline_to_tell(service.settings, stream)
            view.timelines = stream.timelines
            shown = view if turn is None else HeardView(view, turn)
            if request.stream:
                await send_events(send, stream, shown, DATA_ONLY)
            else:
                await send_whole(send, shown, await collect(stream))


async def completion_prompts(
    service: Service,
    request: CompletionRequest,
    *,
    default: int = DEFAULT_MAX_TOKENS,
    embeds: Sequence[Rows] = (),
) -> list[Prompt]:
    """Each prompt with its ids and options, `default` for max_tokens; raises RequestError.

    `embeds` are prompts that come as embeddings, besides those that the request holds.
    """
    info = service.client.info
    embeds = [*embeds, *await decoded(request.prompt_embeds, info)]
    sent = [] if embeds and not request.prompt else request.prompts()
    constraint = constraint_of(request)
    if constraint is not None:
        constraint = constraint.written(service.settings.structured_outputs_config)
    check_beams(request, constraint)
    if request.echo and info.max_encoder_len:
        raise RequestError("The prompt is the encoder's and no part of the text to echo.", "echo")
    params = _params(service, request, constraint)
    params.check_vocabulary(info.vocab_size)
    service.check_logprobs(params, "logprobs")
    if embeds:
        check_embeds(request, params)
    if params.n * (len(sent) + len(embeds)) > MAX_PROMPTS:
        raise RequestError(f"n times the number of prompts may be at most {MAX_PROMPTS}.", "n")
    texts = [prompt for prompt in sent if isinstance(prompt, str)]
    ids = [prompt for prompt in sent if not isinstance(prompt, str)]
    if request.suffix:
        params, ids = await _fill_in(service, request, params, texts, ids)
    elif texts:
        ids = await _encode(service, request, texts)
    prompts = [embedded_prompt(service, request, params, default, rows) for rows in embeds]
    prompts += [
        _prompt(service, request, params, default, texts[position] if texts else None, token_ids)
        for position, token_ids in enumerate(ids)
    ]
    grammar = await service.grammar(constraint)
    if request.return_hidden_states:
        prompts = [replace(prompt, hidden="last") for prompt in prompts]
    routed = rows_told(request, info)
    return [replace(prompt, grammar=grammar, routed=routed) for prompt in prompts]


def _prompt(
    service: Service,
    request: CompletionRequest,
    params: SamplingParams,
    default: int,
    text: str | None,
    token_ids: list[int],
) -> Prompt:
    info = service.client.info
    check_ids(token_ids, info.vocab_size, "prompt")
    kept = truncate(token_ids, request, info)
    read, own = divide(kept, info)
    params = fit(params, request, len(own), info.max_model_len, default)
    text = text if kept is token_ids else None
    beams = beams_of(request, params, info)
    thinking = None
    if request.thinking_token_budget is not None:
        shown = text or _end_of(service, own)
        thinking = thinking_budget(request, service.model, shown, info.max_model_len)
    return Prompt(
        text, own, params, request.cache_salt or "", beams=beams, thinking=thinking,
        encoder_token_ids=read, lora=service.adapter_of(request),
    )  # fmt: skip


def _end_of(service: Service, token_ids: list[int]) -> str:
    """The end of a prompt that came as ids, in which it shows whether the model is to think."""
    tokenizer = service.model.tokenizer
    return tokenizer.decode(token_ids[-_LAST_TOKENS:], False) if tokenizer else ""


async def _fill_in(
    service: Service,
    request: CompletionRequest,
    params: SamplingParams,
    texts: list[str],
    ids: list[list[int]],
) -> tuple[SamplingParams, list[list[int]]]:
    """Options and prompts for the gaps between each prompt and the suffix; raises RequestError."""
    tokenizer, form = infill_of(service.model.tokenizer)
    for name in ("echo", "truncate_prompt_tokens", "use_beam_search"):
        if getattr(request, name):
            raise RequestError(f"{name} cannot be used with suffix.", name)
    room: dict[str, Any] = {"add_special": False, "max_tokens": service.client.info.max_model_len}
    [after] = await encode(tokenizer, [request.suffix or ""], param="suffix", **room)
    if texts:
        known = [text for text in texts if text]  # a gap may be at the beginning
        found = iter(await encode(tokenizer, known, param="prompt", **room))
        ids = [next(found) if text else [] for text in texts]
    if not params.ignore_eos:
        stops = dict.fromkeys([*(params.stop_token_ids or ()), *ends_of(tokenizer, form)])
        params = msgspec.structs.replace(params, stop_token_ids=list(stops))
    special = request.add_special_tokens is not False
    return params, [fill_in(tokenizer, form, before, after, special) for before in ids]


async def _encode(
    service: Service, request: CompletionRequest, texts: list[str]
) -> list[list[int]]:
    add_special = request.add_special_tokens
    truncated = request.truncate_prompt_tokens is not None
    return await encode(
        service.model.tokenizer,
        texts,
        add_special=True if add_special is None else add_special,
        max_tokens=None if truncated else longest_prompt(service.client.info),
        param="prompt",
    )


def _params(
    service: Service, request: CompletionRequest, constraint: Constraint | None
) -> SamplingParams:
    count = drawn(request)
    fixed: dict[str, Any] = {
        "n": count, "logprobs": request.logprobs, "max_tokens": request.limit,
    }  # fmt: skip
    if count > (request.n or 1) and request.logprobs is None:
        fixed["logprobs"] = 0  # by which the best are found
    if constraint is not None:
        fixed["structured_outputs"] = constraint.params
    if request.echo and request.logprobs is not None and request.prompt_logprobs is None:
        fixed["prompt_logprobs"] = request.logprobs
    defaults = sampling_defaults(request, service.model.sampling_defaults)
    return sampling_params(request, defaults, **fixed)
