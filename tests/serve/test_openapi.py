"""/openapi.json against the routes and structs that it describes."""

import pytest
from starlette.routing import Route

from serve.app import OPERATIONS, READABLE
from tests.serve.served import Serve

pytestmark = pytest.mark.anyio


async def test_every_path_is_described(serve: Serve) -> None:
    async with serve() as served:
        body = (await served.http.get("/openapi.json")).json()
        paths = {
            route.path
            for route in served.app.routes
            if isinstance(route, Route) and "{" not in route.path
        }
    for_browsers = {path for path in paths if path == "/" or path.startswith(("/admin", "/pages"))}
    assert set(body["paths"]) == paths - for_browsers - {"/openapi.json"}
    assert {o.path for o in OPERATIONS} | set(READABLE) == set(body["paths"])
    assert all(path in body["paths"] for path in READABLE)


async def test_references_resolve_and_fields_are_the_structs(serve: Serve) -> None:
    async with serve() as served:
        response = await served.http.get("/openapi.json")
    schemas = response.json()["components"]["schemas"]
    names = {part.split('"')[0] for part in response.text.split("#/components/schemas/")[1:]}
    assert names <= set(schemas)
    for operation in OPERATIONS:
        content = response.json()["paths"][operation.path]["post"]["requestBody"]["content"]
        name = content[operation.media]["schema"]["$ref"].rpartition("/")[2]
        assert set(operation.takes.__struct_fields__) <= set(schemas[name]["properties"])
        assert schemas[name]["additionalProperties"] is False
