"""SGLang's sessions: turns that go on where others ended, of which only what is new is sent."""

import asyncio
import json
from array import array
from pathlib import Path
from typing import Any

import pytest

from engine.errors import NotFoundError, RequestError
from engine.outputs import OutputDelta
from serve.native import sessions as limits
from serve.native.sessions import SessionParams, Sessions
from serve.settings import ServerSettings
from tests.serve.conftest import TEMPLATE
from tests.serve.served import Serve, Served, event_data

pytestmark = pytest.mark.anyio
FEW = {"sampling_params": {"max_new_tokens": 3}}
PROMPT = [5, 6, 7]
ONE = {"id": "one"}


async def open_one(served: Served, **body: Any) -> str:
    answer = await served.post("/open_session", **body)
    assert answer.status_code == 200, answer.text
    name: str = answer.json()
    return name


async def turn(served: Served, name: str, ids: list[int], **params: Any) -> dict[str, Any]:
    body = {"input_ids": ids, "session_params": {"id": name, **params}, **FEW}
    answer = await served.post("/generate", **body)
    assert answer.status_code == 200, answer.text
    found: dict[str, Any] = answer.json()
    return found


async def test_a_turn_goes_on_behind_another(serve: Serve) -> None:
    async with serve() as served:
        name = await open_one(served)
        first = await turn(served, name, PROMPT)
        rid, said = first["meta_info"]["id"], first["output_ids"]
        second = await turn(served, name, [9], rid=rid)
        await turn(served, name, [9], rid=rid, drop_previous_output=True)
        await turn(served, name, [9], rid=rid, offset=2)
        await turn(served, name, [9], rid=rid, offset=-1)
        await turn(served, name, [8], rid=second["meta_info"]["id"])
        await turn(served, name, [8])
        prompts = [each.prompt_token_ids for each in served.core.added]
        closed = await served.post("/close_session", session_id=name)
        gone = await served.post("/generate", input_ids=[5], session_params={"id": name})
    assert len(said) == 3
    whole = [*PROMPT, *said, 9]
    assert prompts == [
        PROMPT, whole, [*PROMPT, 9], [5, 6, 9], [*PROMPT, *said[:-1], 9],
        [*whole, *second["output_ids"], 8], [8],
    ]  # fmt: skip
    assert second["meta_info"]["prompt_tokens"] == 7 and closed.json() == {"success": True}
    assert gone.status_code == 404 and gone.json()["error"]["param"] == "session_params"


async def test_what_is_replaced_is_forgotten(serve: Serve) -> None:
    async with serve() as served:
        name = await open_one(served, session_id="mine")
        first = (await turn(served, name, PROMPT))["meta_info"]["id"]
        second = (await turn(served, name, [9], rid=first))["meta_info"]["id"]
        other = (await turn(served, name, [4]))["meta_info"]["id"]
        third = (await turn(served, name, [8], rid=first, replace=True))["meta_info"]["id"]
        lost = [
            await served.post("/generate", input_ids=[5], session_params={"id": name, "rid": rid})
            for rid in (second, other, third)
        ]
        await turn(served, name, [5], replace=True)
        again = {"id": name, "rid": first}
        lost.append(await served.post("/generate", input_ids=[5], session_params=again))
    assert name == "mine"
    assert [each.status_code for each in lost] == [400, 200, 200, 400]
    assert "no turn" in lost[0].json()["error"]["message"]


async def test_a_streamed_turn_is_one_too_and_a_text_begins_once(
    serve: Serve, model_folder: Path, tmp_path: Path
) -> None:
    settings = {"bos_token": "<|im_start|>", "add_bos_token": True, "chat_template": TEMPLATE}
    for each in model_folder.iterdir():
        (tmp_path / each.name).write_bytes(each.read_bytes())
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(settings))
    async with serve(folder=tmp_path) as served:
        name = await open_one(served, streaming=True)
        body = {"text": "ab", "session_params": {"id": name}, "stream": True, "rid": "r"} | FEW
        *_, last, _ = event_data((await served.post("/generate", **body)).text)
        await turn(served, name, [256, 9])
        refused = await served.post(
            "/generate", input_ids=[5], session_params={"id": name, "offset": 1}
        )
        prompts = [each.prompt_token_ids for each in served.core.added]
    assert last["meta_info"]["id"] == "r"
    assert prompts[1] == [*prompts[0], *last["output_ids"], 9]
    assert refused.status_code == 400 and "streaming" in refused.json()["error"]["message"]


async def test_chats_have_sessions(serve: Serve) -> None:
    async with serve() as served:
        name = await open_one(served)
        session = {"id": name}
        first = (await served.chat("Hi", session_params=session, max_tokens=2)).json()
        ids = served.core.added[0].prompt_token_ids
        session |= {"rid": first["id"]}
        streamed = await served.chat("Go", session_params=session, max_tokens=2, stream=True)
        plain = (await served.chat("Go", max_tokens=2, return_token_ids=True)).json()
        prompts = [each.prompt_token_ids for each in served.core.added]
    said = prompts[1][len(ids) : -len(plain["prompt_token_ids"])]
    assert prompts[1] == [*ids, *said, *plain["prompt_token_ids"]] and len(said) == 2
    events = event_data(streamed.text)
    assert events[0]["choices"][0]["delta"]["role"] == "assistant"
    assert events[-2]["choices"][0]["finish_reason"] == "length"


async def test_completions_have_sessions(serve: Serve) -> None:
    async with serve() as served:
        name = await open_one(served)
        sent = {"max_tokens": 2, "return_token_ids": True}
        session = {"id": name}
        first = (await served.complete(prompt="ab", session_params=session, **sent)).json()
        session |= {"rid": first["id"]}
        stream = await served.complete(prompt=[9], session_params=session, stream=True, **sent)
        prompts = [each.prompt_token_ids for each in served.core.added]
    said = first["choices"][0]["token_ids"]
    assert prompts[1] == [*prompts[0], *said, 9] and len(said) == 2
    assert event_data(stream.text)[0]["choices"][0]["prompt_token_ids"] == prompts[1]


async def test_a_session_is_its_owners(serve: Serve) -> None:
    async with serve(ServerSettings(api_keys=("a", "b"))) as served:
        served.http.headers["authorization"] = "Bearer a"
        name = await open_one(served)
        await turn(served, name, PROMPT)
        served.http.headers["authorization"] = "Bearer b"
        other = await served.post("/generate", input_ids=[5], session_params={"id": name})
        closed = await served.post("/close_session", session_id=name)
        assert await open_one(served, session_id=name) == name
    assert (other.status_code, closed.status_code) == (404, 404)


async def test_a_client_that_leaves_leaves_no_turn(serve: Serve) -> None:
    async with serve() as served:
        name = await open_one(served)
        await turn(served, name, PROMPT)
        body = {"input_ids": [5], "session_params": {"id": name}, "rid": "left"} | FEW
        with served.engine_stopped():
            task = asyncio.create_task(served.post("/generate", **body))
            while not served.engine.num_sequences:
                await asyncio.sleep(0)
            busy = {"id": name, "rid": "left"}
            early = await served.post("/generate", input_ids=[5], session_params=busy)
            task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        later = await served.post("/generate", input_ids=[5], session_params=busy)
    assert "has not finished" in early.json()["error"]["message"]
    assert "no turn" in later.json()["error"]["message"]


@pytest.mark.parametrize(
    ("path", "body", "param"),
    [
        ("/open_session", {"session_id": "", "capacity_of_str_len": 0}, "session_id"),
        ("/open_session", {"timeout": 0, "capacity_of_str_len": 0}, "timeout"),
        ("/open_session", {"capacity_of_str_len": -1}, "capacity_of_str_len"),
        ("/open_session", {"session_id": "one", "capacity_of_str_len": 0}, "session_id"),
        ("/close_session", {}, "session_id"),
        ("/close_session", {"session_id": "two"}, "session_id"),
        ("/generate", {"input_ids": [5], "session_params": {}}, "session_params"),
        ("/generate", {"input_ids": [5], "session_params": {"id": "two"}}, "session_params"),
        ("/generate", {"input_ids": [[5]], "session_params": {"id": "one"}}, "session_params"),
        ("/generate", {"input_ids": [2**40], "session_params": {"id": "one"}}, "input_ids"),
        ("/generate", {"text": "", "session_params": {"id": "one"}}, "text"),
        ("/v1/chat/completions", {"n": 2, "session_params": {"id": "one"}}, "session_params"),
        ("/v1/completions", {"prompt": "a", "session_params": {"id": "two"}}, "session_params"),
        ("/v1/completions", {"prompt": ["a", "b"], "session_params": ONE}, "session_params"),
        ("/v1/completions", {"prompt": "a", "n": 2, "session_params": ONE}, "n"),
        ("/v1/completions", {"prompt": "a", "echo": True, "session_params": ONE}, "echo"),
        ("/v1/completions", {"prompt": [2**40], "session_params": ONE}, "prompt"),
        ("/v1/completions/render", {"prompt": "a", "session_params": ONE}, "session_params"),
        ("/v1/embeddings", {"input": "a", "session_params": ONE}, "session_params"),
    ],
)
async def test_wrong_requests_name_their_field(
    serve: Serve, path: str, body: dict[str, Any], param: str
) -> None:
    async with serve() as served:
        await open_one(served, session_id="one")
        if "chat" in path:
            body = {"messages": [{"role": "user", "content": "a"}], **body}
        answer = await served.post(path, **body)
    assert answer.status_code in (400, 404)
    assert answer.json()["error"]["param"].startswith(param), answer.text


def speak(sessions: Sessions, name: str, own: str, ids: list[int], **params: Any) -> "array[int]":
    with sessions.turn("", SessionParams(id=name, **params), own, ids, None) as one:
        one.hear(OutputDelta(request_id="", index=0, token_ids=[1], finish_reason="stop"))
    return one.prompt


def test_all_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "MAX_SESSIONS", 3)
    monkeypatch.setattr(limits, "MAX_TURNS", 2)
    monkeypatch.setattr(limits, "MAX_TOKENS", 20)
    sessions = Sessions()
    names = ["1", "2", "3", "4"]
    for name in names:
        sessions.open("", name, streaming=False, timeout=None)
    assert len(sessions) == 3
    with pytest.raises(NotFoundError):
        speak(sessions, names[0], "r", [5])
    for rid in ("a", "b", "c"):
        speak(sessions, names[1], rid, [5])
    with pytest.raises(RequestError, match="no turn 'a'"):
        speak(sessions, names[1], "d", [5], rid="a")
    assert speak(sessions, names[1], "d", [5], rid="c").tolist() == [5, 1, 5]
    speak(sessions, names[2], "a", [5] * 16)  # with which there are too many tokens
    assert len(sessions) == 1
    with pytest.raises(NotFoundError):
        speak(sessions, names[3], "a", [5])


def test_what_nobody_uses_is_closed(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [0.0]
    monkeypatch.setattr(limits.time, "monotonic", lambda: now[0])
    sessions = Sessions()
    short, long = "short", "long"
    sessions.open("", short, streaming=False, timeout=10)
    sessions.open("", long, streaming=False, timeout=1e9)
    now[0] = 9
    speak(sessions, short, "a", [5])
    now[0] = 18
    speak(sessions, short, "b", [5], rid="a")
    now[0] = 30
    with pytest.raises(NotFoundError):
        speak(sessions, short, "c", [5])
    speak(sessions, long, "a", [5])
    now[0] = 40 + limits.IDLE_SECONDS
    with pytest.raises(NotFoundError):
        speak(sessions, long, "b", [5])
