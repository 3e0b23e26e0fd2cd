"""POST /v1/chat/completions: a conversation in, the assistant's next turn out."""

from starlette.types import Send

from serve.chat_view import ChatView
from serve.conversation import begin
from serve.endpoint import GenerationRoute, send_whole
from serve.protocol_chat import ChatRequest
from serve.sse import DATA_ONLY, send_events
from serve.streams import collect
from serve.timing import timeline_to_tell


class ChatRoute(GenerationRoute[ChatRequest]):
    """The API that most clients use."""

    kind = ChatRequest

    async def answer(self, request: ChatRequest, request_id: str, send: Send) -> None:
        service = self.service
        talk = await begin(service, request)
        name = f"chatcmpl-{request_id}"
        response_id = request.response_id("chatcmpl", request_id)
        role = service.settings.response_role
        view = ChatView(talk, response_id, service.model.names[0], role)
        interval = service.stream_interval(request.stream, request.stream_interval)
        with service.client.generate(
            name, [talk.prompt], request.priority or 0, interval
        ) as stream:
            view.timeline = timeline_to_tell(service.settings, stream)
            if request.stream:
                await send_events(send, stream, view, DATA_ONLY)
            else:
                await send_whole(send, view, await collect(stream))
