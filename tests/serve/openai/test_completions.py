"""/v1/completions over a scripted core that repeats the prompt."""

import pytest

from engine.config import EngineConfig
from engine.outputs import Logprob, OutputDelta
from serve.generation.best_of import likeliest
from tests.serve.served import Serve, event_data

pytestmark = pytest.mark.anyio


async def test_a_text_prompt_is_continued(serve: Serve) -> None:
    async with serve() as served:
        response = await served.complete(model="tiny", prompt="abc", max_tokens=5)
    body = response.json()
    assert response.status_code == 200
    assert body["object"] == "text_completion" and body["model"] == "tiny"
    assert body["id"] == f"cmpl-{response.headers['x-request-id']}"
    assert body["choices"] == [
        {
            "index": 0,
            "text": "abcab",
            "logprobs": None,
            "finish_reason": "length",
            "stop_reason": None,
            "matched_stop": None,
        }
    ]
    assert body["usage"] == {"prompt_tokens": 3, "completion_tokens": 5, "total_tokens": 8}


async def test_sixteen_tokens_are_the_default_and_the_context_their_bound(serve: Serve) -> None:
    async with serve(config=EngineConfig(max_model_len=10)) as served:
        short = await served.complete(prompt="ab")
        usage = short.json()["usage"]
    assert usage["completion_tokens"] == 8


@pytest.mark.parametrize(
    ("prompt", "texts"),
    [
        (["ab", "xyz"], ["abab", "xyzx"]),
        ([64, 65], ["abab"]),
        ([[64, 65], [66]], ["abab", "cccc"]),
    ],
)
async def test_prompts_in_all_their_forms(serve: Serve, prompt: object, texts: list[str]) -> None:
    async with serve() as served:
        body = (await served.complete(prompt=prompt, max_tokens=4)).json()
        ids = served.core.added[0].prompt_token_ids
        if prompt == [64, 65]:
            assert ids == [64, 65]
    shown = [choice["text"] for choice in body["choices"]]
    assert [len(text) for text in shown] == [4] * len(texts)
    if isinstance(prompt[0], str):  # type: ignore[index]
        assert shown == texts


async def test_choices_of_n_samples_of_each_prompt_are_in_order(serve: Serve) -> None:
    async with serve() as served:
        body = (await served.complete(prompt=["a", "b"], n=3, max_tokens=1)).json()
    assert [(each["index"], each["text"]) for each in body["choices"]] == [
        (0, "a"), (1, "a"), (2, "a"), (3, "b"), (4, "b"), (5, "b"),
    ]  # fmt: skip
    assert body["usage"]["prompt_tokens"] == 2 and body["usage"]["completion_tokens"] == 6


async def test_a_stop_string_ends_the_text_and_frees_the_row(serve: Serve) -> None:
    async with serve() as served:
        body = (await served.complete(prompt="abcd", stop=["zz", "da"], max_tokens=100)).json()
        core = served.core
        await served.complete(prompt="x", max_tokens=1)
        assert len(core.aborted) == 1 and not core.has_work
    [choice] = body["choices"]
    assert choice["text"] == "abc"
    assert choice["finish_reason"] == "stop" and choice["stop_reason"] == "da"


async def test_logprobs_are_parallel_lists(serve: Serve) -> None:
    async with serve() as served:
        body = (await served.complete(prompt="ab", max_tokens=3, logprobs=2)).json()
    logprobs = body["choices"][0]["logprobs"]
    assert logprobs["tokens"] == ["a", "b", "a"]
    assert logprobs["text_offset"] == [0, 1, 2]
    assert logprobs["token_logprobs"] == pytest.approx([-0.6931, -0.6931, -0.6931], abs=1e-3)
    assert logprobs["top_logprobs"][0] == pytest.approx({"a": -0.6931, "b": -1.386}, abs=1e-3)


async def test_echo_scores_the_prompt_without_generating(serve: Serve) -> None:
    async with serve() as served:
        body = (await served.complete(prompt="abc", max_tokens=0, echo=True, logprobs=1)).json()
    [choice] = body["choices"]
    assert choice["text"] == "abc" and choice["finish_reason"] == "length"
    assert choice["logprobs"]["tokens"] == ["a", "b", "c"]
    assert choice["logprobs"]["token_logprobs"][0] is None
    assert choice["logprobs"]["top_logprobs"][0] is None
    assert choice["logprobs"]["text_offset"] == [0, 1, 2]
    assert body["usage"]["completion_tokens"] == 0


async def test_echo_with_generation(serve: Serve) -> None:
    async with serve() as served:
        body = (await served.complete(prompt="abc", max_tokens=2, echo=True, logprobs=0)).json()
        one = (await served.complete(prompt="a", max_tokens=1, echo=True, logprobs=0)).json()
    assert body["choices"][0]["text"] == "abcab"
    assert body["choices"][0]["logprobs"]["tokens"] == ["a", "b", "c", "a", "b"]
    assert one["choices"][0]["logprobs"]["token_logprobs"][0] is None
    assert one["choices"][0]["logprobs"]["tokens"] == ["a", "a"]


async def test_prompt_logprobs_and_ids_are_returned_when_asked_for(serve: Serve) -> None:
    async with serve() as served:
        body = (
            await served.complete(
                prompt="ab",
                max_tokens=2,
                prompt_logprobs=1,
                logprobs=0,
                return_token_ids=True,
                return_tokens_as_token_ids=True,
            )
        ).json()
        alone = (await served.complete(prompt="a", max_tokens=1, prompt_logprobs=0)).json()
    assert alone["choices"][0]["prompt_logprobs"] == [None]
    [choice] = body["choices"]
    a, b = choice["prompt_token_ids"]
    assert choice["token_ids"] == [a, b]
    assert choice["prompt_logprobs"][0] is None
    assert choice["prompt_logprobs"][1][str(b)]["decoded_token"] == "b"
    assert choice["logprobs"]["tokens"] == [f"token_id:{a}", f"token_id:{b}"]


async def test_the_tail_of_a_prompt_is_kept(serve: Serve) -> None:
    async with serve(config=EngineConfig(max_model_len=8)) as served:
        last = (
            await served.complete(
                prompt="abcdef", truncate_prompt_tokens=2, max_tokens=4, echo=True
            )
        ).json()
        fitting = (
            await served.complete(prompt="abcdefghij" * 9, truncate_prompt_tokens=-1, max_tokens=3)
        ).json()
    assert last["choices"][0]["text"] == "efefef"
    assert fitting["usage"]["prompt_tokens"] == 5


async def test_the_models_sampling_defaults_apply_where_the_request_is_silent(serve: Serve) -> None:
    async with serve() as served:
        await served.complete(prompt="a", max_tokens=1, top_p=0.3, temperature=None)
        params = served.core.added[0].params
    assert (params.temperature, params.top_p) == (0.5, 0.3)


async def test_every_sampling_option_reaches_the_engine(serve: Serve) -> None:
    options = {
        "temperature": 0.7, "top_p": 0.8, "top_k": 7, "min_p": 0.1, "presence_penalty": 0.2,
        "frequency_penalty": -0.3, "repetition_penalty": 1.1, "seed": 5, "stop_token_ids": [9],
        "ignore_eos": True, "min_tokens": 1, "logit_bias": {"5": 1.5}, "allowed_token_ids": [64],
        "skip_special_tokens": False,
    }  # fmt: skip
    async with serve() as served:
        response = await served.complete(prompt="a", max_tokens=2, bad_words=["zz"], **options)
        [request] = served.core.added
    assert response.status_code == 200
    assert request.params.logit_bias == {5: 1.5}
    del options["logit_bias"]
    assert {name: getattr(request.params, name) for name in options} == options
    assert request.bad_word_ids


async def test_a_stream_ends_with_done_and_adds_up(serve: Serve) -> None:
    async with serve() as served:
        response = await served.complete(
            prompt=["ab", "c"],
            max_tokens=3,
            stream=True,
            stream_options={"include_usage": True, "continuous_usage_stats": True},
        )
    assert response.headers["content-type"] == "text/event-stream; charset=utf-8"
    *chunks, usage, done = event_data(response.text)
    assert done == "[DONE]"
    texts = {0: "", 1: ""}
    for chunk in chunks:
        [choice] = chunk["choices"]
        texts[choice["index"]] += choice["text"]
        assert chunk["usage"]["prompt_tokens"] == {0: 2, 1: 1}[choice["index"]]
    assert texts == {0: "aba", 1: "ccc"}
    assert usage["choices"] == []
    assert usage["usage"] == {"prompt_tokens": 3, "completion_tokens": 6, "total_tokens": 9}
    finals = [chunk["choices"][0] for chunk in chunks if chunk["choices"][0]["finish_reason"]]
    assert [each["finish_reason"] for each in finals] == ["length", "length"]


async def test_a_stream_leaves_out_what_was_not_asked_for(serve: Serve) -> None:
    async with serve() as served:
        response = await served.complete(prompt="ab", max_tokens=2, stream=True)
    first, last, done = event_data(response.text)
    always = {"id", "object", "created", "model", "choices", "system_fingerprint"}
    assert set(first) == always
    assert set(first["choices"][0]) == {"index", "text", "logprobs", "finish_reason"}
    assert last["choices"][0]["stop_reason"] is None and done == "[DONE]"


async def test_a_streamed_echo_comes_first(serve: Serve) -> None:
    async with serve() as served:
        response = await served.complete(
            prompt="ab", max_tokens=2, stream=True, echo=True, logprobs=0
        )
    *chunks, _ = event_data(response.text)
    assert chunks[0]["choices"][0]["text"] == "aba"
    assert chunks[0]["choices"][0]["logprobs"]["tokens"] == ["a", "b", "a"]
    assert chunks[1]["choices"][0]["logprobs"]["text_offset"] == [3]


async def test_of_many_that_are_drawn_few_are_answered(serve: Serve) -> None:
    asked: dict[str, Any] = {"prompt": ["ab", "c"], "max_tokens": 3, "best_of": 3}
    async with serve() as served:
        body = (await served.complete(**asked, n=2)).json()
        added = served.core.added
        assert [len(added), *{each.params.logprobs for each in added}] == [6, 0]
        same = (await served.complete(prompt="ab", max_tokens=3, best_of=2, n=2, stream=True)).text
        streamed = await served.complete(**asked, stream=True)
        few = await served.complete(prompt="a", n=3, best_of=2)
    assert [(c["index"], c["text"], c["logprobs"]) for c in body["choices"]] == [
        (0, "aba", None), (1, "aba", None), (2, "ccc", None), (3, "ccc", None),
    ]  # fmt: skip
    assert body["usage"] == {"prompt_tokens": 3, "completion_tokens": 18, "total_tokens": 21}
    assert "[DONE]" in same
    for answer in (streamed, few):
        assert answer.status_code == 400 and answer.json()["error"]["param"] == "best_of"


def test_the_best_have_the_highest_mean() -> None:
    means = {0: [-1.0], 1: [-0.5, -0.9], 2: [-0.9], 3: [-2.0], 4: [], 5: [-0.1]}
    deltas = {
        choice: OutputDelta(
            request_id="", index=choice, logprobs=[{7: Logprob(v), 8: Logprob(0.0)} for v in values]
        )
        for choice, values in means.items()
    }
    assert likeliest(deltas, 3, 1) == [1, 4]
    assert likeliest(deltas, 3, 2) == [1, 2, 4, 5]
    assert likeliest(deltas, 3, 3) == [0, 1, 2, 3, 4, 5]
