"""Attacks on every surface: a refusal of the right kind, and nobody else is harmed.

Where the other rows of the table of attacks are held:

    bodies, values, counts on the completion and chat routes    test_bad_input
    broken HTTP, slow clients, size limits                      processes/test_server,
                                                                http/test_http_protocol
    clients that leave or never read                            http/test_disconnect
    keys, paths, hosts, request ids                             http/test_auth
    who shares what is cached                                   generation/test_cache_namespace
    names of special tokens in what somebody says               generation/test_special_tokens
    a million letters, schemas without end, dropped streams     test_floods
    neighbours of attackers in a real engine                    processes/test_engine_end_to_end
    more requests of one key than it may have                   http/test_key_limits
    other origins, certificates, Unix sockets                   http/test_access,
                                                                processes/test_server
    grammars that explode, memory and time of their compilers   generation/test_structured_outputs
    texts of tool calls, in linear time and without eval        reply/test_reader
    templates that escape, loop or explode                      tests/engine/templates
    checkpoints and their configurations                        tests/models
    compiles after the warm-up, neighbours in one step          tests/engine
    options two by two                                          tests/engine/test_llm
    what the engine cannot be told, answers that fail           processes/test_outbox
    files that are small and samples without end                audio/test_decoding
    code beside a checkpoint                                    models/checkpoints/test_loading
    what the processes listen on                                processes/test_server
"""

import ast
import asyncio
import io
import json
from pathlib import Path
from typing import Any

import msgspec
import pytest
from starlette.routing import Route, WebSocketRoute

import engine
import models
import pallas_kernels
import serve as serve_package
from engine.adapters.request import LoRARequest
from engine.config import EngineConfig
from engine.errors import EngineError
from serve.commands.batch import run_batch
from serve.operations.operator_routes import (
    CONTINUE,
    FREEZE_GC,
    PAUSE,
    RESETS,
    RESUME,
    SLEEPS,
    STOP_PROFILE,
)
from serve.responses import store as store_module
from serve.service import Service
from serve.settings import ServerSettings
from tests.serve.attacks.harm import assert_unharmed, beside_a_neighbour, memory_stays_flat
from tests.serve.attacks.test_bad_input import BODIES
from tests.serve.http.test_http_protocol import HEAD, REQUEST, exchange, listening
from tests.serve.served import PATIENCE, Serve, Served, until

__all__ = ["memory_stays_flat"]  # a fixture
pytestmark = pytest.mark.anyio

CHAT, RESPONSES, MESSAGES = "/v1/chat/completions", "/v1/responses", "/v1/messages"
COUNT, GENERATE, ABORT = "/v1/messages/count_tokens", "/generate", "/admin/abort"
TURN = {"role": "user", "content": "a"}
GOOD: dict[str, dict[str, Any]] = {
    CHAT: {"messages": [TURN], "max_tokens": 1},
    RESPONSES: {"input": "a", "max_output_tokens": 1},
    MESSAGES: {"model": "tiny", "messages": [TURN], "max_tokens": 1},
    COUNT: {"model": "tiny", "messages": [TURN]},
    GENERATE: {"text": "a", "sampling_params": {"max_new_tokens": 1}},
    "/tokenize": {"prompt": "a"},
    "/detokenize": {"tokens": [1]},
    ABORT: {"id": "none"},
}
JSON = {"content-type": "application/json"}


def nested(depth: int) -> dict[str, Any]:
    value: dict[str, Any] = {}
    for _ in range(depth):
        value = {"a": value}
    return value


def tool(name: str = "f", **fields: Any) -> dict[str, Any]:
    return {"type": "function", "function": {"name": name, **fields}}


def flat(name: str = "f", **fields: Any) -> dict[str, Any]:
    return {"type": "function", "name": name, **fields}


def assert_refused(path: str, response: Any, status: int = 400) -> dict[str, Any]:
    assert response.status_code == status, (response.request.content[:200], response.text[:300])
    body = response.json()
    assert body.pop("type", None) == ("error" if path.startswith(MESSAGES) else None)
    if path.startswith("/cohere/"):
        assert list(body) == ["message"] and body["message"].isprintable()
        return {"message": body["message"]}
    error: dict[str, Any] = body.pop("error")
    if path.startswith("/api/"):
        assert not body and isinstance(error, str) and error.isprintable()
        return {"message": error}
    assert not body and set(error) == {"message", "type", "param", "code"}
    assert len(error["message"]) < 700 and error["message"].isprintable()
    return error


BODILESS = (*RESETS, PAUSE, RESUME, CONTINUE, STOP_PROFILE, FREEZE_GC, *SLEEPS, "/ping")  # or may


async def posts(served: Served) -> list[str]:
    return [
        route.path
        for route in served.app.routes
        if isinstance(route, Route) and "POST" in (route.methods or ()) and "{" not in route.path
        if route.path not in BODILESS
    ]


async def test_no_route_takes_a_body_that_is_no_request(serve: Serve) -> None:
    async with serve() as served:
        paths = await posts(served)
        assert set(GOOD) <= set(paths)
        for path in FORMS:
            assert_refused(path, await served.http.post(path, content=b"{}", headers=JSON), 415)
        for path in sorted({*paths} - {*FORMS}):
            for body in BODIES.values():
                assert_refused(path, await served.http.post(path, content=body, headers=JSON))
            page = {"origin": "https://a.example"}  # whose browser says so
            assert_refused(path, await served.http.post(path, content=b"{}", headers=page), 415)
            packed = {**JSON, "content-encoding": "gzip"}
            assert_refused(path, await served.http.post(path, content=b"{}", headers=packed), 415)
            large = {**JSON, "content-length": "9" * 30}
            assert_refused(path, await served.http.post(path, content=b"{}", headers=large), 413)
        await assert_unharmed(served)


FORMS = ("/v1/audio/transcriptions", "/v1/audio/translations")
VALUES: list[tuple[str, str, Any]] = [
    (CHAT, "tools", [tool(f"f{i}") for i in range(1025)]), (CHAT, "tools", [tool(), tool()]),
    (CHAT, "tools", [tool("\x00")]), (CHAT, "tools", [tool("a" * 10_000)]),
    (CHAT, "tools", [tool(parameters=[])]), (CHAT, "tools", {}), (CHAT, "tools", []),
    (CHAT, "tools", [tool(parameters={"type": "bogus"})]),
    (CHAT, "messages", [{**TURN, "role": "assistant", "tool_calls": [{"function": 1}]}]),
    (RESPONSES, "input", []), (RESPONSES, "input", 5),
    (RESPONSES, "input", [{}]), (RESPONSES, "input", [[]]), (RESPONSES, "input", None),
    (RESPONSES, "input", [TURN] * 100_000), (RESPONSES, "input", [{"type": "computer_call"}]),
    (RESPONSES, "input", "a" * 5_000_000), (RESPONSES, "max_output_tokens", 0),
    (RESPONSES, "max_output_tokens", 10**30), (RESPONSES, "max_output_tokens", "1"),
    (RESPONSES, "temperature", -1), (RESPONSES, "top_p", 0), (RESPONSES, "top_k", -2),
    (RESPONSES, "top_logprobs", -1), (RESPONSES, "top_logprobs", 10**6),
    (RESPONSES, "seed", 2**64), (RESPONSES, "priority", 2**40), (RESPONSES, "cache_salt", ""),
    (CHAT, "cache_salt", "x" * 1025), (MESSAGES, "cache_salt", ""), (GENERATE, "cache_salt", ""),
    (RESPONSES, "metadata", {"a": 1}), (RESPONSES, "metadata", {str(i): "" for i in range(17)}),
    (RESPONSES, "metadata", {"a" * 65: ""}), (RESPONSES, "metadata", {"a": "b" * 513}),
    (RESPONSES, "previous_response_id", 5), (RESPONSES, "include", ["\x1b[31m"]),
    (RESPONSES, "tools", [flat(f"f{i}") for i in range(1025)]),
    (RESPONSES, "tools", [flat(), flat()]), (RESPONSES, "tools", [{"type": "web_search"}]),
    (RESPONSES, "tools", [flat("\r\n")]), (RESPONSES, "tool_choice", "sometimes"),
    (RESPONSES, "chat_template_kwargs", {"messages": []}), (RESPONSES, "chat_template", "{{ 1 }}"),
    (RESPONSES, "background", 1), (RESPONSES, "store", "yes"),
    (MESSAGES, "messages", []), (MESSAGES, "messages", [TURN] * 100_000),
    (MESSAGES, "messages", [{**TURN, "content": [{"type": "image", "source": {}}]}]),
    (MESSAGES, "messages", [{**TURN, "content": "a" * 5_000_000}]), (MESSAGES, "messages", {}),
    (MESSAGES, "max_tokens", 0), (MESSAGES, "max_tokens", -1), (MESSAGES, "max_tokens", 10**30),
    (MESSAGES, "stop_sequences", ["x"] * 10**5), (MESSAGES, "stop_sequences", [""]),
    (MESSAGES, "temperature", 1e300), (MESSAGES, "top_p", 2), (MESSAGES, "top_k", 2**31),
    (MESSAGES, "model", 5), (MESSAGES, "thinking", {"type": "always"}),
    (MESSAGES, "tools", [{"name": f"f{i}", "input_schema": {}} for i in range(1025)]),
    (MESSAGES, "tools", [{"name": "a b", "input_schema": {}}]),
    (MESSAGES, "tools", [{"name": "f", "input_schema": 1}]),
    (MESSAGES, "chat_template_kwargs", {"messages": []}), (MESSAGES, "system", 5),
    (COUNT, "messages", []), (COUNT, "messages", [TURN] * 100_000),
    (GENERATE, "text", ""), (GENERATE, "text", []), (GENERATE, "text", ["a"] * 10**6),
    (GENERATE, "text", "a" * 5_000_000), (GENERATE, "text", 5),
    (GENERATE, "rid", 5), (GENERATE, "sampling_params", {"max_new": 1}),
    (GENERATE, "sampling_params", []), (GENERATE, "priority", 2**40), (GENERATE, "lora_path", 7),
    (GENERATE, "custom_logit_processor", "gASV"),
    ("/tokenize", "prompt", ""), ("/tokenize", "prompt", "a" * 5_000_000),
    ("/tokenize", "prompt", 5),
    ("/detokenize", "tokens", []), ("/detokenize", "tokens", [-1]),
    ("/detokenize", "tokens", [300]),
    ("/detokenize", "tokens", [2**70]), ("/detokenize", "tokens", [1.5]),
    ("/detokenize", "tokens", "gASV"), ("/detokenize", "tokens", [True]),
    (ABORT, "id", 5), (ABORT, "id", None),
]  # fmt: skip


@pytest.mark.parametrize("path", GOOD)
async def test_a_bad_value_is_named_on_every_surface(serve: Serve, path: str) -> None:
    async with serve() as served:
        async with beside_a_neighbour(served):
            for _, param, value in [case for case in VALUES if case[0] == path]:
                response = await served.post(path, **{**GOOD[path], param: value})
                error = assert_refused(path, response)
                assert error["param"] == param, (param, str(value)[:60], error)
        await assert_unharmed(served)


DEEP = nested(800)
ODD: list[tuple[str, dict[str, Any]]] = [
    (CHAT, {"tools": [tool(parameters=DEEP)]}),
    (CHAT, {"tools": [tool(parameters=DEEP)], "tool_choice": "required"}),
    (CHAT, {"tools": [tool(parameters={"type": 5, "pattern": "("})], "tool_choice": "required"}),
    (CHAT, {"tools": [tool(parameters={"$ref": "#"})], "tool_choice": "required"}),
    (CHAT, {"tools": [tool(parameters={"$ref": "http://127.0.0.1:1/x"})],
            "tool_choice": "required"}),
    (CHAT, {"tools": [tool(parameters={"$ref": "file:///etc/passwd"})],
            "tool_choice": "required"}),
    (CHAT, {"tools": [tool(description="\x00<|im_start|>system")]}),
    (CHAT, {"messages": [{**TURN, "name": "\x00"}]}),
    (CHAT, {"messages": [{"role": "assistant", "content": None, "tool_calls": [
        {"function": {"name": "f", "arguments": "[" * 50_000}}]}, TURN]}),
    (CHAT, {"messages": [{"role": "assistant", "content": None, "tool_calls": [
        {"function": {"name": "f", "arguments": DEEP}}]}, TURN]}),
    (CHAT, {"messages": [{"role": "assistant", "content": None, "tool_calls": [
        {"function": {"name": "f", "arguments": "9" * 5_000}}]}, TURN]}),
    (CHAT, {"chat_template_kwargs": {"x": DEEP}}), (CHAT, {"structured_outputs": DEEP}),
    (CHAT, {"response_format": {"type": "json_schema",
                                "json_schema": {"name": "x", "schema": DEEP}}}),
    (RESPONSES, {"tools": [flat(parameters=DEEP)]}), (RESPONSES, {"input": [DEEP]}),
    (RESPONSES, {"text": {"format": DEEP}}), (RESPONSES, {"metadata": {"\x00": "\x00"}}),
    (RESPONSES, {"input": [{"type": "function_call", "call_id": "", "name": "",
                            "arguments": "[" * 50_000}, TURN]}),
    (RESPONSES, {"input": "\x00\x1b[31m\u202e"}),
    (MESSAGES, {"tools": [{"name": "f", "input_schema": DEEP}]}),
    (MESSAGES, {"messages": [TURN, {"role": "assistant", "content": [
        {"type": "tool_use", "id": "1", "name": "f", "input": DEEP}]}, TURN]}),
    (MESSAGES, {"messages": [{**TURN, "content": [
        {"type": "text", "text": "a", "cache_control": DEEP}]}]}),
    (MESSAGES, {"stop_sequences": ["\x00"]}),
    (GENERATE, {"sampling_params": {"json_schema": "{" * 50_000, "max_new_tokens": 1}}),
    (GENERATE, {"sampling_params": {"json_schema": "[" * 50_000, "max_new_tokens": 1}}),
    (GENERATE, {"sampling_params": {"regex": "(" * 5_000, "max_new_tokens": 1}}),
    (GENERATE, {"sampling_params": {"ebnf": "\x00", "max_new_tokens": 1}}),
    (GENERATE, {"sampling_params": {"structural_tag": "\x00", "max_new_tokens": 1}}),
    (GENERATE, {"text": "a", "rid": "\r\nx: y"}),
    ("/tokenize", {"prompt": " " * 127}), ("/tokenize", {"prompt": "\u200d" * 40}),
    ("/detokenize", {"tokens": [255] * 100_000}),
]  # fmt: skip


@pytest.mark.parametrize("number", range(len(ODD)))
async def test_what_is_odd_is_answered_or_refused_and_never_fails(
    serve: Serve, number: int, caplog: pytest.LogCaptureFixture
) -> None:
    path, fields = ODD[number]
    settings = ServerSettings(tool_call_parser="hermes")
    async with serve(settings, EngineConfig(max_model_len=4096)) as served:
        async with beside_a_neighbour(served):
            response = await served.post(path, **{**GOOD[path], **fields})
            if response.status_code != 200:
                assert_refused(path, response)
        await assert_unharmed(served)
    assert "Traceback" not in caplog.text and not caplog.records


@pytest.mark.parametrize("regex", ["(a+)+b", "a{1,100000000}", "(a{1,1000}){1,1000}", "(.*.*)*x"])
async def test_a_regex_that_explodes_is_compiled_or_refused_in_time(
    serve: Serve, regex: str
) -> None:
    async with serve() as served, asyncio.timeout(PATIENCE):
        async with beside_a_neighbour(served):
            schema = json.dumps({"type": "string", "pattern": regex})
            for param, value in (("regex", regex), ("json_schema", schema)):
                fields = {"prompt": "a", "max_tokens": 2, param: value}
                answer = await served.complete(**fields)
                if answer.status_code != 200:  # llguidance takes the first one in linear time
                    assert assert_refused("", answer)["param"] == param
        await assert_unharmed(served)


async def test_a_million_choices_and_a_number_without_end_are_refused(serve: Serve) -> None:
    async with serve() as served:
        answer = await served.complete(prompt="a", guided_json={"maximum": 10**30})
        assert assert_refused("", answer)["param"] == "guided_json"
        answer = await served.complete(prompt="a", guided_choice=["a"] * 10**6)
        assert assert_refused("", answer)["param"] == "guided_choice"
        await assert_unharmed(served)


async def test_files_of_pages_are_no_way_to_others(serve: Serve) -> None:
    """And a list of ranges costs nothing: a file is sent whole."""
    async with serve() as served:
        whole = (await served.http.get("/pages/style.css")).content
        ranges = {"range": "bytes=" + ",".join(["0-"] * 10_000)}
        answer = await served.http.get("/pages/style.css", headers=ranges)
        assert (answer.status_code, answer.content) == (200, whole)
        for path in ("..%2fapp.py", "%2e%2e/app.py", "..%5capp.py", "style.css%00", "__init__.py"):
            assert (await served.http.get(f"/pages/{path}")).status_code == 404, path


async def test_a_stored_response_belongs_to_its_key(serve: Serve) -> None:
    mine, other = ({"authorization": f"Bearer {key}"} for key in ("k1", "k2"))
    async with serve(ServerSettings(api_keys=("k1", "k2"))) as served:
        body = {"input": "a", "background": True}
        with served.engine_stopped():
            made = (await served.http.post(RESPONSES, json=body, headers=mine)).json()
            path = f"{RESPONSES}/{made['id']}"
            follow = {"input": "b", "previous_response_id": made["id"]}
            for method, url, fields in (
                ("GET", path, None), ("POST", f"{path}/cancel", None), ("DELETE", path, None),
                ("POST", RESPONSES, follow),
            ):  # fmt: skip
                refused = await served.http.request(method, url, json=fields, headers=other)
                assert made["id"] in assert_refused(url, refused, 404)["message"]
            seen = (await served.http.get(path, headers=mine)).json()
            assert seen["status"] in ("queued", "in_progress")
            cancelled = await served.http.post(f"{path}/cancel", headers=mine)
        assert cancelled.json()["status"] == "cancelled"
        twice = await asyncio.gather(*(served.http.delete(path, headers=mine) for _ in range(2)))
        assert sorted(each.status_code for each in twice) == [200, 404]


async def test_stored_responses_cost_a_bounded_memory(
    serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever part of a response it is that is large."""
    monkeypatch.setattr(store_module, "MAX_BYTES", 100_000)
    large = "x" * 20_000
    call = {
        "type": "function_call",
        "call_id": "1",
        "name": "f",
        "arguments": json.dumps({"a": large}),
    }
    parts: list[dict[str, Any]] = [
        {"instructions": large, "input": "a"}, {"input": [call, TURN]}, {"user": large},
        {"tools": [flat(description=large)]},
    ]  # fmt: skip
    settings = ServerSettings(tool_call_parser="hermes", chat_template="{{ messages[-1].content }}")
    async with serve(settings) as served:
        for fields in parts:
            ids = []
            for _ in range(7):
                response = await served.post(RESPONSES, **{**GOOD[RESPONSES], **fields})
                assert response.status_code == 200, response.text
                ids.append(response.json()["id"])
            there = [(await served.http.get(f"{RESPONSES}/{i}")).status_code for i in ids]
            assert there[0] == 404 and there[-1] == 200, fields.keys()


async def test_a_flood_of_responses_in_the_background_is_refused(
    serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("serve.responses.routes.MAX_BACKGROUND", 3)
    async with serve() as served:
        body = {"input": "a", "background": True, "max_output_tokens": 20}
        with served.engine_stopped():
            ids = [(await served.post(RESPONSES, **body)).json()["id"] for _ in range(3)]
            refused = await served.post(RESPONSES, **body)
            assert_refused(RESPONSES, refused, 503)
            assert refused.headers["retry-after"]
            for each in ids:
                await served.http.delete(f"{RESPONSES}/{each}")
        assert (await served.post(RESPONSES, **{**body, "background": None})).status_code == 200
        await assert_unharmed(served)


async def test_odd_names_in_paths_are_not_found_and_stay_printable(serve: Serve) -> None:
    async with serve() as served:
        for name in (
            "%00",
            "%0d%0aX-A: b",
            "%1b%5b31m",
            "..%2f..%2fetc%2fpasswd",
            "%ff",
            "a" * 9999,
        ):
            for path in (f"/v1/models/{name}", f"{RESPONSES}/{name}", f"/pages/{name}", f"/{name}"):
                response = await served.http.get(path)
                error = assert_refused(path, response, 404)
                assert "x-a" not in response.headers and len(error["message"]) < 300
        for path in ("/openapi.json", "/admin", "/"):
            ranges = {"range": "bytes=" + ",".join(["0-"] * 10_000)}
            assert (await served.http.get(path, headers=ranges)).status_code in (200, 416)
        await assert_unharmed(served)


NAMES = ("../../etc", "/etc/passwd", "a\x00b", "", "tiny/../tiny", "Tiny", "x" * 100_000, "\u202e")


async def test_only_names_that_the_operator_gave_are_served(serve: Serve, tmp_path: Path) -> None:
    """No path becomes a model or an adapter because somebody writes it where a name belongs."""
    lora = LoRARequest("sql", 1, str(tmp_path))
    config = EngineConfig(enable_lora=True, lora_modules=(lora,))
    async with serve(config=config) as served:
        async with beside_a_neighbour(served):
            for name in (*NAMES, str(tmp_path)):
                for path in (CHAT, "/v1/completions", RESPONSES, MESSAGES, "/tokenize"):
                    good = GOOD.get(path, {"prompt": "a", "max_tokens": 1})
                    refused = await served.post(path, **{**good, "model": name})
                    error = assert_refused(path, refused, 404)
                    assert error["param"] == "model"
                for path in (CHAT, GENERATE):
                    refused = await served.post(path, **{**GOOD[path], "lora_path": name})
                    assert assert_refused(path, refused, 404)["param"] == "lora_path"
            named = await served.post(CHAT, **{**GOOD[CHAT], "model": "sql"})
            assert named.status_code == 200
        await assert_unharmed(served)


def test_no_check_is_an_assertion() -> None:
    """`python -O` leaves them out."""
    for package in (serve_package, engine, models, pallas_kernels):
        for path in Path(package.__path__[0]).rglob("*.py"):
            nodes = ast.walk(ast.parse(path.read_text(encoding="utf-8")))
            found = [node.lineno for node in nodes if isinstance(node, ast.Assert)]
            assert not found, (path, found)


async def test_no_route_tells_a_key(serve: Serve) -> None:
    settings = ServerSettings(api_keys=("concealed-1",), admin_api_key="concealed-2")
    async with serve(settings) as served:
        for key in ("concealed-1", "concealed-2"):
            for route in served.app.routes:
                assert isinstance(route, Route | WebSocketRoute)
                headers = {"authorization": f"Bearer {key}"}
                response = await served.http.get(route.path, headers=headers)
                assert "concealed" not in response.text, route.path


async def test_a_failure_is_logged_with_its_request_on_one_line(
    serve: Serve, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    failures = [EngineError("Too bad."), ValueError("a secret")]
    async with serve() as served:

        def fail(*_: object) -> None:
            raise failures.pop(0)

        monkeypatch.setattr(Service, "check_model", fail)
        served.http._transport.raise_app_exceptions = False  # type: ignore[attr-defined]
        for said in ("Too bad.", "ValueError"):
            answer = await served.http.get("/v1/models/a%1b[31mb")
            assert answer.status_code == 500
            [record] = caplog.records
            line = record.getMessage()
            assert line.isprintable() and "secret" not in line
            assert answer.headers["x-request-id"] in line and f"failed: {said}" in line
            caplog.clear()


async def test_only_a_whole_id_ends_a_request_and_only_for_the_operator(serve: Serve) -> None:
    settings = ServerSettings(api_keys=("k",), admin_api_key="root")
    user, operator = ({"authorization": f"Bearer {key}"} for key in ("k", "root"))
    async with serve(settings) as served:
        served.core.step_seconds = 0.005
        body = {"prompt": "ab", "max_tokens": 30}
        running = asyncio.create_task(served.http.post("/v1/completions", json=body, headers=user))
        await until(lambda: served.core.running)
        with served.engine_stopped():
            state = await served.http.get("/admin/state", headers=operator)
            [name] = [each["id"] for each in state.json()["requests"]]
            assert (await served.http.get("/admin/state", headers=user)).status_code == 401
            refused = await served.http.post(ABORT, json={"id": name}, headers=user)
            assert_refused(ABORT, refused, 401)
            for wrong in (name[:-1], name[:9], "", name + "\x00", name.upper()):
                answer = await served.http.post(ABORT, json={"id": wrong}, headers=operator)
                assert_refused(ABORT, answer, 404)
        assert (await running).json()["choices"][0]["text"] == "ab" * 15


SMUGGLED: dict[str, bytes] = {
    "two lengths": b"Content-Length: 5\r\nContent-Length: 6\r\n\r\n",
    "a signed length": b"Content-Length: +5\r\n\r\n",
    "a negative length": b"Content-Length: -1\r\n\r\n",
    "chunked and not": b"Transfer-Encoding: chunked, identity\r\n\r\n",
    "chunked twice": b"Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n",
    "both": b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n",
    "a space before the colon": b"Content-Length : 5\r\n\r\n",
    "NUL in a value": b"X-A: a\x00b\r\n\r\n",
    "two hosts": b"Host: b\r\n\r\n",
    "a bad end of a chunk": b"Transfer-Encoding: chunked\r\n\r\n1\r\n{XX0\r\n\r\n",
    "a huge chunk": b"Transfer-Encoding: chunked\r\n\r\n" + b"f" * 30 + b"\r\n",
}


@pytest.mark.parametrize("name", SMUGGLED)
async def test_what_two_servers_could_read_differently_is_refused(serve: Serve, name: str) -> None:
    """And what lies behind it is never taken for a second request."""
    second = b"GET /livez HTTP/1.1\r\nHost: a\r\n\r\n"
    async with serve() as served, listening(served) as port:
        answer = await exchange(port, HEAD + SMUGGLED[name] + second)
        assert answer.startswith(b"HTTP/1.1 400"), answer[:200]
        assert answer.count(b"HTTP/1.1") == 1 and b"alive" not in answer
        good = b"Connection: close\r\nContent-Length: %d\r\n\r\n" % len(REQUEST)
        assert b'"text":"a"' in await exchange(port, HEAD + good + REQUEST)


async def test_a_batch_goes_on_after_lines_that_are_none(serve: Serve) -> None:
    good = {"custom_id": "good", "method": "POST", "url": "/v1/completions"}
    whole = json.dumps({**good, "body": {"prompt": "ab", "max_tokens": 2}})
    bad = [
        "[" * 50_000, "{" * 10, "\x00", "\ud800", '{"custom_id":"a"}', "9" * 5_000,
        json.dumps({**good, "url": "/admin/abort", "body": {"id": "a"}}),
        json.dumps({**good, "url": "/../admin/state", "body": {}}),
        json.dumps({**good, "body": nested(900)}), json.dumps({**good, "body": None}),
    ]  # fmt: skip
    output = io.StringIO()
    async with serve() as served:
        lines = [each for line in bad for each in (line, whole)]
        done, failed = await run_batch(lines, output, served.app, concurrency=2)
        await assert_unharmed(served)
    assert (done, failed) == (len(bad), len(bad))
    answers = [msgspec.json.decode(line) for line in output.getvalue().splitlines()]
    texts = [a["response"]["body"]["choices"][0]["text"] for a in answers
             if a["response"] and a["response"]["status_code"] == 200]  # fmt: skip
    assert texts == ["ab"] * len(bad)
