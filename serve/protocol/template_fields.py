"""Fields that say how a chat template is to write `messages`, for requests that may have none."""

from collections.abc import Mapping
from typing import Any

from engine.errors import RequestError
from serve.protocol.decoding import CheckedRequest


def check_template_fields(
    request: CheckedRequest, defaults: Mapping[str, Any], instead: str
) -> None:
    """Raise RequestError for one of these fields that would have no effect, since the request has
    `instead` of messages: one that is neither null, empty, nor what it is by default."""
    for name, default in defaults.items():
        value = getattr(request, name)
        if value is not None and value != default and value not in ([], {}):
            raise RequestError(f"{name} needs messages; {instead} is taken as it is.", name)
