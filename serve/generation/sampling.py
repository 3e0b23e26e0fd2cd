"""From a request's fields to `SamplingParams`: what it set, over the model's own defaults.

The bounds are `SamplingParams`'; nothing is checked twice.
"""

from collections.abc import Mapping
from typing import Any

import msgspec

from engine.errors import ContextLengthError
from engine.sampling.params import SamplingParams
from serve.protocol.decoding import GenerationRequest

_SHARED = sorted(
    set(GenerationRequest.__struct_fields__)
    & set(SamplingParams.__struct_fields__)
    - {"max_tokens", "structured_outputs", "thinking_token_budget"}  # which have their own ways
)


def sampling_params(
    request: GenerationRequest, defaults: Mapping[str, Any], **fixed: Any
) -> SamplingParams:
    """The options of `request`, `fixed` ones over them; raises RequestError naming the field."""
    given = {name: getattr(request, name) for name in _SHARED}
    wanted = {name: value for name, value in given.items() if value is not None}
    if request.no_stop_trim:
        wanted["include_stop_str_in_output"] = True
    if request.routed_experts_start_len is not None:
        wanted["routed_experts_prompt_start"] = request.routed_experts_start_len
    if request.watermark is not None:
        wanted["watermarking"] = request.watermark.enabled
    if arguments := request.vllm_xargs or request.custom_params:
        wanted["extra_args"] = arguments
    if request.logprob_token_ids is not None:  # they go before the likeliest
        fixed["logprobs"] = None
    return SamplingParams(**{**defaults, **wanted, **fixed})


def fit(
    params: SamplingParams,
    request: GenerationRequest,
    prompt_tokens: int,
    context: int,
    default: int | None,
) -> SamplingParams:
    """`params` with `max_tokens`: the request's, else the `default`, else the rest of `context`.

    Raises ContextLengthError if the prompt, or it and what is asked for, exceed the context.
    """
    room = context - prompt_tokens
    if room < 1:
        raise ContextLengthError(
            f"The prompt has {prompt_tokens} tokens; this model's context holds {context}, and at "
            "least one must be left to generate.",
            "messages" if "messages" in request.__struct_fields__ else "prompt",
        )
    wanted = request.limit
    if wanted is not None and wanted > room:
        raise ContextLengthError(
            f"This model's context holds {context} tokens; the prompt has {prompt_tokens} and "
            f"{request.limit_name} asks for {str(wanted)[:40]} more. Ask for at most {room}.",
            request.limit_name,
        )
    limit = min(room, default or room) if wanted is None else wanted
    return msgspec.structs.replace(params, max_tokens=limit)
