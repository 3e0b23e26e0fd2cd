"""A generation route as an ASGI application: read, decode, serve; stop when the client leaves."""

import re
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from functools import partial
from typing import ClassVar, Generic, Protocol

import msgspec
from starlette.types import Receive, Scope, Send

from engine.errors import RequestError
from engine.outputs import OutputDelta
from serve.generation.cache_namespace import own_namespace
from serve.generation.logprobs import aside
from serve.http.body import read_body
from serve.http.disconnect import ClientDisconnected, unless_disconnected
from serve.http.owner import owner_of
from serve.http.whole import send_body
from serve.protocol.decoding import CheckedRequest, RequestT, decode_request
from serve.service import Service


class GenerationRoute(ABC, Generic[RequestT]):
    """A subclass says what it takes and how it answers; everything else is the same for all."""

    kind: ClassVar[type]
    writes: ClassVar[bool] = True  # needs a model that writes text
    computes: ClassVar[bool] = True  # so a pause is waited for
    may_be_empty: ClassVar[bool] = False  # a request without a body is one without fields

    def __init__(self, service: Service) -> None:
        self.service = service

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            most, may_be_empty = self.service.settings.max_body_bytes, self.may_be_empty
            body = await read_body(scope, receive, most, may_be_empty=may_be_empty)
            request: RequestT = decode_request(body or b"{}" if may_be_empty else body, self.kind)
            request = own_namespace(request, self._cache_owner(scope))
            if self.writes:
                self.service.check_writes()
            await unless_disconnected(receive, self._serve(request, scope, send))
        except ClientDisconnected:
            pass

    def _cache_owner(self, scope: Scope) -> str:
        return owner_of(scope) if self.service.settings.isolate_prefix_cache else ""

    async def serve(self, request: RequestT, scope: Scope, send: Send) -> None:
        """`answer`; a route that needs more of the scope overrides this."""
        await self.answer(request, scope["state"]["request_id"], send)

    @abstractmethod
    async def answer(self, request: RequestT, request_id: str, send: Send) -> None:
        """Send the whole response; raises an IngotError before anything is sent."""

    def names(self, request: RequestT) -> Mapping[str, str]:
        """What this API calls fields that have another name where errors about them are made."""
        return {}

    async def _serve(self, request: RequestT, scope: Scope, send: Send) -> None:
        try:
            if self.computes:
                await self.service.pause.passed(self.service.client)
            await self.serve(request, scope, send)
        except RequestError as error:
            param = error.param or ""
            own = {**_of_two_names(request), **self.names(request)}.get(param)
            if own is None:
                raise
            raise type(error)(_in_own_words(str(error), param, own), own) from None


def _in_own_words(sentence: str, param: str, own: str) -> str:
    """A name of one word may be a word of the sentence too, but for where that begins."""
    return re.sub(rf"\b{param}\b" if "_" in param else rf"^{param}\b", own, sentence)


def _of_two_names(request: CheckedRequest) -> Mapping[str, str]:
    """What SGLang calls otherwise than vLLM, as a request called it."""
    names = {"extra_args": "vllm_xargs"}
    if getattr(request, "custom_params", None):
        names["extra_args"] = "custom_params"
    if getattr(request, "routed_experts_start_len", None):
        names["routed_experts_prompt_start"] = "routed_experts_start_len"
    if getattr(request, "watermark", None):
        names["watermarking"] = "watermark"
    return names


class View(Protocol):
    """Makes a response of what the engine said."""

    def whole(self, deltas: dict[int, OutputDelta]) -> msgspec.Struct:
        """The response that is not streamed."""


async def send_whole(send: Send, view: View, deltas: dict[int, OutputDelta]) -> None:
    """Everything at once."""
    await send_json(send, await aside(partial(view.whole, deltas), deltas))


async def send_json(
    send: Send, value: msgspec.Struct | Sequence[msgspec.Struct] | str, status: int = 200
) -> None:
    """A whole response."""
    body = msgspec.json.encode(value)
    headers = [
        (b"content-type", b"application/json"),
        (b"content-length", str(len(body)).encode()),
    ]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send_body(send, body)
