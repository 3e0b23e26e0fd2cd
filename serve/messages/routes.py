"""POST /v1/messages, /v1/messages/render and /v1/messages/count_tokens."""

from collections.abc import Mapping
from types import MappingProxyType

from starlette.types import Send

from serve.errors import ErrorBody
from serve.generation.conversation import begin, prompt_of
from serve.generation.streams import collect
from serve.http.endpoint import GenerationRoute, send_json
from serve.http.sse import Framing, event, named_event, send_events
from serve.messages.protocol import CountRequest, MessagesRequest, TokenCount
from serve.messages.translate import chat_request
from serve.messages.view import MessagesView
from serve.openai.render import RenderRoute, rendered_chat
from serve.service import Service

_HINTS = {"low": "low", "medium": "medium", "high": "high", "xhigh": "high", "max": "high"}
_EFFORTS = {"enabled": "high", "adaptive": "high", "disabled": "none"}


def _failed(body: ErrorBody) -> bytes:
    return b"event: error\n" + event({"type": "error", "error": body.error})


_NAMES = MappingProxyType(
    {
        "stop": "stop_sequences",
        "max_completion_tokens": "max_tokens",
        "thinking_token_budget": "thinking.budget_tokens",
    }
)
_FRAMING = Framing(named_event, _failed)


class MessagesRoute(GenerationRoute[MessagesRequest]):
    """A conversation in, the assistant's next turn out."""

    kind = MessagesRequest

    def names(self, request: MessagesRequest) -> Mapping[str, str]:
        newer = request.output_format is None
        return {
            **_NAMES,
            "response_format": f"output_{'config.format' if newer else 'format'}.schema",
        }

    async def answer(self, request: MessagesRequest, request_id: str, send: Send) -> None:
        service = self.service
        talk = await begin(service, chat_request(request, effort(service, request)), "other")
        response_id = f"msg_{request_id}"
        view = MessagesView(talk, response_id, service.answers_as(talk.prompt))
        interval = service.stream_interval(request.stream)
        with service.client.generate(
            response_id, [talk.prompt], request.priority or 0, interval
        ) as stream:
            if request.stream:
                await send_events(send, stream, view, _FRAMING)
            else:
                await send_json(send, view.whole(await collect(stream)))


class MessagesRenderRoute(RenderRoute[MessagesRequest]):
    """The prompt that a conversation is to the model, as `serve.openai.render` tells it."""

    kind = MessagesRequest
    names = MessagesRoute.names

    async def answer(self, request: MessagesRequest, request_id: str, send: Send) -> None:
        chat = chat_request(request, effort(self.service, request))
        await send_json(send, await rendered_chat(self.service, chat, f"msg_{request_id}"))


def effort(service: Service, request: CountRequest) -> str | None:
    """`thinking`, and the `effort` of output_config, as one; None where the chat template has no
    switch for it.

    Raises RequestError where the model would do the contrary.
    """
    model = service.model
    hint = request.output_config.effort if request.output_config else None
    takes_effort = model.has_effort(with_tools=bool(request.tools))
    if request.thinking is None:
        return _HINTS[hint] if hint and takes_effort else None
    wanted = request.thinking.type
    if takes_effort:
        return _HINTS[hint] if hint and wanted != "disabled" else _EFFORTS[wanted]
    if wanted != "adaptive":
        model.check_thinks(wanted == "enabled")
    return None


class CountTokensRoute(GenerationRoute[CountRequest]):
    """How many tokens a conversation takes."""

    kind = CountRequest
    writes = False
    computes = False

    async def answer(self, request: CountRequest, request_id: str, send: Send) -> None:
        service = self.service
        chat = chat_request(request, effort(service, request))
        service.check_model(chat.model)
        _, token_ids = await prompt_of(service, chat)
        await send_json(send, TokenCount(len(token_ids)))
