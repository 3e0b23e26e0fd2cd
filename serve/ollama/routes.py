"""POST /api/chat, /api/generate and /api/show, GET /api/tags."""

from collections.abc import Mapping
from hashlib import sha256
from types import MappingProxyType
from typing import Any

import msgspec
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Send

from serve.errors import ErrorBody, OllamaError
from serve.generation.conversation import begin
from serve.generation.streams import collect
from serve.http.endpoint import GenerationRoute, send_json
from serve.http.json_response import json_response
from serve.http.sse import Framing, send_events
from serve.ollama.protocol import (
    OllamaAnswer,
    OllamaChatRequest,
    OllamaGenerateRequest,
    OllamaResponse,
    ShownModel,
    ShowRequest,
)
from serve.ollama.translate import chat_request, model_name
from serve.ollama.view import OllamaView, now
from serve.protocol.decoding import RequestT
from serve.service import Service

OllamaRequest = OllamaChatRequest | OllamaGenerateRequest
LINES = "application/x-ndjson"
_NAMES = MappingProxyType(
    {
        "max_tokens": "num_predict",
        "repetition_penalty": "repeat_penalty",
        "response_format": "format",
        "reasoning_effort": "think",
    }
)


def _line(value: Any) -> bytes:
    return msgspec.json.encode(value) + b"\n"


def _failed(body: ErrorBody) -> bytes:
    return _line(OllamaError(body.error.message))


_FRAMING = Framing(_line, _failed, media=LINES.encode())


class _OllamaRoute(GenerationRoute[RequestT]):
    """Both routes that write."""

    def names(self, request: RequestT) -> Mapping[str, str]:
        asks = isinstance(request, OllamaGenerateRequest)
        return {**_NAMES, **({"messages": "prompt"} if asks else {})}

    async def _answer(self, request: OllamaRequest, request_id: str, send: Send) -> None:
        service, is_chat = self.service, isinstance(request, OllamaChatRequest)
        talk = await begin(service, chat_request(service, request), "other")
        interval = service.stream_interval(request.streams)
        with service.client.generate(f"ollama-{request_id}", [talk.prompt], 0, interval) as stream:
            name, [timeline] = service.answers_as(talk.prompt), stream.timelines
            view = OllamaView(talk, name, timeline, is_chat=is_chat)
            if request.streams:
                await send_events(send, stream, view, _FRAMING)
            else:
                await send_json(send, view.whole(await collect(stream)))

    async def _is_there(self, request: OllamaRequest, send: Send) -> None:
        """What Ollama says when it has loaded a model."""
        service = self.service
        service.check_model(model_name(service, request.model))
        said = OllamaResponse(
            model=service.model.names[0], created_at=now(), done=True, done_reason="load"
        )
        if isinstance(request, OllamaChatRequest):
            said.message = OllamaAnswer("")
        else:
            said.response = ""
        await send_json(send, said)


class OllamaChatRoute(_OllamaRoute[OllamaChatRequest]):
    """A conversation in, the assistant's next turn out."""

    kind = OllamaChatRequest

    async def answer(self, request: OllamaChatRequest, request_id: str, send: Send) -> None:
        if request.messages:
            await self._answer(request, request_id, send)
        else:
            await self._is_there(request, send)


class OllamaGenerateRoute(_OllamaRoute[OllamaGenerateRequest]):
    """A question in, the answer out."""

    kind = OllamaGenerateRequest

    async def answer(self, request: OllamaGenerateRequest, request_id: str, send: Send) -> None:
        if request.prompt:
            await self._answer(request, request_id, send)
        else:
            await self._is_there(request, send)


class ShowRoute(GenerationRoute[ShowRequest]):
    """What there is to know of a model."""

    kind = ShowRequest
    writes = False
    computes = False

    async def answer(self, request: ShowRequest, request_id: str, send: Send) -> None:
        service = self.service
        service.check_model(model_name(service, request.model or request.name))
        info, model = service.client.info, service.model
        tokenizer, family = model.tokenizer, info.architecture
        able = {"completion": True, "tools": model.tools, "thinking": model.thinking}
        await send_json(
            send,
            ShownModel(
                modelfile="",
                parameters="",
                template=tokenizer.chat_templates.get("default", "") if tokenizer else "",
                details=_details(service),
                model_info={
                    "general.architecture": family,
                    "general.parameter_count": info.num_parameters,
                    f"{family}.context_length": info.max_model_len,
                },
                capabilities=[name for name, there in able.items() if there],
                modified_at=now(),
            ),
        )


class TagsRoute:
    """What is served."""

    def __init__(self, service: Service) -> None:
        self._service = service
        self._started = now()

    async def __call__(self, _: Request) -> Response:
        """GET /api/tags."""
        service = self._service
        models = [self._card(name) for name in (*service.model.names, *service.adapters)]
        return json_response({"models": models})

    def _card(self, name: str) -> dict[str, Any]:
        digest = sha256(f"{name}/{self._service.fingerprint}".encode()).hexdigest()
        return {
            "name": name,
            "model": name,
            "modified_at": self._started,
            "size": self._service.client.info.parameter_bytes,
            "digest": digest,
            "details": _details(self._service),
        }


def _details(service: Service) -> dict[str, Any]:
    info = service.client.info
    billions, millions = info.num_parameters / 1e9, info.num_parameters / 1e6
    return {
        "parent_model": "",
        "format": "safetensors",
        "family": info.architecture,
        "families": [info.architecture],
        "parameter_size": f"{billions:.1f}B" if billions >= 1 else f"{millions:.0f}M",
        "quantization_level": info.quantization or info.dtype,
    }
