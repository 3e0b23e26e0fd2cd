"""/openapi.json against the routes and structs that it describes."""

import msgspec
import pytest
from jsonschema import Draft202012Validator
from starlette.routing import Route

from serve.paths import ACTIONS, OPERATIONS
from tests.serve.served import Serve

pytestmark = pytest.mark.anyio


async def test_every_path_is_described_with_its_methods(serve: Serve) -> None:
    async with serve() as served:
        body = (await served.http.get("/openapi.json")).json()
        routes = [route for route in served.app.routes if isinstance(route, Route)]
    served_at = {
        (method.lower(), path)
        for route in routes
        for path in [route.path.replace(":path}", "}")]
        for method in route.methods or {"GET"}
        if method != "HEAD" and path not in ("/", "/openapi.json")
        if not path.startswith(("/admin", "/pages"))  # for browsers
    }
    described = {(method, path) for path, methods in body["paths"].items() for method in methods}
    assert described == served_at
    assert described == {("post", o.path) for o in OPERATIONS} | {
        (action.method, action.path) for action in ACTIONS
    }
    parameters = body["paths"]["/v1/responses/{response_id}"]["get"]["parameters"]
    assert [each["name"] for each in parameters if each["in"] == "path"] == ["response_id"]


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


async def test_what_has_to_be_there_is_marked(serve: Serve) -> None:
    """And without it each is refused, whatever else is sent."""
    async with serve() as served:
        response = await served.http.get("/openapi.json")
        schemas = response.json()["components"]["schemas"]
        for operation in OPERATIONS:
            if operation.media != "application/json":
                continue
            schema = schemas[operation.takes.__name__]
            alternatives = [set(each["required"]) for each in schema.get("anyOf", ())]
            needed = {*schema.get("required", ())}
            needs_any = bool(needed or alternatives)
            assert needs_any == (operation.path != "/open_session"), operation.path
            answer = await served.post(operation.path)
            assert answer.status_code == (400 if needs_any else 200), operation.path
            for name in needed:
                kinds = schema["properties"][name].get("anyOf", [])
                assert {"type": "null"} not in kinds
            fields = {field.name for field in msgspec.structs.fields(operation.takes)}
            assert needed.union(*alternatives) <= fields
    assert schemas["ResponsesRequest"]["required"] == ["input"]
    assert {"required": ["prompt_embeds"]} in schemas["CompletionRequest"]["anyOf"]
    assert {"required": ["messages"]} in schemas["ChatRequest"]["anyOf"]
    assert schemas["AudioRequest"]["required"] == ["file"]
    assert "temperature" not in schemas["TokenizeRequest"]["properties"]
    assert schemas["ChatRequest"]["properties"]["service_tier"]["description"]


async def test_answers_are_as_described(serve: Serve) -> None:
    async with serve() as served:
        document = (await served.http.get("/openapi.json")).json()
        for path in ("/version", "/metrics", "/v1/models"):
            kind = (await served.http.get(path)).headers["content-type"].partition(";")[0]
            assert [*document["paths"][path]["get"]["responses"]["200"]["content"]] == [kind]
        for text in ("a", ["a", "b"]):
            fields = {"text": text, "sampling_params": {"max_new_tokens": 1}}
            answer = (await served.post("/generate", **fields)).json()
            said = document["paths"]["/generate"]["post"]["responses"]["200"]["content"]
            schema = said["application/json"]["schema"] | {"components": document["components"]}
            Draft202012Validator(schema).validate(answer)
