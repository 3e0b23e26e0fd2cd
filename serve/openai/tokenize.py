"""POST /tokenize and /detokenize: the model's tokenizer, as clients that count tokens need it.

vLLM's and SGLang's: the latter takes lists of texts and of ids, too, calls `text` what the former
calls `prompt`, and can leave special tokens out of it.
"""

import asyncio
from collections.abc import Sequence
from typing import Any

from msgspec import UNSET, Struct, UnsetType
from msgspec.structs import asdict
from starlette.types import Send

from engine.errors import RequestError
from engine.tokenizers.tokenizer import Tokenizer
from serve.generation.conversation import prompt_of
from serve.generation.prompts import check_ids, encode
from serve.http.endpoint import GenerationRoute, send_json
from serve.protocol.chat import ChatMessage, ChatRequest
from serve.protocol.decoding import MAX_PROMPTS, CheckedRequest
from serve.protocol.template_fields import check_template_fields
from serve.protocol.tools import Tool

_OF_MESSAGES = {
    "add_generation_prompt": True,
    "continue_final_message": False,
    "chat_template": None,
    "chat_template_kwargs": None,
    "documents": None,
    "tools": None,
    "reasoning_effort": None,
}


class TokenizeRequest(CheckedRequest, frozen=True, kw_only=True):
    """A `prompt`, or the `messages` of a conversation with all that its template takes."""

    needs = (("prompt",), ("messages",))
    model: str | None = None
    prompt: str | list[str] | None = None
    add_special_tokens: bool | None = None
    return_token_strs: bool | None = None
    messages: list[ChatMessage] | None = None  # this and what follows as in the chat API
    add_generation_prompt: bool | None = None
    continue_final_message: bool | None = None
    chat_template: str | None = None
    chat_template_kwargs: dict[str, Any] | None = None
    documents: list[dict[str, Any]] | None = None
    tools: list[Tool] | None = None
    reasoning_effort: str | None = None

    def check_shared(self) -> None:
        if (self.prompt is None) == (self.messages is None):
            raise RequestError("Send either prompt or messages.", "prompt")
        if self.messages is not None:
            self.conversation().check_shared()
            return
        check_template_fields(self, _OF_MESSAGES, "prompt")
        if self.prompt == [] or (isinstance(self.prompt, list) and len(self.prompt) > MAX_PROMPTS):
            raise RequestError(f"prompt must hold 1 to {MAX_PROMPTS} texts.", "prompt")

    def conversation(self) -> ChatRequest:
        """`messages`, as the chat API takes them."""
        given = {name: getattr(self, name) for name in _OF_MESSAGES}
        return ChatRequest(
            messages=self.messages, add_special_tokens=self.add_special_tokens, **given
        )


class Tokens(Struct):
    """The ids of a text, or of each of several."""

    count: int | list[int]
    max_model_len: int
    tokens: Sequence[int | Sequence[int]]
    token_strs: Sequence[str | Sequence[str]] | UnsetType = UNSET


class TokenizeRoute(GenerationRoute[TokenizeRequest]):
    """What ids a text or conversation has."""

    kind = TokenizeRequest
    writes = False
    computes = False

    async def answer(self, request: TokenizeRequest, request_id: str, send: Send) -> None:
        service = self.service
        service.check_model(request.model)
        limit, tokenizer = service.client.info.max_model_len, service.model.tokenizer
        prompt = request.prompt
        if prompt is None:
            _, ids = await prompt_of(service, request.conversation())
            found = [ids]
        else:
            found = await encode(
                tokenizer,
                [prompt] if isinstance(prompt, str) else prompt,
                add_special=request.add_special_tokens is not False,
                max_tokens=limit,
                param="prompt",
            )
        names = None
        if request.return_token_strs and tokenizer is not None:
            names = await asyncio.to_thread(_texts, tokenizer, found)
        several = Tokens([len(ids) for ids in found], limit, found, names or UNSET)
        await send_json(send, several if isinstance(prompt, list) else _only(several))


def _only(tokens: Tokens) -> Tokens:
    """Of one text, without the lists around it."""
    alone: dict[str, Any] = {
        name: value[0] if isinstance(value, list) else value
        for name, value in asdict(tokens).items()
    }
    return Tokens(**alone)


def _texts(tokenizer: Tokenizer, lists: list[list[int]]) -> list[list[str]]:
    return [[tokenizer.token_text(each) for each in ids] for ids in lists]


class DetokenizeRequest(CheckedRequest, frozen=True, kw_only=True):
    """Ids whose text is wanted, special tokens included unless they are to be skipped."""

    tokens: list[int | list[int]]
    model: str | None = None
    skip_special_tokens: bool | None = None

    @property
    def lists(self) -> list[list[int]]:
        """The lists of ids; one, if `tokens` are ids. Raises RequestError for a mixture."""
        ids = [each for each in self.tokens if isinstance(each, int)]
        lists = [each for each in self.tokens if isinstance(each, list)]
        if ids and lists:
            raise RequestError("tokens must hold ids only, or lists of ids only.", "tokens")
        return lists or [ids]


class Text(Struct):
    """The text of ids, or of each of several lists of them, under both names."""

    prompt: str | list[str]
    text: str | list[str]


class DetokenizeRoute(GenerationRoute[DetokenizeRequest]):
    """What text ids have."""

    kind = DetokenizeRequest
    writes = False
    computes = False

    async def answer(self, request: DetokenizeRequest, request_id: str, send: Send) -> None:
        service = self.service
        service.check_model(request.model)
        tokenizer = service.model.tokenizer
        if tokenizer is None:
            raise RequestError("This model has no tokenizer.", "tokens")
        lists = request.lists
        for ids in lists:
            check_ids(ids, service.client.info.vocab_size, "tokens")
        skip = bool(request.skip_special_tokens)
        texts = await asyncio.to_thread(lambda: [tokenizer.decode(ids, skip) for ids in lists])
        shown = texts if isinstance(request.tokens[0], list) else texts[0]
        await send_json(send, Text(shown, shown))
