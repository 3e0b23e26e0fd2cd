"""GET /v1/models: the names under which the one model is served, and its adapters."""

import time
from typing import Any

from starlette.requests import Request
from starlette.responses import Response

from serve.http.json_response import json_response
from serve.service import Service


class ModelsRoutes:
    """The list, and one entry of it."""

    def __init__(self, service: Service) -> None:
        self._service = service
        self._created = int(time.time())

    async def every(self, _: Request) -> Response:
        """GET /v1/models."""
        service = self._service
        cards = [self._card(name) for name in (*service.model.names, *service.adapters)]
        return json_response({"object": "list", "data": cards})

    async def one(self, request: Request) -> Response:
        """GET /v1/models/{name}."""
        name = request.path_params["name"]
        self._service.check_model(name)
        return json_response(self._card(name))

    def _card(self, name: str) -> dict[str, Any]:
        model, adapter = self._service.model, self._service.adapters.get(name)
        return {
            "id": name,
            "object": "model",
            "created": self._created,
            "owned_by": "ingot",
            "root": adapter.lora_path if adapter else model.root,
            "parent": (adapter.base_model_name or model.names[0]) if adapter else None,
            "max_model_len": self._service.client.info.max_model_len,
        }
