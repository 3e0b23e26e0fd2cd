"""POST /v1/chat/completions: a conversation in, the assistant's next turn out."""

import asyncio

import msgspec
from starlette.types import Send

from serve.chat_view import ChatView
from serve.endpoint import GenerationRoute, send_json
from serve.engine_client import Prompt
from serve.prompts import check_ids, encode, truncate
from serve.protocol_chat import ChatRequest
from serve.reply.rules import ReplyRules, reply_rules
from serve.sampling import fit, sampling_params
from serve.sse import send_events
from serve.streams import collect


class ChatRoute(GenerationRoute[ChatRequest]):
    """The API that most clients use."""

    kind = ChatRequest

    async def answer(self, request: ChatRequest, request_id: str, send: Send) -> None:
        service = self.service
        service.check(request)
        model = service.model
        rules = reply_rules(
            request, model.tools, model.thinking,
            auto_allowed=service.settings.enable_auto_tool_choice,
        )  # fmt: skip
        prompt = await self._prompt(request, rules)
        response_id = f"chatcmpl-{request_id}"
        view = ChatView(request, prompt, rules, response_id, model.names[0])
        with service.client.generate(response_id, [prompt], request.priority or 0) as stream:
            if request.stream:
                await send_events(send, stream, view)
            else:
                await send_json(send, view.whole(await collect(stream)))

    async def _prompt(self, request: ChatRequest, rules: ReplyRules) -> Prompt:
        """The conversation as the model's template writes it; raises RequestError."""
        model, info = self.service.model, self.service.client.info
        params = sampling_params(
            request,
            model.sampling_defaults,
            max_tokens=request.limit,
            logprobs=(request.top_logprobs or 0) if request.logprobs else None,
        )
        if rules.special:
            params = msgspec.structs.replace(params, skip_special_tokens=False)
        params.check_vocabulary(info.vocab_size)
        text = await asyncio.to_thread(model.render, request)
        truncated = request.truncate_prompt_tokens is not None
        [token_ids] = await encode(
            model.tokenizer,
            [text],
            add_special=bool(request.add_special_tokens),
            max_tokens=None if truncated else info.max_model_len,
            param="messages",
        )
        check_ids(token_ids, info.vocab_size, "messages")
        kept = truncate(token_ids, request, info.max_model_len)
        params = fit(params, request, len(kept), info.max_model_len, model.default_max_tokens)
        return Prompt(text, kept, params, request.cache_salt or "")
