"""Prompts that come as embeddings: from a request's field to what the engine may take.

Reading them runs in a thread: they have megabytes. What they may be is
`engine.vectors.prompt_embeds`'s.
"""

import asyncio
from collections.abc import Callable, Sequence
from typing import Any

from engine.errors import RequestError
from engine.messages import ModelInfo
from engine.sampling.params import SamplingParams
from engine.vectors.prompt_embeds import (
    FIELD,
    GIVEN,
    MAX_BYTES,
    Rows,
    check_options,
    decode,
    rows_of,
)
from serve.engine_client import Prompt
from serve.generation.sampling import fit
from serve.generation.thinking import thinking_budget
from serve.protocol.completions import CompletionRequest
from serve.protocol.decoding import MAX_PROMPTS
from serve.service import Service

_OF_TOKENS = ("echo", "suffix", "truncate_prompt_tokens", "return_prompt_text")


async def decoded(texts: str | list[str] | None, info: ModelInfo) -> list[Rows]:
    """Of base64 of each prompt; raises RequestError."""
    if texts is None:
        return []
    return await _read(decode, [texts] if isinstance(texts, str) else texts, info)


async def listed(prompts: Sequence[Any], info: ModelInfo) -> list[Rows]:
    """Of lists of numbers, one a token; raises RequestError."""
    return await _read(rows_of, prompts, info)


async def _read(
    read: Callable[[Any, ModelInfo], Rows], prompts: Sequence[Any], info: ModelInfo
) -> list[Rows]:
    if not prompts:
        raise RequestError("The prompt is empty: it must hold at least one row.", FIELD)
    if len(prompts) > MAX_PROMPTS:
        raise RequestError(f"prompt_embeds may hold at most {MAX_PROMPTS} prompts.", FIELD)
    found = await asyncio.to_thread(lambda: [read(prompt, info) for prompt in prompts])
    if sum(rows.nbytes for rows in found) > MAX_BYTES:
        raise RequestError(f"prompt_embeds of a request may take {MAX_BYTES} bytes.", FIELD)
    return found


def check_embeds(request: CompletionRequest, params: SamplingParams) -> None:
    """Raise RequestError for what needs a prompt of tokens."""
    for name in _OF_TOKENS:
        if getattr(request, name):
            raise RequestError(f"{name} cannot be used with prompt_embeds.", name)
    check_options(params, beams=bool(request.use_beam_search))


def embedded_prompt(
    service: Service, request: CompletionRequest, params: SamplingParams, default: int, rows: Rows
) -> Prompt:
    """One prompt with its options, `default` for max_tokens; raises RequestError."""
    context = service.client.info.max_model_len
    return Prompt(
        text=None,
        token_ids=[GIVEN] * len(rows),
        params=fit(params, request, len(rows), context, default),
        cache_salt=request.cache_salt or "",
        thinking=thinking_budget(request, service.model, "", context),
        embeds=rows.tobytes(),
        lora=service.adapter_of(request),
    )
