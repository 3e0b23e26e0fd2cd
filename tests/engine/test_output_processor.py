"""From requests to engine messages, and from the engine's reports to outputs."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.errors import RequestError
from engine.messages import AddRequest, EngineStats, RequestDelta, StepReport, TokenLogprobs
from engine.output_processor import OutputProcessor
from engine.outputs import OutputDelta, RequestOutput
from engine.sampling.params import MAX_BAD_WORD_TOKENS, SamplingParams
from tests.engine.tokenizers_small import byte_level_backend, load, save, sentencepiece_backend

untimed = settings(deadline=None, derandomize=True)
EOS = 1


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory):
    return load(save(byte_level_backend(), tmp_path_factory.mktemp("byte_level")))


@pytest.fixture
def processor(tokenizer):
    return OutputProcessor(tokenizer)


def _report(*deltas: RequestDelta) -> StepReport:
    return StepReport(deltas=list(deltas), stats=EngineStats())


def _delta(added: AddRequest, ids, **fields) -> RequestDelta:
    return RequestDelta(request_id=added.request_id, new_token_ids=list(ids), **fields)


def _run(tokenizer, ids, finish="length", chunk=1, prompt=(), **params):
    """The whole output of one request to which the engine gives `ids`, `chunk` a step."""
    processor = OutputProcessor(tokenizer)
    [added] = processor.add("r", list(prompt), SamplingParams(max_tokens=None, **params))
    whole = RequestOutput.begin("r", None, list(prompt), 1)
    aborts = []
    for start in range(0, max(1, len(ids)), chunk):
        last = start + chunk >= len(ids)
        stop = ids[-1] if last and finish == "stop" and ids[-1] != EOS else None
        delta = _delta(
            added, ids[start : start + chunk], finish_reason=finish if last else None,
            stop_token_id=stop,
        )  # fmt: skip
        step = processor.process(_report(delta))
        aborts += step.aborts
        for output in step.outputs:
            whole.accumulate(output)
    assert whole.finished and processor.num_unfinished == 0
    return whole.outputs[0], aborts


def test_children_have_ids_of_their_own_and_seeds_that_follow(processor):
    params = SamplingParams(n=3, seed=7, stop="x", bad_words=["y"], prompt_logprobs=1)
    first = processor.add("a", [5], params, priority=2)
    second = processor.add("b", [5], params)
    ids = [message.request_id for message in first + second]
    assert len(set(ids)) == 6
    assert [message.params.seed for message in first] == [7, 8, 9]
    assert all(message.params.n == 1 and message.params.stop is None for message in first)
    assert [message.params.prompt_logprobs for message in first] == [1, None, None]
    assert first[0].priority == 2 and first[0].bad_word_ids and first[0].prompt_token_ids == [5]


def test_the_scores_of_a_prompt_are_told_once_for_all_its_samples(processor):
    added = processor.add("a", [5, 6, 7], SamplingParams(n=3, prompt_logprobs=0))
    scores = [TokenLogprobs([token], [-1.0], 1) for token in (6, 7)]
    deltas = [
        _delta(added[0], [], prompt_logprobs=scores[:1]),
        _delta(added[1], [70]),
        _delta(added[0], [70], prompt_logprobs=scores[1:]),
        _delta(added[2], [70]),
    ]
    whole = RequestOutput.begin("a", None, [5, 6, 7], 3)
    for output in processor.process(_report(*deltas)).outputs:
        whole.accumulate(output)
    assert [position and list(position) for position in whole.prompt_logprobs] == [None, [6], [7]]


def test_seeds_wrap_at_the_end_of_their_range(processor):
    added = processor.add("a", [5], SamplingParams(n=2, seed=2**64 - 1))
    assert [message.params.seed for message in added] == [2**64 - 1, -(2**63)]


def test_a_request_id_cannot_be_used_twice_at_once(processor):
    [added] = processor.add("a", [5], SamplingParams())
    with pytest.raises(RequestError, match="in use"):
        processor.add("a", [5], SamplingParams())
    processor.process(_report(_delta(added, [EOS], finish_reason="stop")))
    processor.add("a", [5], SamplingParams())


def test_bad_words_are_watched_for_with_and_without_a_space(processor, tokenizer):
    [added] = processor.add("a", [5], SamplingParams(bad_words=["or", " w"]))
    bare, spaced = tokenizer.encode("w", False), tokenizer.encode(" w", False)
    assert tokenizer.encode("or", False) in added.bad_word_ids
    assert added.bad_word_ids[-2:] == [bare, spaced]


def test_long_bad_words_are_refused(processor):
    with pytest.raises(RequestError, match=str(MAX_BAD_WORD_TOKENS)) as caught:
        processor.add("a", [5], SamplingParams(bad_words=["x" * 9]))
    assert caught.value.param == "bad_words"
    processor.add("a", [5], SamplingParams())  # nothing of the refused one is left


@pytest.mark.parametrize("option", [{"stop": "x"}, {"bad_words": ["x"]}])
def test_options_of_text_need_a_tokenizer(option):
    with pytest.raises(RequestError) as caught:
        OutputProcessor(None).add("a", [5], SamplingParams(**option))
    assert caught.value.param == next(iter(option))


def test_stop_strings_need_text(processor):
    with pytest.raises(RequestError, match="detokenize"):
        processor.add("a", [5], SamplingParams(stop="x", detokenize=False))


@pytest.mark.parametrize("params", [{"detokenize": False}, {}])
def test_ids_are_enough(tokenizer, params):
    output, aborts = _run(tokenizer if params else None, [70, 71, EOS], "stop", **params)
    assert (output.text, output.token_ids) == ("", [70, 71, EOS])
    assert (output.finish_reason, output.stop_reason, aborts) == ("stop", None, [])


@pytest.mark.parametrize("skip", [True, False])
def test_eos_is_among_the_ids_but_not_in_the_text(tokenizer, skip):
    ids = [*tokenizer.encode("Hello"), EOS]
    output, _ = _run(tokenizer, ids, "stop", skip_special_tokens=skip)
    assert (output.text, output.token_ids, output.stop_reason) == ("Hello", ids, None)


def test_what_stopped_it_is_in_the_text_when_asked_for(tokenizer):
    ids = tokenizer.encode("Hello!")
    options = {"stop_token_ids": [ids[-1]]}
    output, _ = _run(tokenizer, ids, "stop", **options)
    assert (output.text, output.stop_reason) == ("Hello", ids[-1])
    output, _ = _run(tokenizer, ids, "stop", include_stop_str_in_output=True, **options)
    assert output.text == "Hello!"
    output, _ = _run(
        tokenizer, [*ids, EOS], "stop", include_stop_str_in_output=True, skip_special_tokens=False
    )
    assert output.text == "Hello!</s>"


@pytest.mark.parametrize("chunk", [1, 3, 100])
@pytest.mark.parametrize("include", [True, False])
def test_a_stop_string_ends_the_text_and_the_sequence(tokenizer, chunk, include):
    ids = tokenizer.encode("one STOP two")
    output, aborts = _run(
        tokenizer, ids, chunk=chunk, stop=["STOP"], include_stop_str_in_output=include
    )
    assert output.text == ("one STOP" if include else "one ")
    assert (output.finish_reason, output.stop_reason) == ("stop", "STOP")
    assert output.token_ids == tokenizer.encode("one STOP")
    assert len(aborts) == (chunk < len(ids))  # one that ended by itself needs no abort


def test_text_held_back_for_a_stop_string_comes_at_the_end(tokenizer):
    output, aborts = _run(tokenizer, tokenizer.encode("one STO"), stop=["STOP"])
    assert (output.text, output.finish_reason, aborts) == ("one STO", "length", [])


def test_an_unfinished_character_is_marked_at_the_end(tokenizer):
    output, _ = _run(tokenizer, tokenizer.encode("a😀")[:-1])
    assert output.text == "a\ufffd"


def test_stop_strings_do_not_count_before_min_tokens(tokenizer):
    ids = tokenizer.encode("xaxbxc")
    output, _ = _run(tokenizer, ids, stop=["x"], min_tokens=3)
    assert (output.text, len(output.token_ids)) == ("xaxb", 5)


def test_a_word_after_the_prompt_keeps_its_space(tmp_path):
    tokenizer = load(save(sentencepiece_backend(), tmp_path))
    word = tokenizer.token_id("▁w")
    assert _run(tokenizer, [word], prompt=tokenizer.encode("say"))[0].text == " w"
    assert _run(tokenizer, [word], prompt=[0])[0].text == "w"


def test_later_deltas_of_an_ended_sequence_are_ignored(processor, tokenizer):
    added, other = processor.add("a", [5], SamplingParams(n=2, stop="l"))
    ids = tokenizer.encode("Hello")
    step = processor.process(_report(_delta(added, ids), _delta(other, ids[:1])))
    assert step.aborts == [added.request_id]
    assert [output.index for output in step.outputs] == [0, 1]
    step = processor.process(_report(_delta(added, ids), RequestDelta(request_id=999)))
    assert (step.outputs, step.aborts) == ([], [])


def test_an_aborted_request_is_forgotten_and_only_it(processor):
    mine = processor.add("request-1", [5], SamplingParams(n=2))
    processor.add("request-10", [5], SamplingParams())
    assert processor.abort("request") == []
    assert processor.abort("request-1") == [message.request_id for message in mine]
    assert processor.abort("request-1") == []
    assert processor.num_unfinished == 1
    assert processor.process(_report(_delta(mine[0], [70]))).outputs == []


def test_logprobs_are_keyed_by_token_the_chosen_first(processor, tokenizer):
    [added] = processor.add("a", [5, 6], SamplingParams(logprobs=2, prompt_logprobs=0))
    a, b, half = (tokenizer.token_id(letter) for letter in ("a", "b", "ð"))
    entry = TokenLogprobs([b, a, b], [-2.0, -0.5, -2.0], 2)
    prompt = TokenLogprobs([half], [-1.0], 1)
    delta = _delta(added, [b], logprobs=[entry], prompt_logprobs=[prompt], num_cached_tokens=1)
    [output] = processor.process(_report(delta)).outputs
    [position] = output.logprobs
    assert [(i, p.logprob, p.rank) for i, p in position.items()] == [(b, -2.0, 2), (a, -0.5, 1)]
    assert [p.decoded_token for p in position.values()] == ["b", "a"]
    first, second = output.prompt_logprobs
    assert first is None and second[half].token_bytes == b"\xf0"
    more = processor.process(_report(_delta(added, [], prompt_logprobs=[prompt]))).outputs[0]
    assert len(more.prompt_logprobs) == 1
    whole = RequestOutput.begin("a", None, [5, 6], 1)
    whole.accumulate(output)
    whole.accumulate(more)
    assert whole.outputs[0].cumulative_logprob == -2.0
    assert len(whole.prompt_logprobs) == 3 and whole.num_cached_tokens == 1


def test_logprobs_end_where_the_stop_string_ends(processor, tokenizer):
    [added] = processor.add("a", [5], SamplingParams(logprobs=0, stop="l"))
    ids = tokenizer.encode("Hello")
    entries = [TokenLogprobs([token], [-1.0], 1) for token in ids]
    [output] = processor.process(_report(_delta(added, ids, logprobs=entries))).outputs
    assert len(output.logprobs) == len(output.token_ids) < len(ids)


def test_an_error_of_the_engine_reaches_the_caller(processor):
    [added] = processor.add("a", [5], SamplingParams())
    failed = _delta(added, [], finish_reason="error", error="Too long.", error_param="prompt")
    [output] = processor.process(_report(failed)).outputs
    assert (output.finish_reason, output.error, output.error_param) == (
        "error", "Too long.", "prompt",
    )  # fmt: skip
    assert processor.num_unfinished == 0


@untimed
@given(
    text=st.text("abé😀 ", max_size=25), stop=st.text("abé😀 ", max_size=3), chunk=st.integers(1, 4)
)
def test_any_text_is_cut_at_its_stop_string(tokenizer, text, stop, chunk):
    output, _ = _run(tokenizer, tokenizer.encode(text), chunk=chunk, stop=[stop] if stop else None)
    before, found, _ = text.partition(stop) if stop else (text, "", "")
    assert output.text == before
    assert output.stop_reason == (found or None)


def test_outputs_show_a_short_preview():
    whole = RequestOutput.begin("req-1", "p" * 200, [1, 2], 2)
    whole.accumulate(
        OutputDelta(request_id="req-1", index=1, text="a\nb", token_ids=[3], finish_reason="stop")
    )
    shown = repr(whole)
    assert len(shown) < 300 and "2 tokens" in shown
    assert "1: 'a\\nb', 1 tokens, stop" in shown and "0: '', 0 tokens, running" in shown
    assert not whole.finished
