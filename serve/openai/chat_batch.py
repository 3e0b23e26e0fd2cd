"""POST /v1/chat/completions/batch: vLLM's route for several conversations with the same options.

`messages` is a list of conversations; the answers to conversation c are choices c*n .. c*n + n - 1.
"""

import msgspec
from starlette.types import Send

from engine.errors import RequestError
from serve.generation.conversation import begin
from serve.generation.streams import collect
from serve.http.endpoint import GenerationRoute, send_json
from serve.openai.chat import chat_view
from serve.protocol.chat import ChatCompletion, ChatMessage, ChatRequest
from serve.protocol.decoding import MAX_PROMPTS, GenerationRequest, Usage, summed, usage_of

_NOT_OF_SEVERAL = (
    "stream", "use_beam_search", "prompt_logprobs", "return_prompt_text", "functions", "input_ids",
    "session_params", "return_cached_tokens_details", "return_meta_info",
    "return_input_ids_in_sglext", "return_output_ids_in_sglext",
    "return_routed_experts", "return_spec_tokens_details",
)  # fmt: skip


class ChatBatchRequest(ChatRequest, frozen=True, kw_only=True):
    """Conversations, and the options of all of them."""

    needs = (("messages",),)
    messages: list[list[ChatMessage]] | None = None  # type: ignore[assignment]

    @property
    def each(self) -> list[ChatRequest]:
        """The conversations by themselves."""
        same = {
            name: value
            for name in ChatRequest.__struct_fields__
            if name != "messages" and (value := getattr(self, name)) is not None
        }
        return [ChatRequest(messages=turns, **same) for turns in self.messages or ()]

    def check_shared(self) -> None:
        GenerationRequest.check_shared(self)
        for name in _NOT_OF_SEVERAL:
            if getattr(self, name):
                raise RequestError(f"{name} is not served for several conversations.", name)
        if not self.messages or len(self.messages) * (self.n or 1) > MAX_PROMPTS:
            raise RequestError(
                f"messages must hold 1 to {MAX_PROMPTS} conversations, n times.", "messages"
            )
        for one in self.each:
            one.check_shared()


class ChatBatchRoute(GenerationRoute[ChatBatchRequest]):
    """Answers once all of them are answered."""

    kind = ChatBatchRequest

    async def answer(self, request: ChatBatchRequest, request_id: str, send: Send) -> None:
        service = self.service
        talks = [await begin(service, one) for one in request.each]
        response_id = request.response_id("chatcmpl", request_id)
        prompts = [talk.prompt for talk in talks]
        name, priority = f"chatcmpl-{request_id}", request.priority or 0
        with service.client.generate(name, prompts, priority, 1, response_id) as stream:
            deltas = await collect(stream)
        count = prompts[0].params.n
        wholes = []
        for place, talk in enumerate(talks):
            own = {index: deltas[place * count + index] for index in range(count)}
            view = chat_view(service, talk, response_id)
            view.timelines = stream.timelines[place * count : (place + 1) * count]
            wholes.append(view.whole(own))
        await send_json(send, _together(wholes))


def _together(wholes: list[ChatCompletion]) -> ChatCompletion:
    choices = [choice for whole in wholes for choice in whole.choices]
    for place, choice in enumerate(choices):
        choice.index = place
    usage = _sum([whole.usage for whole in wholes])
    return msgspec.structs.replace(
        wholes[0], choices=choices, usage=usage, prompt_token_ids=msgspec.UNSET
    )


def _sum(parts: list[Usage]) -> Usage:
    cached = [each.prompt_tokens_details for each in parts]
    written = [each.completion_tokens_details for each in parts]
    return usage_of(
        sum(each.prompt_tokens for each in parts),
        sum(each.completion_tokens for each in parts),
        sum(each.cached_tokens for each in cached if each is not msgspec.UNSET),
        summed([each for each in written if each is not msgspec.UNSET]),
    )
