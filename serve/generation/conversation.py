"""From a conversation to what the engine is given, for every API that holds conversations.

Each of them says what it wants as a `ChatRequest`; the prompt, its ids and options, and how the
reply is to be read are found here.
"""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial

import msgspec

from engine.errors import RequestError
from engine.reasoning.thoughts import Thoughts
from engine.sampling.params import SamplingParams
from serve.engine_client import Prompt
from serve.generation.beams import beams_of, check_beams, sampling_defaults
from serve.generation.blame import blamed
from serve.generation.demands import demand_of
from serve.generation.prompts import check_ids, divide, encode, longest_prompt, truncate
from serve.generation.routed_experts import rows_told
from serve.generation.sampling import fit, sampling_params
from serve.generation.thinking import thinking_budget, thoughts_of
from serve.native.sampling_mask import with_mask
from serve.operations.metrics import RequestType
from serve.protocol.chat import ChatRequest
from serve.protocol.structured_outputs import Constraint
from serve.protocol.tool_choices import plain_tools
from serve.reply.rules import ReplyRules, reply_rules
from serve.service import Service

_HISTORY = ("presence_penalty", "frequency_penalty", "repetition_penalty", "bad_words")


@dataclass(frozen=True, slots=True)
class Conversation:
    """A conversation that the engine can go on with."""

    request: ChatRequest
    prompt: Prompt
    rules: ReplyRules
    thoughts: Callable[[], Thoughts | None]  # counts the reasoning of one reply


async def begin(
    service: Service, request: ChatRequest, request_type: RequestType = "chat_completions"
) -> Conversation:
    """Raises RequestError, or NotFoundError for a model that is not served."""
    service.check_model(request.model)
    request = plain_tools(request)
    model, info = service.model, service.client.info
    rules = reply_rules(
        request, model.tools, model.thinking, auto_allowed=service.settings.enable_auto_tool_choice
    )
    told = partial(service.metrics.reply_read, request_type, bool(request.stream))
    rules = replace(rules, on_end=told)
    demand = demand_of(request, model, rules, service.settings.structured_outputs_config)
    constraint = demand.constraint if demand else None
    check_beams(request, constraint)
    params = sampling_params(
        request,
        sampling_defaults(request, model.sampling_defaults),
        max_tokens=request.limit,
        logprobs=(request.top_logprobs or 0) if request.logprobs else None,
        structured_outputs=constraint.params if constraint else None,
    )
    if demand is not None:
        rules = demand.read_by(rules)
    if rules.special:
        params = msgspec.structs.replace(params, skip_special_tokens=False)
    params.check_vocabulary(info.vocab_size)
    service.check_logprobs(params, "top_logprobs")
    if request.return_sampling_mask:
        params = with_mask(params, info)
    text, token_ids = await prompt_of(service, request)
    read, own = divide(truncate(token_ids, request, info), info)
    params = fit(params, request, len(own), info.max_model_len, model.default_max_tokens)
    grammar = await _grammar(service, request, demand.of_reply(text) if demand else None)
    beams = beams_of(request, params, info)
    prompt = Prompt(
        text, own, params, request.cache_salt or "", grammar=grammar, beams=beams,
        thinking=thinking_budget(request, model, text, info.max_model_len),
        encoder_token_ids=read, lora=service.adapter_of(request),
        prediction_token_ids=await _predicted(service, request, params),
        hidden="last" if request.return_hidden_states else "none",
        routed=rows_told(request, info) if request_type == "chat_completions" else None,
    )  # fmt: skip
    return Conversation(request, prompt, rules, partial(thoughts_of, model, text))


async def _predicted(service: Service, request: ChatRequest, params: SamplingParams) -> list[int]:
    """The ids of what the answer may be, of which no more than the context holds can be right; none
    where the model's own defaults are penalties, or the server's a watermark, which the request did
    not ask for."""
    tokenizer, most = service.model.tokenizer, service.client.info.max_model_len
    if request.prediction is None or tokenizer is None:
        return []
    if params.looks_back and not any(getattr(request, name) for name in _HISTORY):
        return []
    if service.client.info.watermarks and params.draws and params.watermarking is None:
        return []
    text = request.prediction.text[: tokenizer.max_chars(most)]
    return (await asyncio.to_thread(tokenizer.encode, text, add_special_tokens=False))[:most]


async def _grammar(service: Service, request: ChatRequest, wanted: Constraint | None) -> str:
    """Compiled; raises RequestError that names what is wrong."""
    try:
        return await service.grammar(wanted)
    except RequestError as error:
        if error.param != "tools":
            raise
        forced = request.choice != "auto"
        tools = [t.function for t in request.tools or () if forced or t.function.strict]
        info = service.client.info
        raise await blamed(error, tools, service.grammars, info) from None


async def prompt_of(service: Service, request: ChatRequest) -> tuple[str, list[int]]:
    """The conversation as the model's template writes it, and its ids; raises RequestError."""
    model, info = service.model, service.client.info
    if request.input_ids is not None:
        return await _given(service, request, request.input_ids)
    rendered = await asyncio.to_thread(model.render, request)
    marked = rendered.marked is not None
    truncated = request.truncate_prompt_tokens is not None
    [token_ids] = await encode(
        model.tokenizer,
        [rendered.marked or rendered.text],
        marked=marked,
        add_special=bool(request.add_special_tokens),
        max_tokens=None if truncated else longest_prompt(info),
        param="messages",
    )
    check_ids(token_ids, info.vocab_size, "messages")
    return rendered.text, token_ids


async def _given(
    service: Service, request: ChatRequest, token_ids: list[int]
) -> tuple[str, list[int]]:
    """A prompt that came as ids, and the text of as many of its last as the context holds."""
    info, tokenizer = service.client.info, service.model.tokenizer
    check_ids(token_ids, info.vocab_size, "input_ids")
    last = token_ids[-info.max_model_len :]
    text = await asyncio.to_thread(tokenizer.decode, last, False) if tokenizer else ""
    return text, token_ids
