"""GET /openapi.json: the API as it is, from the structs that decode and encode it."""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import msgspec
from starlette.requests import Request
from starlette.responses import Response

from serve.errors import CohereError, ErrorBody, OllamaError, error_kind
from serve.protocol.decoding import CheckedRequest
from serve.protocol.unsupported import IGNORED
from serve.version import ingot_version

_REF = "#/components/schemas/{name}"
_JSON, _EVENTS = "application/json", "text/event-stream"
_NAME = {"type": "string", "minLength": 1}
_LABEL = "A label for OpenAI's own records, which clients send and this server keeps none of."


@dataclass(frozen=True, slots=True)
class Operation:
    """A path that takes one struct and answers with another; `streams`: or with events."""

    path: str
    takes: type[CheckedRequest]
    gives: type[Any]  # a struct, or a plain kind
    streams: type[msgspec.Struct] | None = None
    media: str = _JSON  # of what it takes; a form has a file besides
    stream_media: str = _EVENTS
    or_gives: Any = None  # to requests of another kind: a struct, or several
    or_media: Sequence[str] = ()  # of what it gives to those who ask for no JSON

    @property
    def summary(self) -> str:
        """The first line of what the request is."""
        return (self.takes.__doc__ or self.path).partition("\n")[0]


@dataclass(frozen=True, slots=True)
class Action:
    """What else a path does, `{names}` in it being asked for; with a body where it `takes` one,
    which may be left out unless it `needs_body`."""

    method: str
    path: str
    what: str
    gives: type[msgspec.Struct] | None = None
    takes: type[CheckedRequest] | None = None
    query: Mapping[str, str] = field(default_factory=dict)  # names and their JSON types
    needs_body: bool = True
    media: str = _JSON  # of what it gives
    streams: type[msgspec.Struct] | None = None


class OpenApiRoute:
    """The document, made when it is first asked for."""

    def __init__(
        self, operations: Sequence[Operation], actions: Sequence[Action], root_path: str = ""
    ) -> None:
        """`root_path`: what is before all paths."""
        self._root_path = root_path
        self._operations = operations
        self._actions = actions
        self._document = b""

    async def __call__(self, _: Request) -> Response:
        """GET /openapi.json."""
        if not self._document:
            made = document(self._operations, self._actions)
            if self._root_path:
                made["servers"] = [{"url": self._root_path}]
            self._document = msgspec.json.encode(made)
        return Response(self._document, media_type="application/json")


def document(operations: Sequence[Operation], actions: Sequence[Action]) -> dict[str, Any]:
    """The OpenAPI 3.1 document of these paths."""
    structs: list[Any] = [ErrorBody, OllamaError, CohereError]
    structs += _structs(operations, actions)
    refs, components = msgspec.json.schema_components(structs, ref_template=_REF)
    of: dict[Any, Any] = dict(zip(structs, refs, strict=True))
    paths: dict[str, Any] = {}
    for taken, media in dict(_bodies(operations, actions)).items():
        _complete(components[of[taken]["$ref"].rpartition("/")[2]], taken, media)
    for action in actions:
        paths.setdefault(action.path, {})[action.method] = _action(action, of)
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


def _structs(operations: Sequence[Operation], actions: Sequence[Action]) -> list[type[Any]]:
    found = [each for o in operations for each in (o.takes, o.gives, o.or_gives, o.streams)]
    found += [each for action in actions for each in (action.takes, action.gives, action.streams)]
    return list(dict.fromkeys(each for each in found if each))


def _bodies(
    operations: Sequence[Operation], actions: Sequence[Action]
) -> Iterator[tuple[type[CheckedRequest], str]]:
    """What is taken, and in which form."""
    for operation in operations:
        yield operation.takes, operation.media
    for action in actions:
        if action.takes is not None:
            yield action.takes, _JSON


def _complete(body: dict[str, Any], takes: type[CheckedRequest], media: str) -> None:
    """What the struct of a body does not say of it."""
    fields = body["properties"]
    body["additionalProperties"] = False
    fields |= {name: {"description": _LABEL} for name in sorted(IGNORED - fields.keys())}
    needs = takes.needs
    if media != _JSON:
        fields["file"] = {"type": "string", "contentMediaType": "application/octet-stream"}
        needs = (("file",),)
    if len(needs) == 1:
        body["required"] = [*body.get("required", ()), *needs[0]]
        for name in needs[0]:
            fields[name] = _never_null(fields[name])
    elif needs:
        body["anyOf"] = [{"required": list(names)} for names in needs]


def _never_null(schema: dict[str, Any]) -> dict[str, Any]:
    kinds = [kind for kind in schema.get("anyOf", ()) if kind != {"type": "null"}]
    return {"anyOf": kinds} if kinds else schema


def _action(action: Action, of: dict[type[Any], Any]) -> dict[str, Any]:
    names = re.findall(r"{(\w+)}", action.path)
    content = {action.media: {"schema": of[action.gives] if action.gives else {}}}
    if action.streams is not None:
        content[_EVENTS] = {"schema": of[action.streams]}
    said = {"description": action.what, "content": content}
    found: dict[str, Any] = {
        "summary": action.what,
        "parameters": [
            *({"name": name, "in": "path", "required": True, "schema": _NAME} for name in names),
            *(
                {"name": name, "in": "query", "schema": {"type": kind}}
                for name, kind in action.query.items()
            ),
        ],
        "responses": {"200": said, "default": _failed(action.path, of)},
    }
    if action.takes is not None:
        found["requestBody"] = _body(action.takes, _JSON, of) | {"required": action.needs_body}
    return found


def _body(takes: type[CheckedRequest], media: str, of: dict[type[Any], Any]) -> dict[str, Any]:
    return {"required": True, "content": {media: {"schema": of[takes]}}}


def _failed(path: str, of: dict[type[Any], Any]) -> dict[str, Any]:
    schema = of[error_kind(path)]
    return {"description": "What went wrong.", "content": {_JSON: {"schema": schema}}}


def _post(operation: Operation, of: dict[type[Any], Any]) -> dict[str, Any]:
    gives = of[operation.gives]
    if operation.or_gives is not None:
        gives = {"anyOf": [gives, of[operation.or_gives]]}
    content = {_JSON: {"schema": gives}} | {media: {} for media in operation.or_media}
    if operation.streams is not None:
        content[operation.stream_media] = {"schema": of[operation.streams]}
    return {
        "summary": operation.summary,
        "requestBody": _body(operation.takes, operation.media, of),
        "responses": {
            "200": {"description": "The answer.", "content": content},
            "default": _failed(operation.path, of),
        },
    }
