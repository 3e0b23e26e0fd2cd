"""From a prompt as it was sent to token ids that the engine may take.

Tokenising runs in a thread, and only for texts that can fit: the event loop never waits for it.
"""

import asyncio
from collections.abc import Sequence

from engine.errors import ContextLengthError, RequestError
from engine.messages import ModelInfo
from engine.tokenizers.tokenizer import Tokenizer
from serve.protocol.decoding import GenerationRequest


async def encode(
    tokenizer: Tokenizer | None,
    texts: Sequence[str],
    *,
    add_special: bool,
    max_tokens: int | None,
    param: str,
    marked: bool = False,
) -> list[list[int]]:
    """Ids of `texts`, which field `param` holds; `marked` as for `Tokenizer.encode`.

    Raises RequestError for a text that cannot fit into `max_tokens` tokens; None takes texts of any
    length, because they will be truncated.
    """
    if tokenizer is None:
        raise RequestError("This model has no tokenizer; send token ids.", param)
    for text in texts:
        if not text:
            raise RequestError("The prompt is empty.", param)
        if max_tokens is not None and len(text) > tokenizer.max_chars(max_tokens):
            raise ContextLengthError(
                f"The prompt has {len(text)} characters, too many for this model's context of "
                f"{max_tokens} tokens.",
                param,
            )
    return await asyncio.to_thread(_encode_all, tokenizer, texts, add_special, marked)


def check_ids(prompt: Sequence[int], vocab_size: int, param: str) -> None:
    """Raise RequestError for an empty prompt or an id outside [0, vocab_size)."""
    if not prompt:
        raise RequestError("The prompt is empty.", param)
    if min(prompt) < 0 or max(prompt) >= vocab_size:
        wrong = next(token for token in prompt if not 0 <= token < vocab_size)
        raise RequestError(
            f"{param} holds {str(wrong)[:40]}, which is no token id of this model "
            f"(0 to {vocab_size - 1}).",
            param,
        )


def longest_prompt(info: ModelInfo) -> int:
    """Tokens that are never too many by themselves."""
    return info.max_encoder_len or info.max_model_len


def divide(prompt: list[int], info: ModelInfo) -> tuple[list[int], list[int]]:
    """What an encoder reads, which is nothing without one, and what the decoder goes on with."""
    return (prompt, list(info.decoder_prompt)) if info.max_encoder_len else ([], prompt)


def truncate(prompt: list[int], request: GenerationRequest, info: ModelInfo) -> list[int]:
    """The last `truncate_prompt_tokens` ids, or the first; -1: what leaves room for the answer,
    with which an encoder's prompt shares none."""
    keep, context = request.truncate_prompt_tokens, longest_prompt(info)
    if keep is None:
        return prompt
    if keep > context:
        raise RequestError(
            f"truncate_prompt_tokens {str(keep)[:40]} exceeds this model's context of {context}.",
            "truncate_prompt_tokens",
        )
    if keep == -1 and info.max_encoder_len:
        keep = context
    if keep == -1:
        keep = max(1, context - (request.limit or 1))
    return prompt[:keep] if request.truncation_side == "right" else prompt[-keep:]


def _encode_all(
    tokenizer: Tokenizer, texts: Sequence[str], add_special: bool, marked: bool
) -> list[list[int]]:
    return [tokenizer.encode(text, add_special, marked=marked) for text in texts]
