"""Whether this server lives, can take requests, and how much it has to do: for load balancers,
orchestrators and people."""

from typing import Any

import msgspec
from starlette.requests import Request
from starlette.responses import Response

from engine.config import EngineConfig
from serve.errors import RETRY_AFTER_SECONDS
from serve.http.json_response import json_response
from serve.service import Service
from serve.version import ingot_version

_SECRET = frozenset({"api_keys", "admin_api_key"})


class HealthRoutes:
    """GET routes that cost nothing."""

    def __init__(self, service: Service) -> None:
        self._service = service
        self._client = service.client

    async def alive(self, _: Request) -> Response:
        """GET /livez: 200 as long as this process answers."""
        return json_response({"status": "alive"})

    async def ready(self, _: Request) -> Response:
        """GET /health, /readyz and /ping: 200 when ready; 503 while loading or draining, while the
        engine is silent with work to do, and once it is dead."""
        state = self._client.state
        if state == "ready":
            return json_response({"status": state})
        return json_response({"status": state}, 503, {"retry-after": RETRY_AFTER_SECONDS})

    async def load(self, _: Request) -> Response:
        """GET /load: {"server_load": 3}, the sequences that run or wait."""
        return json_response({"server_load": self._client.num_sequences})

    async def version(self, _: Request) -> Response:
        """GET /version: {"version": "0.1.0"}."""
        return json_response({"version": ingot_version()})

    async def server_info(self, _: Request) -> Response:
        """GET /server_info: the settings, the model and the engine's newest numbers; no keys."""
        service = self._service
        settings = msgspec.to_builtins(service.settings)
        return json_response(
            {
                "version": ingot_version(),
                "status": self._client.state,
                "settings": {k: v for k, v in settings.items() if k not in _SECRET},
                "engine_config": _shown(service.engine_config),
                "model": msgspec.to_builtins(self._client.info),
                "stats": msgspec.to_builtins(self._client.stats),
                "tool_call_parser": service.model.tools and service.model.tools.names[0],
                "reasoning_parser": service.model.thinking and service.model.thinking.names[0],
            }
        )


def _shown(config: EngineConfig) -> dict[str, Any]:
    """All settings, but a watermark's key."""
    shown: dict[str, Any] = msgspec.to_builtins(config)
    if config.watermark_config is not None:
        del shown["watermark_config"]["key"]
    return shown
