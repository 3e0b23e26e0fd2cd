"""GET /openapi.json: the API as it is, from the structs that decode and encode it."""

from dataclasses import dataclass
from typing import Any

import msgspec
from starlette.requests import Request
from starlette.responses import Response

from serve.errors import ErrorBody
from serve.health import ingot_version
from serve.unsupported import IGNORED

_REF = "#/components/schemas/{name}"


@dataclass(frozen=True, slots=True)
class Operation:
    """A path that takes one struct and answers with another; `streams`: or with events."""

    path: str
    takes: type[msgspec.Struct]
    gives: type[msgspec.Struct]
    streams: type[msgspec.Struct] | None = None
    media: str = "application/json"  # of what it takes; a form has a file besides

    @property
    def summary(self) -> str:
        """The first line of what the request is."""
        return (self.takes.__doc__ or self.path).partition("\n")[0]


class OpenApiRoute:
    """The document, made when it is first asked for."""

    def __init__(
        self, operations: list[Operation], readable: dict[str, str], root_path: str = ""
    ) -> None:
        """`readable`: GET paths and what they tell; `root_path`: what is before all of them."""
        self._root_path = root_path
        self._operations = operations
        self._readable = readable
        self._document = b""

    async def __call__(self, _: Request) -> Response:
        """GET /openapi.json."""
        if not self._document:
            made = document(self._operations, self._readable)
            if self._root_path:
                made["servers"] = [{"url": self._root_path}]
            self._document = msgspec.json.encode(made)
        return Response(self._document, media_type="application/json")


def document(operations: list[Operation], readable: dict[str, str]) -> dict[str, Any]:
    """The OpenAPI 3.1 document of these paths."""
    structs: list[type[msgspec.Struct]] = [ErrorBody, *_structs(operations)]
    refs, components = msgspec.json.schema_components(structs, ref_template=_REF)
    of: dict[type[msgspec.Struct], Any] = dict(zip(structs, refs, strict=True))
    for operation in operations:
        body = components[of[operation.takes]["$ref"].rpartition("/")[2]]
        body["additionalProperties"] = False
        body["properties"] |= {name: {} for name in IGNORED - body["properties"].keys()}
    paths: dict[str, Any] = {
        path: {"get": {"summary": what, "responses": {"200": {"description": what}}}}
        for path, what in readable.items()
    }
    for operation in operations:
        paths.setdefault(operation.path, {})["post"] = _post(operation, of)
    return {
        "openapi": "3.1.0",
        "info": {"title": "Ingot", "version": ingot_version()},
        "paths": paths,
        "components": {
            "schemas": components,
            "securitySchemes": {"key": {"type": "http", "scheme": "bearer"}},
        },
        "security": [{}, {"key": []}],
    }


def _structs(operations: list[Operation]) -> list[type[msgspec.Struct]]:
    found = [each for o in operations for each in (o.takes, o.gives, o.streams) if each]
    return list(dict.fromkeys(found))


def _post(operation: Operation, of: dict[type[msgspec.Struct], Any]) -> dict[str, Any]:
    content = {"application/json": {"schema": of[operation.gives]}}
    if operation.streams is not None:
        content["text/event-stream"] = {"schema": of[operation.streams]}
    failed = {"application/json": {"schema": of[ErrorBody]}}
    return {
        "summary": operation.summary,
        "requestBody": {
            "required": True,
            "content": {operation.media: {"schema": of[operation.takes]}},
        },
        "responses": {
            "200": {"description": "The answer.", "content": content},
            "default": {"description": "What went wrong.", "content": failed},
        },
    }
