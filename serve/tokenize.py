"""POST /tokenize and /detokenize: the model's tokenizer, as clients that count tokens need it."""

import asyncio

from msgspec import UNSET, Struct, UnsetType
from starlette.types import Send

from engine.errors import RequestError
from engine.tokenizer import Tokenizer
from serve.conversation import prompt_of
from serve.endpoint import GenerationRoute, send_json
from serve.prompts import check_ids, encode
from serve.protocol import CheckedRequest
from serve.protocol_chat import ChatRequest


class TokenizeRequest(ChatRequest, frozen=True, kw_only=True):
    """A `prompt`, or the `messages` of a conversation with all that its template takes."""

    prompt: str | None = None
    return_token_strs: bool | None = None

    def check_shared(self) -> None:
        if (self.prompt is None) == (self.messages is None):
            raise RequestError("Send either prompt or messages.", "prompt")
        if self.messages is not None:
            super().check_shared()
        elif self.chat_template is not None:
            raise RequestError("chat_template needs messages.", "chat_template")


class Tokens(Struct):
    """The ids of a text."""

    count: int
    max_model_len: int
    tokens: list[int]
    token_strs: list[str] | UnsetType = UNSET


class TokenizeRoute(GenerationRoute[TokenizeRequest]):
    """What ids a text or conversation has."""

    kind = TokenizeRequest
    writes = False

    async def answer(self, request: TokenizeRequest, request_id: str, send: Send) -> None:
        service = self.service
        service.check_model(request.model)
        limit, tokenizer = service.client.info.max_model_len, service.model.tokenizer
        if request.prompt is None:
            _, ids = await prompt_of(service, request)
        else:
            [ids] = await encode(
                tokenizer,
                [request.prompt],
                add_special=request.add_special_tokens is not False,
                max_tokens=limit,
                param="prompt",
            )
        tokens = Tokens(len(ids), limit, ids)
        if request.return_token_strs and tokenizer is not None:
            tokens.token_strs = await asyncio.to_thread(_texts, tokenizer, ids)
        await send_json(send, tokens)


def _texts(tokenizer: Tokenizer, ids: list[int]) -> list[str]:
    return [tokenizer.token_text(each) for each in ids]


class DetokenizeRequest(CheckedRequest, frozen=True, kw_only=True):
    """Ids whose text is wanted, special tokens included."""

    tokens: list[int]
    model: str | None = None


class Text(Struct):
    """The text of ids."""

    prompt: str


class DetokenizeRoute(GenerationRoute[DetokenizeRequest]):
    """What text ids have."""

    kind = DetokenizeRequest
    writes = False

    async def answer(self, request: DetokenizeRequest, request_id: str, send: Send) -> None:
        service = self.service
        service.check_model(request.model)
        tokenizer = service.model.tokenizer
        if tokenizer is None:
            raise RequestError("This model has no tokenizer.", "tokens")
        check_ids(request.tokens, service.client.info.vocab_size, "tokens")
        text = await asyncio.to_thread(tokenizer.decode, request.tokens, False)
        await send_json(send, Text(text))
