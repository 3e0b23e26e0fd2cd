"""Fields that name or show something: request_id, rid, return_prompt_text, logprob_token_ids."""

import asyncio
from typing import Any

import openai
import pytest

from engine.config import EngineConfig
from tests.serve.served import Serve, Served, event_data

pytestmark = pytest.mark.anyio


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(
    ("fields", "chat_id", "id"),
    [
        ({"request_id": "mine"}, "chatcmpl-mine", "cmpl-mine"),
        ({"rid": "mine"}, "mine", "mine"),
    ],
)
async def test_a_request_may_name_its_response(
    serve: Serve, stream: bool, fields: dict[str, str], chat_id: str, id: str
) -> None:
    """Two of one name at a time do not meet: inside they have names of their own."""
    async with serve() as served:
        answers = await asyncio.gather(
            *(served.chat("Hi", stream=stream, **fields) for _ in range(2)),
            *(served.complete(prompt="a", stream=stream, n=2, **fields) for _ in range(2)),
        )
    for answer, expected in zip(answers, [chat_id] * 2 + [id] * 2, strict=True):
        said = event_data(answer.text)[:-1] if stream else [answer.json()]
        assert {each["id"] for each in said} == {expected}
        assert "mine" not in answer.headers["x-request-id"]


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"request_id": ""}, "request_id"), ({"request_id": 5}, "request_id"),
        ({"rid": "x" * 257}, "rid"), ({"rid": ["a"]}, "rid"),
        ({"rid": "a", "request_id": "b"}, "rid"), ({"truncation_side": "right"}, "truncation_side"),
        ({"return_prompt_text": 1}, "return_prompt_text"),
        ({"logprobs": True, "top_logprobs": 3, "logprob_token_ids": [1, 2]}, "top_logprobs"),
        ({"input_ids": [72], "chat_template_kwargs": {"a": 1}}, "chat_template_kwargs"),
        ({"input_ids": [72], "add_generation_prompt": False}, "add_generation_prompt"),
        ({"input_ids": [72], "continue_final_message": True}, "continue_final_message"),
        ({"spaces_between_special_tokens": "no"}, "spaces_between_special_tokens"),
        ({"data_parallel_rank": 1}, "data_parallel_rank"),
        ({"routed_dp_rank": 2}, "routed_dp_rank"),
        ({"stream": True, "return_prompt_token_ids": True}, "return_prompt_token_ids"),
        ({"return_weight_versions": True, "use_beam_search": True}, "return_weight_versions"),
        ({"stream": True, "return_meta_info": True}, "return_meta_info"),
    ],
)  # fmt: skip
async def test_what_is_wrong_is_named(serve: Serve, fields: dict[str, Any], param: str) -> None:
    async with serve() as served:
        response = await served.chat("Hi", **fields)
    assert response.status_code == 400 and response.json()["error"]["param"] == param


async def test_the_prompt_is_shown_as_the_template_wrote_it(serve: Serve) -> None:
    prompt = "<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n"
    async with serve() as served:
        client = openai.AsyncOpenAI(base_url="http://test/v1", api_key="x", http_client=served.http)
        given: dict[str, Any] = {"model": "tiny", "messages": [{"role": "user", "content": "Hi"}]}
        answer = await client.chat.completions.create(
            **given, n=2, extra_body={"return_prompt_text": True}
        )
        stream = await client.chat.completions.create(
            **given, n=2, stream=True, extra_body={"return_prompt_text": True}
        )
        chunks = [chunk.to_dict() async for chunk in stream]
        silent = await served.chat("Hi", return_prompt_text=False)
    assert answer.to_dict()["prompt_text"] == prompt
    assert [chunk.get("prompt_text") for chunk in chunks] == [prompt] + [None] * (len(chunks) - 1)
    assert "prompt_text" not in silent.json()


async def test_choices_tell_what_generate_tells(serve: Serve) -> None:
    fields = {"n": 2, "max_tokens": 3, "return_meta_info": True}
    async with serve() as served:
        scored = (await served.chat(**fields, logprobs=True, top_logprobs=2, rid="mine")).json()
        plain = (await served.chat(**fields)).json()
    for choice in scored["choices"]:
        meta, logprobs = choice["meta_info"], choice["logprobs"]["content"]
        assert meta["id"] == "mine" and meta["finish_reason"] == {"type": "length", "length": 3}
        assert meta["prompt_tokens"] == scored["usage"]["prompt_tokens"]
        assert meta["completion_tokens"] == 3
        told = [(entry["logprob"], entry["token"]) for entry in logprobs]
        assert [(logprob, text) for logprob, _, text in meta["output_token_logprobs"]] == told
        assert [len(each) for each in meta["output_top_logprobs"]] == [2, 2, 2]
    assert all("output_token_logprobs" not in each["meta_info"] for each in plain["choices"])


async def test_ids_are_told_at_the_end(serve: Serve) -> None:
    asked = {"n": 2, "max_tokens": 3, "return_input_ids_in_sglext": True}
    async with serve() as served:
        whole = (
            await served.chat(**asked, return_output_ids_in_sglext=True, return_token_ids=True)
        ).json()
        stream = await served.chat(**asked, return_output_ids_in_sglext=True, stream=True)
        few = (await served.chat(**asked)).json()["sglext"]
    [told] = [each["sglext"] for each in event_data(stream.text)[:-1] if "sglext" in each]
    assert told == whole["sglext"]
    assert told["input_ids"] == whole["prompt_token_ids"] == few["input_ids"]
    assert told["output_ids"] == [each["token_ids"] for each in whole["choices"]]
    assert list(few) == ["input_ids"]


async def test_special_tokens_may_stand_close(serve: Serve) -> None:
    """This tokenizer puts no spaces anywhere, so that nothing changes."""
    async with serve() as served:
        for spaces in (False, True):
            answer = await served.complete(
                prompt=[256, 256, 97], max_tokens=3, skip_special_tokens=False,
                spaces_between_special_tokens=spaces,
            )  # fmt: skip
            text = answer.json()["choices"][0]["text"]
            assert text.startswith("<|im_start|><|im_start|>")


@pytest.mark.parametrize("stream", [False, True])
async def test_logprobs_of_named_tokens(serve: Serve, stream: bool) -> None:
    """The core says that token i has log-probability -i, but for the one it chose."""
    named = {"logprob_token_ids": [7, 98, 3], "stream": stream, "max_tokens": 2, "n": 2}
    named["return_tokens_as_token_ids"] = True  # some are halves of characters, all shown as one
    async with serve() as served:
        completion = await served.complete(prompt=[98, 99], logprobs=3, **named)
        chat = await served.chat("Hi", logprobs=True, **named)
    said = event_data(completion.text)[:-1] if stream else [completion.json()]
    mine = [c["logprobs"] for each in said for c in each["choices"] if c["index"] == 1]
    tops = [top for each in mine for top in each["top_logprobs"]]
    chosen = pytest.approx(-0.693, abs=1e-3)
    others = {"token_id:7": -7.0, "token_id:3": -3.0}
    assert tops == [
        {"token_id:98": chosen, **others},
        {"token_id:99": chosen, "token_id:98": -98.0, **others},
    ]
    said = event_data(chat.text)[:-1] if stream else [chat.json()]
    entries = [
        entry
        for each in said
        for choice in each["choices"]
        if choice["index"] == 1 and choice["logprobs"]
        for entry in choice["logprobs"]["content"]
    ]
    for entry in entries:
        shown = [(top["token"], top["logprob"]) for top in entry["top_logprobs"]]
        assert shown == [("token_id:7", -7.0), ("token_id:98", -98.0), ("token_id:3", -3.0)]
    assert len(entries) == 2


async def test_an_echoed_prompt_shows_its_likeliest_beside_named_tokens(serve: Serve) -> None:
    asked = {"prompt": [98, 99], "max_tokens": 1, "echo": True, "logprobs": 2}
    asked["return_tokens_as_token_ids"] = True
    async with serve() as served:
        plain, named = [
            (await served.complete(**asked, **more)).json()["choices"][0]["logprobs"]
            for more in ({}, {"logprob_token_ids": [7]})
        ]
    assert [*map(list, plain["top_logprobs"][1:])] == [
        ["token_id:99", "token_id:100"], ["token_id:98", "token_id:99"],
    ]  # fmt: skip
    assert named["top_logprobs"][:2] == plain["top_logprobs"][:2]
    assert [*named["top_logprobs"][2]] == ["token_id:98", "token_id:7"]


async def test_named_tokens_need_logprobs(serve: Serve) -> None:
    async with serve() as served:
        for response in (
            await served.complete(prompt="a", logprob_token_ids=[1]),
            await served.chat("a", logprob_token_ids=[1]),
            await served.chat("a", logprobs=True, logprob_token_ids=[1, 1]),
            await served.chat("a", logprobs=True, logprob_token_ids=[300]),
            await served.chat("a", logprobs=True, logprob_token_ids=[1] * 200),
        ):
            assert response.status_code == 400
            assert response.json()["error"]["param"] == "logprob_token_ids"


async def test_completions_show_their_prompts_too(serve: Serve) -> None:
    asked = {"prompt": ["ab", "c"], "n": 2, "max_tokens": 2, "return_prompt_text": True}
    async with serve() as served:
        whole = (await served.complete(**asked)).json()["choices"]
        stream = event_data((await served.complete(**asked, stream=True)).text)[:-1]
        ids = (await served.complete(**{**asked, "prompt": [5]})).json()["choices"]
        text = (await served.post("/detokenize", tokens=[5])).json()["text"]
    assert [each["prompt_text"] for each in whole] == ["ab", "ab", "c", "c"]
    shown = {c["index"]: c["prompt_text"] for s in stream for c in s["choices"]
             if "prompt_text" in c}  # fmt: skip
    assert shown == {0: "ab", 1: "ab", 2: "c", 3: "c"}
    assert ids[0]["prompt_text"] == text


async def test_a_conversation_may_come_as_ids(serve: Serve) -> None:
    """With messages beside them, as SGLang's clients have to send some."""
    async with serve() as served:
        [ids] = await tokens_of(served, "Hi")
        plain = await served.chat("Hi", max_tokens=3, return_prompt_text=True)
        both = await served.chat("Hi", input_ids=ids, max_tokens=3, return_prompt_text=True)
        alone = await served.post(
            "/v1/chat/completions", input_ids=ids, max_tokens=3, return_prompt_text=True
        )
        first, *others = served.core.added
    assert all(each.prompt_token_ids == first.prompt_token_ids == ids for each in others)
    for answer in (both, alone):
        assert answer.json()["choices"] == plain.json()["choices"]
        assert answer.json()["prompt_text"] == plain.json()["prompt_text"]


async def tokens_of(served: Served, content: str) -> list[list[int]]:
    messages = [{"role": "user", "content": content}]
    return [(await served.post("/tokenize", messages=messages)).json()["tokens"]]


async def test_an_extra_key_parts_the_cache_as_a_salt_does(serve: Serve) -> None:
    asked: list[dict[str, str]] = [
        {}, {"extra_key": "k"}, {"cache_salt": "s"}, {"cache_salt": "s", "extra_key": "k"},
        {"cache_salt": "sk"}, {"cache_salt": "1:s", "extra_key": "k"},
    ]  # fmt: skip
    async with serve() as served:
        for fields in asked:
            for answer in (
                await served.chat("a", max_tokens=1, **fields),
                await served.complete(prompt="a", max_tokens=1, **fields),
                await served.post("/generate", text="a", **fields),
                await served.post("/v1/responses", input="a", max_output_tokens=1, **fields),
            ):
                assert answer.status_code == 200, answer.text
        salts = [request.cache_salt for request in served.core.added]
    assert salts[0] == "" and len(set(salts)) == len(asked) and salts[4] == "k"
    assert all(salts[i] == salts[i - i % 4] for i in range(len(salts)))


@pytest.mark.parametrize("stream", [False, True])
async def test_what_stopped_a_text_is_said_as_both_peers_do(serve: Serve, stream: bool) -> None:
    """The end of text is no reason of vLLM's, and SGLang's is its token."""
    async with serve() as served:
        ended = await served.chat("Hi", stream=stream)
        string = await served.complete(prompt="abc", stop="c", stream=stream)
        cut = await served.complete(prompt="abc", max_tokens=2, stream=stream)
        native = await served.post("/generate", input_ids=[97, 257], stream=stream)
    answers = (ended, string, cut)
    last = [_last(each.text) if stream else each.json() for each in answers]
    choices = [each["choices"][0] for each in last]
    found = [(each["stop_reason"], each["matched_stop"]) for each in choices]
    assert found == [(None, 257), ("c", "c"), (None, None)]
    info = (_last(native.text) if stream else native.json())["meta_info"]
    assert info["finish_reason"] == {"type": "stop", "matched": 257}


def _last(text: str) -> Any:
    return event_data(text)[-2]


async def test_the_fingerprint_is_the_settings(serve: Serve) -> None:
    found = []
    for config in (EngineConfig(), EngineConfig(), EngineConfig(kv_cache_dtype="fp8")):
        async with serve(config=config) as served:
            answers = [await served.chat("Hi"), await served.complete(prompt="a")]
            asks = (served.chat("Hi", stream=True), served.complete(prompt="a", stream=True))
            streams = [await each for each in asks]
        said = [each.json() for each in answers]
        said += [chunk for each in streams for chunk in event_data(each.text)[:-1]]
        [mark] = {each["system_fingerprint"] for each in said}
        assert mark.startswith("fp_")
        found.append(mark)
    assert found[0] == found[1] != found[2]


@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/completions"])
async def test_where_cached_tokens_were_is_told(serve: Serve, path: str) -> None:
    body: dict[str, Any] = {"max_tokens": 2, "n": 2, "return_cached_tokens_details": True}
    prompt = {"messages": [{"role": "user", "content": "Hi"}]} if "chat" in path else {}
    body |= prompt or {"prompt": "abcdef"}
    async with serve() as served:
        served.core.said_first = {"num_cached_tokens": 5, "num_external_tokens": 3}
        whole = (await served.post(path, **body)).json()
        usage = {"stream_options": {"include_usage": True}}
        streamed = event_data((await served.post(path, **body, **usage, stream=True)).text)
        del body["return_cached_tokens_details"]
        unasked = await served.post(path, **body)
    found = {"cached_tokens_details": {"device": 2, "host": 3}}
    assert whole["sglext"] == found and "sglext" not in unasked.text
    assert streamed[-3]["sglext"] == found and streamed[-3]["choices"] == []
    assert streamed[-2]["usage"] == whole["usage"]
    assert not any("sglext" in each for each in streamed[:-3])


@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/completions"])
async def test_whose_weights_wrote_an_answer_is_told(serve: Serve, path: str) -> None:
    body: dict[str, Any] = {"max_tokens": 3, "n": 2, "return_weight_versions": True}
    prompt = {"messages": [{"role": "user", "content": "Hi"}]} if "chat" in path else {}
    body |= {"data_parallel_rank": 0} | (prompt or {"prompt": "abcdef"})
    async with serve() as served:
        whole = (await served.post(path, **body)).json()
        *events, _ = event_data((await served.post(path, **body, stream=True)).text)
    told = [{"start": 0, "end": 3, "version": "default"}]
    assert [each["weight_versions"] for each in whole["choices"]] == [told] * 2
    choices = [choice for event in events for choice in event["choices"]]
    for choice in choices:
        ended = choice.get("finish_reason") is not None
        assert choice.get("weight_versions") == (told if ended else None)
    assert sum(choice.get("finish_reason") is not None for choice in choices) == 2


async def test_each_choice_may_show_its_prompt(serve: Serve) -> None:
    async with serve() as served:
        shown = (await served.chat("Hi", max_tokens=1, return_prompt_token_ids=True)).json()
        [added] = served.core.added
    assert shown["choices"][0]["prompt_token_ids"] == added.prompt_token_ids
    assert "prompt_token_ids" not in shown
