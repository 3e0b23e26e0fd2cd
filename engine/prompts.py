"""What a caller may give as a prompt, and its token ids."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from numbers import Integral
from typing import Any

from engine.adapters.request import LoRARequest
from engine.errors import RequestError
from engine.plain_values import string
from engine.tokenizers.tokenizer import Tokenizer
from engine.vectors.prompt_embeds import FIELD

PromptLike = str | Sequence[int] | dict[str, Any]
Adapters = LoRARequest | Sequence[LoRARequest | None] | None


@dataclass(frozen=True)
class Prompt:
    """A text or token ids; the text of a chat holds special tokens and its own beginning.

    Where texts of the chat spell such tokens, `marked` tells them apart
    (`engine.tokenizers.token_guard`).
    """

    text: str | None = None
    ids: Sequence[int] | None = None
    chat: bool = False
    cache_salt: str = ""
    decoder: "Prompt | None" = None  # what the decoder begins with, where an encoder reads this
    marked: str | None = None
    embeds: Any = None  # an array [tokens, D] instead of all these
    lora: LoRARequest | None = None

    def for_model(
        self, tokenizer: Tokenizer | None, start: Sequence[int]
    ) -> tuple[list[int], list[int]]:
        """What an encoder reads, which is nothing without one, and what the decoder goes on with.

        `start` is the beginning of a decoder's text that has an encoder: what is given as such a
        text gets its first id in front, if it has not. Raises as `token_ids`, and for a decoder's
        prompt that no encoder goes with.
        """
        own = self.token_ids(tokenizer)
        if not start:
            if self.decoder is not None:
                raise RequestError("This model has no encoder: give one prompt.", "decoder_prompt")
            return [], own
        if self.decoder is None:
            return own, list(start)
        given = replace(self.decoder, chat=True).token_ids(tokenizer)
        return own, given if given[:1] == [start[0]] else [start[0], *given]

    def token_ids(self, tokenizer: Tokenizer | None) -> list[int]:
        """Raises `RequestError` for an empty text, and for any where the model has no tokenizer."""
        if self.embeds is not None:
            raise RequestError("prompt_embeds cannot be used here; give a text or ids.", FIELD)
        if self.ids is not None:
            return [int(token) for token in self.ids]
        if not self.text:
            raise RequestError("The prompt is empty: it must hold some text.", "prompt")
        if tokenizer is None:
            raise RequestError(
                "This model has no tokenizer: give the prompt as a list of token ids.", "prompt"
            )
        if self.marked is not None:
            return tokenizer.encode(self.marked, not self.chat, marked=True)
        return tokenizer.encode(self.text, add_special_tokens=not self.chat)


def as_prompts(prompts: PromptLike | Sequence[PromptLike]) -> list[Prompt]:
    """One prompt or several, as several; an empty list is no prompt."""
    if isinstance(prompts, str | dict) or not isinstance(prompts, Sequence):
        return [as_prompt(prompts)]
    if prompts and _is_ids(prompts):
        return [as_prompt(prompts)]  # type: ignore[arg-type]
    return [as_prompt(prompt) for prompt in prompts]  # type: ignore[arg-type]


def with_adapters(prompts: list[Prompt], lora_request: Adapters) -> list[Prompt]:
    """The same with one adapter for all of them, or one or none for each."""
    if lora_request is None:
        return prompts
    each: list[LoRARequest | None] = (
        [lora_request] * len(prompts) if isinstance(lora_request, LoRARequest) else [*lora_request]
    )
    if not all(isinstance(lora, LoRARequest | None) for lora in each):
        raise RequestError("lora_request must be a LoRARequest, or a list of them.", "lora_request")
    if len(each) != len(prompts):
        raise RequestError(
            f"{len(each)} lora_requests were given for {len(prompts)} prompts.", "lora_request"
        )
    return [replace(prompt, lora=lora) for prompt, lora in zip(prompts, each, strict=True)]


def as_prompt(prompt: PromptLike) -> Prompt:
    """A text, a list of token ids, or a dict with `prompt_token_ids` or `prompt`, as in vLLM; or
    with `prompt_embeds`, an array [tokens, D], where the engine takes those.

    A dict may have a `cache_salt`: only prompts with the same one share what is cached of them. For
    models with an encoder, which reads any other prompt, it may have an `encoder_prompt` and a
    `decoder_prompt`, each a prompt of these kinds.
    """
    if isinstance(prompt, str):
        return Prompt(text=prompt)
    if isinstance(prompt, dict):
        return _of_dict(prompt)
    if _is_ids(prompt):
        return Prompt(ids=prompt)
    raise RequestError(
        f"A prompt is a string, a list of token ids or a dict, not {type(prompt).__name__}.",
        "prompt",
    )


def _of_dict(prompt: dict[str, Any]) -> Prompt:
    if "encoder_prompt" in prompt:
        return _of_two(prompt)
    if prompt.get(FIELD) is not None:
        return _of_embeds(prompt)
    ids, text = prompt.get("prompt_token_ids"), prompt.get("prompt")
    salt = prompt.get("cache_salt", "")
    known = {"prompt_token_ids", "prompt", "cache_salt"}
    if prompt.keys() - known or (ids is None and text is None):
        raise RequestError(
            'A prompt dict has "prompt" or "prompt_token_ids", and this one has '
            f"{', '.join(map(repr, prompt)) or 'nothing'}.",
            "prompt",
        )
    if (ids is not None and not _is_ids(ids)) or not isinstance(text, str | None):
        raise RequestError('"prompt_token_ids" is a list of integers, "prompt" a text.', "prompt")
    return Prompt(text=text, ids=ids, cache_salt=string("cache_salt", salt))


def _of_embeds(prompt: dict[str, Any]) -> Prompt:
    if prompt.keys() - {FIELD, "cache_salt"}:
        raise RequestError(
            'Beside "prompt_embeds" a prompt dict has "cache_salt" and nothing else.', FIELD
        )
    return Prompt(
        embeds=prompt[FIELD], cache_salt=string("cache_salt", prompt.get("cache_salt", ""))
    )


def _of_two(prompt: dict[str, Any]) -> Prompt:
    if prompt.keys() - {"encoder_prompt", "decoder_prompt"}:
        raise RequestError(
            'Beside "encoder_prompt" a prompt dict has "decoder_prompt" and nothing else.', "prompt"
        )
    decoder = prompt.get("decoder_prompt")
    read = as_prompt(prompt["encoder_prompt"])
    return replace(read, decoder=None if decoder is None else as_prompt(decoder))


def _is_ids(value: object) -> bool:
    """Whether it is a sequence of integers, those of NumPy included; bytes are a text's."""
    return (
        isinstance(value, Sequence)
        and not isinstance(value, bytes | bytearray)
        and all(isinstance(token, Integral) and not isinstance(token, bool) for token in value)
    )
