"""Other weights for a server that runs, as SGLang does it; for operators.

    POST /update_weights_from_disk {"model_path": "step-200", "weight_version": "200"}

Requests at work end first, with an error if `abort_all_requests`; of a server that is paused or
sleeps they stay, and go on with the new weights. What comes meanwhile waits. Nothing is found again
that was computed before, and nothing is compiled. Where the weights cannot be read or do not fit,
the old ones serve on, and the answer (400) says why.
"""

import asyncio
from functools import partial

import msgspec
from msgspec import Struct
from starlette.types import Send

from engine.errors import RequestError
from engine.messages import ReadWeights
from engine.sleeping import read_weights
from models.errors import ModelError
from serve.http.endpoint import GenerationRoute, send_json
from serve.http.hosts import check_operator
from serve.protocol.decoding import CheckedRequest
from serve.service import Service


class UpdateWeightsRequest(CheckedRequest, frozen=True, kw_only=True):
    """A folder, a GGUF file or a name on the hub, and what answers are to call these weights.

    `keep_pause`: the server is paused afterwards.
    """

    model_path: str
    load_format: str | None = None
    abort_all_requests: bool | None = None
    weight_version: str | None = None
    flush_cache: bool | None = None
    keep_pause: bool | None = None

    def check_shared(self) -> None:
        if self.flush_cache is False:
            raise RequestError(
                "flush_cache must be true: what other weights have computed is never used.",
                "flush_cache",
            )


class WeightsUpdated(Struct):
    """Whether these weights serve now; `num_paused_requests` go on with them."""

    success: bool
    message: str
    num_paused_requests: int = 0


class UpdateWeightsRoute(GenerationRoute[UpdateWeightsRequest]):
    """Reads them."""

    kind = UpdateWeightsRequest
    writes = False
    computes = False

    async def answer(self, request: UpdateWeightsRequest, request_id: str, send: Send) -> None:
        service = self.service
        check_operator(service.settings, "Updating weights")
        service.pause.begin("updating")
        try:
            updated = await _update(service, request)
        except (ModelError, RequestError) as error:
            await send_json(send, WeightsUpdated(False, str(error)), 400)
        else:
            if request.keep_pause:
                service.pause.begin("paused")
            await send_json(send, updated)
        finally:
            service.pause.end("updating")


async def _update(service: Service, request: UpdateWeightsRequest) -> WeightsUpdated:
    client, config = service.client, service.engine_config
    found = await asyncio.to_thread(
        read_weights, config, 0, request.model_path, request.load_format, request.weight_version
    )
    if request.abort_all_requests:
        client.flights.end_responses(None)
    if request.abort_all_requests or not client.is_frozen:
        await client.wait_until_idle()
    num_paused = client.num_sequences
    await client.change_memory(partial(_with_id, found))
    return WeightsUpdated(True, f"{request.model_path} is served.", num_paused)


def _with_id(message: ReadWeights, call_id: int) -> ReadWeights:
    return msgspec.structs.replace(message, call_id=call_id)
