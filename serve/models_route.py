"""GET /v1/models: the names under which the one model is served."""

import time
from typing import Any

import msgspec
from starlette.requests import Request
from starlette.responses import Response

from engine.errors import NotFoundError
from serve.service import Service


class ModelsRoutes:
    """The list, and one entry of it."""

    def __init__(self, service: Service) -> None:
        self._service = service
        self._created = int(time.time())

    async def every(self, _: Request) -> Response:
        """GET /v1/models."""
        cards = [self._card(name) for name in self._service.model.names]
        return _json({"object": "list", "data": cards})

    async def one(self, request: Request) -> Response:
        """GET /v1/models/{name}."""
        name = request.path_params["name"]
        if name not in self._service.model.names:
            raise NotFoundError(f"The model {name[:100]!r} is not served here.", "model")
        return _json(self._card(name))

    def _card(self, name: str) -> dict[str, Any]:
        return {
            "id": name,
            "object": "model",
            "created": self._created,
            "owned_by": "ingot",
            "root": self._service.model.root,
            "parent": None,
            "max_model_len": self._service.client.info.max_model_len,
        }


def _json(value: dict[str, Any]) -> Response:
    return Response(msgspec.json.encode(value), media_type="application/json")
