"""POST /invocations: Amazon SageMaker's only route. What is asked for shows in the fields.

messages                              /v1/chat/completions, of a model that writes text
prompt                                /v1/completions
input, or messages                    /v1/embeddings, /classify or /pooling, as the model gives
text_1, queries, data_1, items        /score
query                                 /rerank
"""

from collections.abc import Mapping

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from engine.errors import RequestError
from serve.http.body import read_body
from serve.http.disconnect import ClientDisconnected
from serve.protocol.decoding import field_names
from serve.service import Service

_FIELDS = (
    ("prompt", "/v1/completions"),
    ("prompt_embeds", "/v1/completions"),
    *((name, "/score") for name in ("text_1", "queries", "data_1", "items")),
    ("query", "/rerank"),
)


class Invocations:
    """Hands a request on, once its body has been read."""

    def __init__(self, service: Service, routes: Mapping[str, ASGIApp]) -> None:
        """`routes` by their paths."""
        self._service = service
        self._routes = routes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            body = await read_body(scope, receive, self._service.settings.max_body_bytes)
        except ClientDisconnected:
            return
        unread: list[Message] = [{"type": "http.request", "body": body, "more_body": False}]

        async def again() -> Message:
            return unread.pop() if unread else await receive()

        await self._routes[self._path(field_names(body))](scope, again, send)

    def _path(self, names: Mapping[str, object]) -> str:
        if {"input", "messages"} & names.keys():
            return self._by_task("messages" in names)
        for name, path in _FIELDS:
            if name in names:
                return path
        raise RequestError(
            "It does not show what is asked for; send messages, prompt, input, text_1 and text_2, "
            "or query and documents."
        )

    def _by_task(self, is_conversation: bool) -> str:
        """Of a model that still loads nobody knows what it gives."""
        info = self._service.client.known
        if info is None or info.task == "generate":
            return "/v1/chat/completions" if is_conversation else "/v1/embeddings"
        if info.per_token:
            return "/pooling"
        return {"embed": "/v1/embeddings", "classify": "/classify"}[info.task]
