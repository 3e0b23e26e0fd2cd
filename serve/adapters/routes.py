"""What the operator may do to the adapters of a running server, under vLLM's names; it needs the
admin key, and on a server that other machines reach there must be one: it has files read.

    POST /v1/load_lora_adapter    {"lora_name": "sql", "lora_path": "path"}    read, then served
    POST /v1/unload_lora_adapter  {"lora_name": "sql"}                         served no longer

Requests that run with an adapter that is unloaded go on.
"""

import asyncio
from concurrent.futures import ThreadPoolExecutor
from typing import Literal

from msgspec import Struct
from starlette.types import Send

from engine.errors import NotFoundError, RequestError
from engine.model_files import adapter_path
from models.errors import ModelError
from serve.http.endpoint import GenerationRoute, send_json
from serve.http.hosts import check_operator
from serve.protocol.decoding import CheckedRequest
from serve.service import Service

_LOADING = "Loading and unloading adapters", ", or with --lora-modules"
_AT_ONCE = 4  # adapters that are looked for


class LoadRequest(CheckedRequest, frozen=True, kw_only=True):
    """A folder in PEFT's layout or a name on the hub, and what requests call it. `load_inplace`:
    in the place of the adapter that has the name."""

    lora_name: str
    lora_path: str
    load_inplace: bool | None = None


class UnloadRequest(CheckedRequest, frozen=True, kw_only=True):
    """The name of an adapter."""

    lora_name: str


class AdapterChanged(Struct):
    """What happened to which adapter."""

    lora_name: str
    status: Literal["loaded", "unloaded"]


class LoadAdapterRoute(GenerationRoute[LoadRequest]):
    """Requests may name the adapter once this has answered."""

    kind = LoadRequest
    computes = False

    def __init__(self, service: Service) -> None:
        super().__init__(service)
        self._threads = ThreadPoolExecutor(_AT_ONCE, "ingot-adapters")  # that may wait for a hub

    async def answer(self, request: LoadRequest, request_id: str, send: Send) -> None:
        service, name = self.service, request.lora_name
        if not service.engine_config.enable_lora:
            raise RequestError("This server was started without --enable-lora.", "lora_name")
        check_operator(service.settings, *_LOADING)
        async with service.adapters.changing(name):
            await self._load(request)
        await send_json(send, AdapterChanged(name, "loaded"))

    async def _load(self, request: LoadRequest) -> None:
        service, name = self.service, request.lora_name
        self._check_name(request)
        cache = service.engine_config.download_dir
        try:
            loop = asyncio.get_running_loop()
            path = await loop.run_in_executor(self._threads, adapter_path, request.lora_path, cache)
        except ModelError as error:
            raise RequestError(str(error), "lora_path") from None
        lora = service.adapters.made(name, path)
        await service.client.load_adapter(lora)
        service.adapters.serve(lora)

    def _check_name(self, request: LoadRequest) -> None:
        name, service = request.lora_name, self.service
        if name in service.model.names or (name in service.adapters and not request.load_inplace):
            raise RequestError(f"{name[:100]!r} is served already; use another name.", "lora_name")


class UnloadAdapterRoute(GenerationRoute[UnloadRequest]):
    """Nobody may name the adapter any more."""

    kind = UnloadRequest
    computes = False

    async def answer(self, request: UnloadRequest, request_id: str, send: Send) -> None:
        name = request.lora_name
        check_operator(self.service.settings, *_LOADING)
        async with self.service.adapters.changing(name):
            if not self.service.adapters.forget(name):
                raise NotFoundError(f"There is no adapter {name[:100]!r} here.", "lora_name")
        await send_json(send, AdapterChanged(name, "unloaded"))
