"""Other weights for a server that runs, as SGLang does it; for operators.

    POST /update_weights_from_disk {"model_path": "step-200", "weight_version": "200"}
    POST /collective_rpc {"method": "reload_weights"}       vLLM's: the same files, as they are now

Requests at work end first, with an error if `abort_all_requests`; of a server that is paused or
sleeps they stay, and go on with the new weights. What comes meanwhile waits, though not for a name
on the hub to be downloaded. Nothing is found again that was computed before, and nothing is
compiled. Where the weights cannot be read or do not fit, the old ones serve on, and the answer
(400) says why.
"""

import asyncio
from typing import Any

from msgspec import Struct
from starlette.types import Send

from engine.errors import RequestError
from engine.messages import ReadWeights
from engine.sleeping import check_method, read_weights
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
        try:
            updated = await _update(service, request)
        except (ModelError, RequestError) as error:
            await send_json(send, WeightsUpdated(False, str(error)), 400)
        else:
            if request.keep_pause:
                service.pause.begin("paused")
            await send_json(send, updated)


async def _update(service: Service, request: UpdateWeightsRequest) -> WeightsUpdated:
    check_operator(service.settings, "Updating weights")
    found = await asyncio.to_thread(
        read_weights, service.engine_config, request.model_path, request.load_format,
        request.weight_version,
    )  # fmt: skip
    with service.pause.updating():
        if request.abort_all_requests:
            service.client.flights.end_responses(None)
            await service.client.wait_until_idle()
        num_paused = await _read(service, found)
    return WeightsUpdated(True, f"{request.model_path} is served.", num_paused)


async def _read(service: Service, wanted: ReadWeights) -> int:
    """Have the engine read them, once those at work have ended that nobody has paused; returns how
    many were paused."""
    client = service.client
    if not client.is_frozen:
        await client.wait_until_idle()
    num_paused = client.num_sequences
    await service.pause.change_memory(client, wanted)
    return num_paused


class RpcRequest(CheckedRequest, frozen=True, kw_only=True):
    """A method by its name, and nothing to go with it."""

    method: str
    args: list[Any] | None = None
    kwargs: dict[str, Any] | None = None

    def check_shared(self) -> None:
        check_method(self.method, [*(self.args or ()), *(self.kwargs or ())])


class RpcResults(Struct):
    """What it gave, of each worker."""

    results: list[None]


class RpcRoute(GenerationRoute[RpcRequest]):
    """Reads the weights again."""

    kind = RpcRequest
    writes = False
    computes = False

    async def answer(self, request: RpcRequest, request_id: str, send: Send) -> None:
        check_operator(self.service.settings, "Updating weights")
        with self.service.pause.updating():
            await _read(self.service, ReadWeights())
        await send_json(send, RpcResults([None]))
