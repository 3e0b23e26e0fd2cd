"""What responses were made of, through OpenAI's own client."""

from typing import Any

import openai
import pydantic
import pytest

from serve.settings import ServerSettings
from tests.serve.responses.test_responses import client
from tests.serve.served import Serve

pytestmark = pytest.mark.anyio
CALL = {"type": "function_call", "call_id": "c1", "name": "f", "arguments": "{}"}
OUTPUT = {"type": "function_call_output", "call_id": "c1", "output": "sunny"}
SAID: list[Any] = [
    {"role": "user", "content": "Q", "id": "mine"},
    {"role": "assistant", "content": [{"type": "output_text", "text": "A"}], "id": "mine"},
    CALL,
    OUTPUT,
    {"type": "reasoning", "summary": [], "content": [{"type": "reasoning_text", "text": "Hm"}]},
    {"role": "developer", "content": [{"type": "input_text", "text": "D"}]},
]


async def test_they_are_listed_with_ids(serve: Serve) -> None:
    async with client(serve) as (api, _):
        made = await api.responses.create(model="tiny", input=SAID)
        items = [item async for item in api.responses.input_items.list(made.id, order="asc")]
        newest = await api.responses.input_items.list(made.id)
    user, answer, call, output, thought, developer = items
    assert user.id == "mine" and len({item.id for item in items}) == len(items)
    assert [item.type for item in items] == [
        "message", "message", "function_call", "function_call_output", "reasoning", "message",
    ]  # fmt: skip
    assert user.content[0].to_dict() == {"type": "input_text", "text": "Q"}
    assert (answer.role, answer.content[0].text) == ("assistant", "A")
    assert (call.call_id, call.name, call.arguments) == ("c1", "f", "{}")
    assert output.output == "sunny" and thought.content[0].text == "Hm"
    assert developer.role == "developer" and {item.status for item in items} == {"completed"}
    assert [item.id for item in newest.data] == [item.id for item in items[::-1]]


async def test_they_come_in_pages(serve: Serve) -> None:
    async with client(serve, chat_template="{{ messages | length }}<|im_end|>") as (api, _):
        turns = [{"role": "user", "content": str(number)} for number in range(25)]
        made = await api.responses.create(model="tiny", input=turns)
        first = await api.responses.input_items.list(made.id)
        pages = api.responses.input_items.list(made.id, order="asc", limit=7)
        texts = [item.content[0].text async for item in pages]
        rest = await api.responses.input_items.list(made.id, after=first.data[-1].id)
        none = await api.responses.input_items.list(made.id, after=rest.data[-1].id)
    assert [item.content[0].text for item in first.data] == [str(n) for n in range(24, 4, -1)]
    assert first.has_more and first.last_id == first.data[-1].id
    assert texts == [str(number) for number in range(25)]
    assert len(rest.data) == 5 and not rest.has_more
    assert (none.data, none.first_id, none.has_more) == ([], None, False)


async def test_what_was_a_turn_of_its_own_stays_one(serve: Serve) -> None:
    """An answer, and what the next request says in the assistant's place."""
    more: Any = [{"role": "assistant", "content": "A"}, {"role": "user", "content": "Q"}]
    async with client(serve, chat_template="{{ messages | length }}<|im_end|>") as (api, _):
        first = await api.responses.create(model="tiny", input="Q")
        second = await api.responses.create(model="tiny", input=more, previous_response_id=first.id)
        third = await api.responses.create(model="tiny", input="Q", previous_response_id=second.id)
    assert [each.output_text for each in (first, second, third)] == ["1", "4", "6"]


async def test_a_response_was_made_of_what_it_went_on_with(serve: Serve) -> None:
    async with client(serve) as (api, _):
        first = await api.responses.create(model="tiny", input="Q")
        second = await api.responses.create(
            model="tiny", input=[{"role": "user", "content": "R", "id": first.output[0].id}],
            previous_response_id=first.id, background=True,
        )  # fmt: skip
        items = await api.responses.input_items.list(second.id, order="asc")
        alone = await api.responses.input_items.list(first.id)
        await api.responses.delete(second.id)
        with pytest.raises(openai.NotFoundError, match="no response"):
            await api.responses.input_items.list(second.id)
    assert [(item.role, item.content[0].text) for item in items.data] == [
        ("user", "Q"), ("assistant", "Q"), ("user", "R"),
    ]  # fmt: skip
    assert items.data[1].id == first.output[0].id != items.data[2].id
    assert [item.content[0].text for item in alone.data] == ["Q"]


@pytest.mark.parametrize(("query", "status", "param"), [
    ("limit=0", 400, "limit"), ("limit=101", 400, "limit"), ("limit=x", 400, "limit"),
    ("limit=", 400, "limit"), ("limit=%D9%A3", 400, "limit"), ("limit=-1", 400, "limit"),
    ("order=up", 400, "order"), ("order=", 400, "order"), ("after=x", 404, "after"),
    ("after=", 404, "after"), ("after=%00", 404, "after"), ("before=x", 400, "before"),
    ("include[]=file_search_call.results", 400, "include"), ("include=x", 400, "include"),
])  # fmt: skip
async def test_what_cannot_be_listed_is_refused(
    serve: Serve, query: str, status: int, param: str
) -> None:
    async with client(serve) as (_, served):
        made = (await served.post("/v1/responses", input="Q")).json()
        answer = await served.http.get(f"/v1/responses/{made['id']}/input_items?{query}")
        fine = "include[]=message.output_text.logprobs&include=reasoning.encrypted_content"
        taken = await served.http.get(f"/v1/responses/{made['id']}/input_items?{fine}")
    assert (answer.status_code, answer.json()["error"]["param"]) == (status, param)
    assert taken.status_code == 200 and len(taken.json()["data"]) == 1


async def test_nobody_else_sees_them(serve: Serve) -> None:
    settings = ServerSettings(api_keys=("a", "b"))
    async with serve(settings) as served:
        mine, other = {"authorization": "Bearer a"}, {"authorization": "Bearer b"}
        made = await served.http.post("/v1/responses", json={"input": "Q"}, headers=mine)
        path = f"/v1/responses/{made.json()['id']}/input_items"
        answers = [(await served.http.get(path, headers=key)).status_code for key in (mine, other)]
    assert answers == [200, 404]


class City(pydantic.BaseModel):
    name: str


async def test_json_that_is_cut_off_says_so(serve: Serve) -> None:
    """The client's `parse` reads every text, so there it fails as with OpenAI's own server."""
    text = '{"name": "Rome"}'
    async with client(serve) as (api, served):
        asked: dict[str, Any] = {"model": "tiny", "input": text, "text_format": City}
        whole = await api.responses.parse(**asked)
        cut: dict[str, Any] = {"input": text, "max_output_tokens": 4}
        made = await served.post("/v1/responses", **cut)
        streamed = await api.responses.create(model="tiny", **cut, stream=True)
        events = [event async for event in streamed]
        with pytest.raises(pydantic.ValidationError, match="EOF"):
            await api.responses.parse(**asked, max_output_tokens=4)
    assert whole.output_parsed == City(name="Rome") and whole.output[0].status == "completed"
    body = made.json()
    assert body["status"] == "incomplete" and body["output"][0]["status"] == "incomplete"
    assert body["incomplete_details"] == {"reason": "max_output_tokens"}
    done = [event for event in events if event.type == "response.output_item.done"]
    assert events[-1].type == "response.incomplete" and done[0].item.status == "incomplete"
    assert events[-1].response.output == [done[0].item]
