"""POST /cohere/v2/chat, and /cohere/v2/chat/render, which stops where the model would begin."""

from collections.abc import Mapping
from types import MappingProxyType

from starlette.types import Send

from serve.cohere.protocol import CohereChatRequest, CohereEvent
from serve.cohere.translate import chat_request
from serve.cohere.view import CohereView
from serve.errors import ErrorBody
from serve.generation.conversation import begin
from serve.generation.streams import collect
from serve.http.endpoint import GenerationRoute, send_json, send_whole
from serve.http.sse import DATA_ONLY, Framing, event, send_events
from serve.openai.render import RenderRoute, rendered_chat
from serve.service import Service

_NAMES = MappingProxyType(
    {
        "stop": "stop_sequences",
        "top_p": "p",
        "top_k": "k",
        "thinking_token_budget": "thinking.token_budget",
    }
)


def failed(body: ErrorBody) -> bytes:
    """How a stream ends that something stopped."""
    delta = {"finish_reason": "ERROR", "error": body.error.message}
    return event(CohereEvent(type="message-end", delta=delta))


_FRAMING = Framing(event, failed, DATA_ONLY.end)


class CohereChatRoute(GenerationRoute[CohereChatRequest]):
    """A conversation in, the assistant's next turn out."""

    kind = CohereChatRequest

    def names(self, request: CohereChatRequest) -> Mapping[str, str]:
        return _NAMES

    async def answer(self, request: CohereChatRequest, request_id: str, send: Send) -> None:
        service: Service = self.service
        talk = await begin(service, chat_request(service, request), "other")
        name = f"chat-{request_id}"
        view = CohereView(talk, name)
        interval = service.stream_interval(request.stream)
        with service.client.generate(
            name, [talk.prompt], request.priority or 0, interval
        ) as stream:
            if request.stream:
                await send_events(send, stream, view, _FRAMING)
            else:
                await send_whole(send, view, await collect(stream))


class CohereRenderRoute(RenderRoute[CohereChatRequest]):
    """The prompt that a conversation is to the model, as `serve.openai.render` tells it."""

    kind = CohereChatRequest
    names = CohereChatRoute.names

    async def answer(self, request: CohereChatRequest, request_id: str, send: Send) -> None:
        chat = chat_request(self.service, request)
        await send_json(send, await rendered_chat(self.service, chat, f"chat-{request_id}"))
