"""The answer of a route that takes no body: a value as JSON."""

from collections.abc import Mapping
from typing import Any

import msgspec
from starlette.responses import Response


def json_response(
    value: Any, status: int = 200, headers: Mapping[str, str] | None = None
) -> Response:
    """Anything that msgspec encodes."""
    return Response(msgspec.json.encode(value), status, headers, "application/json")
