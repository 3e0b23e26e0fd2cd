"""GET /health_generate: whether a token comes out, not only whether the process lives.

It goes through the queue as any request does, so it needs a key where there are keys. A server that
is paused or sleeps gives none, and says so at once.
"""

import asyncio

from starlette.requests import Request
from starlette.responses import Response

from engine.messages import ModelInfo
from engine.pooling.inputs import PoolInput
from engine.pooling_params import PoolingParams
from engine.sampling.params import SamplingParams
from serve.engine_client import Prompt
from serve.errors import RETRY_AFTER_SECONDS
from serve.http.json_response import json_response
from serve.service import Service

PATIENCE_SECONDS = 20.0
_TOKEN = 0  # which every vocabulary has


class HealthGenerateRoute:
    """200 once a token, or a vector, came; 503 if none does in time, or can."""

    def __init__(self, service: Service) -> None:
        self._client, self._pause = service.client, service.pause

    async def __call__(self, request: Request) -> Response:
        if self._pause.is_open_ended:
            return _not_now("asleep" if self._pause.is_for("asleep") else "paused")
        try:
            async with asyncio.timeout(PATIENCE_SECONDS):
                await self._pause.passed(self._client)
                await self._one(request.state.request_id)
        except TimeoutError:
            return _not_now("slow")
        return json_response({"status": "ready"})

    async def _one(self, request_id: str) -> None:
        """Raises as `EngineClient.generate`."""
        client = self._client
        if client.info.task != "generate":
            await client.pool([PoolInput([_TOKEN], [])], PoolingParams())
            return
        with client.generate(f"health-{request_id}", [_prompt(client.info)]) as stream:
            async for _ in stream:
                pass


def _not_now(status: str) -> Response:
    return json_response({"status": status}, 503, {"retry-after": RETRY_AFTER_SECONDS})


def _prompt(info: ModelInfo) -> Prompt:
    """The shortest that this model takes; one that hears gets silence."""
    params = SamplingParams(temperature=0, max_tokens=1, ignore_eos=True)
    if not info.max_encoder_len:
        return Prompt(None, [_TOKEN], params)
    own = list(info.decoder_prompt)
    if info.mel_bins:
        silence = bytes(2 * info.max_encoder_len * info.mel_bins * 4)
        return Prompt(None, own, params, encoder_features=silence)
    return Prompt(None, own, params, encoder_token_ids=[_TOKEN])
