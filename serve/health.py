"""GET /health and GET /version: for load balancers and people."""

from importlib.metadata import PackageNotFoundError, version

import msgspec
from starlette.requests import Request
from starlette.responses import Response

from serve.errors import RETRY_AFTER_SECONDS
from serve.service import Service


class HealthRoutes:
    """Whether this server can take requests, and what it is."""

    def __init__(self, service: Service) -> None:
        self._client = service.client

    async def health(self, _: Request) -> Response:
        """200 when ready; 503 while loading, while draining, and once the engine is dead."""
        state = self._client.state
        body = msgspec.json.encode({"status": state})
        if state == "ready":
            return Response(body, media_type="application/json")
        headers = {"retry-after": RETRY_AFTER_SECONDS}
        return Response(body, 503, headers=headers, media_type="application/json")

    async def version(self, _: Request) -> Response:
        """{"version": "0.1.0"}"""
        body = msgspec.json.encode({"version": ingot_version()})
        return Response(body, media_type="application/json")


def ingot_version() -> str:
    """Of the installed distribution; "unknown" when run from files that are not installed."""
    try:
        return version("ingot")
    except PackageNotFoundError:
        return "unknown"
