"""Asking one API after the other until one answers.

    no connection, nothing in time, 429, 5xx   the next one is asked; the client has seen nothing
    any other status                           is the answer, whatever it is

An API is given the body and a key of its own, and no header of the client's. What it is given says
that it was sent by a fallback: another Ingot then answers or refuses, and asks nobody else.
"""

import logging
from collections.abc import Awaitable, Callable, Sequence

import msgspec

from serve.fallback.apis import FallbackApi
from serve.http.server_address import ServerAddress
from serve.router.upstream import Answer, Call, UpstreamError, ask

RESPONSES = "/v1/responses"
PATHS = frozenset({"/v1/chat/completions", "/v1/completions", RESPONSES})
SENT_BY_FALLBACK = b"x-ingot-fallback"
_fields = msgspec.json.Decoder(dict[str, msgspec.Raw])
logger = logging.getLogger("ingot.fallback")

Told = Callable[[str, str], None]
"""(URL, "answered" or why not)"""


class FallbackChain:
    """APIs in their order; `seconds` are for each that says nothing itself."""

    def __init__(self, apis: Sequence[FallbackApi], seconds: float | None, told: Told) -> None:
        self._apis = [(api, ServerAddress.parse(api.url), api.key) for api in apis]
        self._seconds = seconds
        self._told = told

    async def answer(
        self, path: str, body: bytes, pass_on: Callable[[Answer], Awaitable[object]]
    ) -> bool:
        """Whether one answered; `pass_on` was given its answer, and raises UpstreamError where that
        broke off before any of it was sent.

        None knows our stored responses, so a request that continues one is not asked anywhere.
        """
        fields = _decoded(body)
        if path not in PATHS or fields is None or _continues(fields):
            return False
        for api, server, key in self._apis:
            call = Call("POST", path.removeprefix("/v1"), _headers(key), _body(api, fields, body))
            seconds = self._seconds if api.timeout is None else api.timeout
            try:
                async with ask(server, call, seconds) as answer:
                    if answer.status == 429 or answer.status >= 500:
                        self._told(api.url, str(answer.status))
                        continue
                    await pass_on(answer)
                    self._told(api.url, "answered")
                    return True
            except UpstreamError as error:
                self._told(api.url, error.kind)
                logger.warning("%s did not answer: %s.", api.url, error)
        return False


def _decoded(body: bytes) -> dict[str, msgspec.Raw] | None:
    try:
        return _fields.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None


def _continues(fields: dict[str, msgspec.Raw]) -> bool:
    return bytes(fields.get("previous_response_id", b"null")) != b"null"


def _headers(key: str | None) -> list[tuple[bytes, bytes]]:
    headers = [(b"content-type", b"application/json"), (SENT_BY_FALLBACK, b"1")]
    if key:
        headers.append((b"authorization", b"Bearer " + key.encode()))
    return headers


def _body(api: FallbackApi, fields: dict[str, msgspec.Raw], body: bytes) -> bytes:
    if api.model is None:
        return body
    return msgspec.json.encode(fields | {"model": msgspec.Raw(msgspec.json.encode(api.model))})
