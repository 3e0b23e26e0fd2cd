"""POST /v1/chat/completions: a conversation in, the assistant's next turn out."""

from collections.abc import Mapping

from msgspec.structs import replace
from starlette.types import Scope, Send

from serve.generation.conversation import Conversation, begin, prompt_of
from serve.generation.streams import collect
from serve.generation.timing import timeline_to_tell
from serve.http.endpoint import GenerationRoute, send_whole
from serve.http.sse import DATA_ONLY, send_events
from serve.native.flat_logprobs import Flat
from serve.native.generate_view import GenerateView, Scored
from serve.native.sampling_mask import told_by
from serve.native.session_turns import HeardView, own_turn
from serve.native.sessions import Turn
from serve.openai.chat_view import ChatView
from serve.openai.function_view import FunctionView
from serve.protocol.chat import ChatRequest
from serve.protocol.tool_choices import FUNCTION_FIELDS, plain_tools
from serve.service import Service


class ChatRoute(GenerationRoute[ChatRequest]):
    """The API that most clients use."""

    kind = ChatRequest

    def names(self, request: ChatRequest) -> Mapping[str, str]:
        prompt = {} if request.input_ids is None else {"messages": "input_ids"}
        return {**prompt, **(FUNCTION_FIELDS if request.functions else {})}

    async def serve(self, request: ChatRequest, scope: Scope, send: Send) -> None:
        request_id: str = scope["state"]["request_id"]
        if request.session_params is None:
            await self.answer(request, request_id, send)
            return
        _, ids = await prompt_of(self.service, plain_tools(request))
        name = request.response_id("chatcmpl", request_id)
        with own_turn(self.service, scope, request.session_params, name, ids) as turn:
            whole = replace(request, input_ids=turn.prompt.tolist())
            await self.answer(whole, request_id, send, turn)

    async def answer(
        self, request: ChatRequest, request_id: str, send: Send, turn: Turn | None = None
    ) -> None:
        service = self.service
        talk = await begin(service, request)
        name = f"chatcmpl-{request_id}"
        response_id = request.response_id("chatcmpl", request_id)
        view = chat_view(service, talk, response_id)
        interval = service.stream_interval(request.stream, request.stream_interval)
        with service.client.generate(
            name, [talk.prompt], request.priority or 0, interval, response_id
        ) as stream:
            view.timeline = timeline_to_tell(service.settings, stream)
            view.timelines = stream.timelines
            named = FunctionView(view) if request.functions else view
            shown = named if turn is None else HeardView(named, turn)
            if request.stream:
                await send_events(send, stream, shown, DATA_ONLY)
            else:
                await send_whole(send, shown, await collect(stream))


def chat_view(service: Service, talk: Conversation, response_id: str) -> ChatView:
    """What shows the answers to `talk`."""
    return ChatView(
        talk,
        response_id,
        service.answers_as(talk.prompt),
        fingerprint=service.fingerprint,
        role=service.settings.response_role,
        meta=_meta(service, talk, response_id) if talk.request.return_meta_info else None,
    )


def _meta(service: Service, talk: Conversation, response_id: str) -> GenerateView:
    """What tells of the answers as `/generate` does."""
    request, scored = talk.request, None
    if request.logprobs:
        named = request.logprob_token_ids or ()
        flat = Flat(
            output=bool(request.return_flat_raw_output_top_logprobs),
            base64=request.return_flat_raw_top_logprobs_b64 is not False,
        )
        top = request.top_logprobs or 0
        scored = Scored(start=-1, top=top, named=named, texts=True, flat=flat)
    return GenerateView(
        [talk.prompt], response_id, scored, service.model.tokenizer, indexed=False,
        stats=lambda: service.client.stats,
        masks=told_by(request.return_sampling_mask, request.sampling_logprobs_mode),
    )  # fmt: skip
