"""The engine under grammars: every output that ends satisfies its own, whatever else is asked."""

import json
import re
import sys
import threading

import jsonschema
import pytest

from engine import LLM, StructuredOutputsParams
from engine.errors import RequestError
from engine.grammar import worker_messages
from engine.grammar.background import ConstraintThreads
from engine.grammar.matcher import Constraint, compile_grammar, load_vocabulary
from engine.messages import AddRequest
from engine.sampling.params import SamplingParams
from tests.engine.conftest import Text, go_on_when_interrupted
from tests.engine.grammar.conftest import SETTINGS

PROMPT = [5, 6, 7]
PERSON = {
    "type": "object",
    "properties": {
        "name": {"type": "string", "maxLength": 8},
        "age": {"type": "integer", "minimum": 0, "maximum": 150},
        "tags": {"type": "array", "items": {"enum": ["red", "green"]}, "maxItems": 2},
    },
    "required": ["name", "age", "tags"],
    "additionalProperties": False,
}


def run(engine, requests) -> list[Text]:
    """Continue `PROMPT` for each (source, options), all at once."""
    texts = [Text() for _ in requests]
    for number, (source, options) in enumerate(requests):
        options = {"temperature": 1.0, "max_tokens": 150, **options}
        prompt = options.pop("prompt", PROMPT)
        params = SamplingParams(**options)
        engine.add(
            AddRequest(
                request_id=number, prompt_token_ids=prompt, params=params, grammar=source
            )
        )  # fmt: skip
    while engine.has_work:
        for delta in engine.step().deltas:
            texts[delta.request_id].add(delta)
    return texts


def decode(tokenizer, text: Text) -> str:
    return tokenizer.decode(text.ids)


def is_beginning(vocabulary, source: str, ids: list[int]) -> bool:
    matcher = compile_grammar(vocabulary, source)
    return matcher.try_consume_tokens(ids) == len(ids)


def test_outputs_of_many_schemas_are_valid(shared_data, engine, source, vocabulary, tokenizer):
    """Random weights at temperature 1; what did not end in time is the beginning of something."""
    schemas = [PERSON, {"anyOf": [PERSON, {"type": "null"}]}]
    for path in sorted(
        (shared_data / "conformance/json-schema-test-suite/draft2020-12").glob("*.json")
    ):
        schemas += [group["schema"] for group in json.loads(path.read_text())]
    sources = []
    for schema in schemas:
        try:
            made = source(json=json.dumps(schema))
            engine.check_grammar(made)
            sources.append((schema, made))
        except RequestError:
            pass
    options = [{"seed": seed, "max_tokens": 60} for seed in range(len(sources))]
    texts = run(engine, [(made, each) for (_, made), each in zip(sources, options, strict=True)])
    ended = 0
    for text, (schema, made) in zip(texts, sources, strict=True):
        if text.finish_reason == "stop":
            jsonschema.Draft202012Validator(schema).validate(json.loads(decode(tokenizer, text)))
            ended += 1
        else:
            assert text.finish_reason == "length"
            assert is_beginning(vocabulary, made, text.ids)
    assert len(sources) > 100 and ended > len(sources) / 2
    assert engine.stats.num_compiles_after_warmup == 0


def test_regexes_choices_and_grammars(engine, source, tokenizer):
    pattern = r"[a-c]{3}-[0-9]+x"
    ebnf = 'root ::= "<" root ">" | [a-z]{2}'
    requests = [(source(regex=pattern), {"seed": seed}) for seed in range(4)]
    requests += [(source(choice=["yes", "no", "maybe"]), {"seed": seed}) for seed in range(4)]
    requests += [(source(grammar=ebnf), {"seed": seed}) for seed in range(4)]
    said = [
        decode(tokenizer, text) for text in run(engine, requests) if text.finish_reason == "stop"
    ]
    assert len(said) > 8
    for text in said:
        assert re.fullmatch(rf"{pattern}|yes|no|maybe|(<*)[a-z]{{2}}(>*)", text), text


def test_the_same_alone_in_a_crowd_and_preempted(engine, source):
    person = source(json=PERSON)
    options = [{"seed": seed, "max_tokens": 60} for seed in range(5)]
    alone = [run(engine, [(person, each)])[0].ids for each in options]
    crowd = [(person, each) for each in options] + [("", {"max_tokens": 30})] * 3
    assert [text.ids for text in run(engine, crowd)][:5] == alone
    before = engine.stats.num_preemptions
    # the three run from the first step on, and their ends would take 48 pages of 32
    long = ("", {"max_tokens": 240, "ignore_eos": True})
    crowd = [long] * 3 + [(person, each) for each in options * 4]
    assert [text.ids for text in run(engine, crowd)][3:] == alone * 4
    assert engine.stats.num_preemptions > before


def test_forced_tokens_are_not_sampled(engine, source, tokenizer):
    """A whole text that is forced takes no step; keys take one for all their tokens."""
    steps = engine.stats.num_steps
    [text] = run(engine, [(source(choice=["only this"]), {})])
    assert engine.stats.num_steps == steps and decode(tokenizer, text) == "only this"
    assert text.finish_reason == "stop" and text.stop_token_id is None
    long = {name * 9: {"enum": [1, 2]} for name in "abcd"}
    schema = {
        "type": "object", "properties": long, "required": list(long), "additionalProperties": False,
    }  # fmt: skip
    [text] = run(engine, [(source(json=schema, disable_any_whitespace=True), {"seed": 3})])
    jsonschema.validate(json.loads(decode(tokenizer, text)), schema)
    assert engine.stats.num_steps - steps < len(text.ids) / 3
    [short] = run(engine, [(source(choice=["only this"]), {"max_tokens": 1})])
    assert (len(short.ids), short.finish_reason) == (1, "length")


def test_each_token_has_logprobs(engine, source, tokenizer):
    person = source(json=PERSON, disable_any_whitespace=True)
    [text] = run(engine, [(person, {"logprobs": 2, "seed": 1})])
    assert [entry.token_ids[0] for entry in text.logprobs] == text.ids
    jsonschema.validate(json.loads(decode(tokenizer, text)), PERSON)
    [text] = run(engine, [(source(choice=["yes"]), {"prompt_logprobs": 1})])
    assert decode(tokenizer, text) == "yes" and len(text.prompt_logprobs) == len(PROMPT) - 1


@pytest.mark.parametrize(
    "options",
    [
        {"min_tokens": 40},
        {"presence_penalty": 2.0, "repetition_penalty": 2.0, "frequency_penalty": 2.0},
        {"temperature": 0},
        {"top_k": 1, "top_p": 0.1, "min_p": 0.5},
        {"logit_bias": {token: -100.0 for token in range(0, 2048, 3)}},
        {"ignore_eos": True},
    ],
    ids=lambda options: next(iter(options)),
)
def test_the_grammar_goes_before_all_other_options(engine, source, tokenizer, options):
    person = source(json=PERSON)
    requests = [(person, {"seed": seed, "max_tokens": 200, **options}) for seed in range(3)]
    ended = [text for text in run(engine, requests) if text.finish_reason == "stop"]
    for text in ended:
        jsonschema.validate(json.loads(decode(tokenizer, text)), PERSON)
    assert ended


def test_ends(engine, source, tokenizer):
    """End of text, and the request's own stop tokens, only where the grammar may end."""
    many = source(regex="(ab)*")
    texts = run(engine, [(many, {"seed": seed, "ignore_eos": seed % 2 == 0}) for seed in range(6)])
    for text in texts:
        assert text.finish_reason == "stop" and text.ids[-1] in engine.info.eos_token_ids
        assert re.fullmatch("(ab)*", decode(tokenizer, text))
    stop = tokenizer.encode("Q", add_special_tokens=False)[0]
    biased = {"logit_bias": {stop: 100.0}, "stop_token_ids": [stop]}
    [text] = run(engine, [(source(regex="ab+"), biased)])
    assert text.stop_token_id == stop and decode(tokenizer, text) == "abQ"
    [text] = run(engine, [(many, {"min_tokens": 9, "max_tokens": 20, "seed": 4})])
    assert len(text.ids) >= 9


def test_a_prefix_that_is_known_is_found(engine, source):
    prompt = [9] * 40
    person = source(json=PERSON)
    options = {"prompt": prompt, "seed": 2, "max_tokens": 40}
    first, second = (run(engine, [(person, dict(options))])[0].ids for _ in range(2))
    assert first == second and engine.stats.prefix_cache_hits >= 32


def test_a_slow_grammar_keeps_nobody_waiting(engine, source, monkeypatch):
    free_to_go, advance = threading.Event(), Constraint.advance

    def slowly(self, token_id):
        free_to_go.wait(30)
        return advance(self, token_id)

    monkeypatch.setattr(Constraint, "advance", slowly)
    engine.add(
        AddRequest(
            request_id=0, prompt_token_ids=PROMPT, params=SamplingParams(max_tokens=20),
            grammar=source(regex="[a-z]{90}"),
        )
    )  # fmt: skip
    engine.add(
        AddRequest(request_id=1, prompt_token_ids=PROMPT, params=SamplingParams(max_tokens=60))
    )
    texts = [Text(), Text()]
    while texts[1].finish_reason is None:
        for delta in engine.step().deltas:
            texts[delta.request_id].add(delta)
    assert len(texts[1].ids) == 60 and texts[0].finish_reason is None
    free_to_go.set()
    while engine.has_work:
        for delta in engine.step().deltas:
            texts[delta.request_id].add(delta)
    assert texts[0].finish_reason == "length"


def test_a_grammar_that_fails_is_its_own_requests_failure(engine, source, monkeypatch):
    good = source(regex="[a-z]{5}")
    texts = run(engine, [("start: nothing", {}), (good, {}), ("", {"max_tokens": 5})])
    assert [text.finish_reason for text in texts] == ["error", "stop", "length"]

    def panic(self, token_id):
        raise BaseException("a panic")

    monkeypatch.setattr(Constraint, "advance", panic)
    texts = run(engine, [(good, {}), ("", {"max_tokens": 5})])
    assert [text.finish_reason for text in texts] == ["error", "length"]
    assert engine.stats.num_running == 0


def test_aborts(engine, source):
    person = source(json=PERSON)
    for number in range(3):
        params = SamplingParams(max_tokens=100)
        engine.add(
            AddRequest(
                request_id=number, prompt_token_ids=PROMPT, params=params, grammar=person
            )
        )  # fmt: skip
    engine.abort([0])  # while it is compiled
    seen = set()
    for _ in range(6):
        seen |= {delta.request_id for delta in engine.step().deltas}
    engine.abort([1, 2])
    while engine.has_work:
        assert engine.step().deltas == []
    assert 0 not in seen
    report = engine.step()
    assert report.stats.num_free_pages == report.stats.num_pages


def test_llm(monkeypatch):
    with LLM("demo", **SETTINGS) as llm:
        assert llm._grammars._worker is None  # it starts with the first grammar
        person = StructuredOutputsParams(json=PERSON)
        params = SamplingParams(n=3, max_tokens=200, seed=0, structured_outputs=person)
        [output] = llm.generate("Who?", params, use_tqdm=False)
        for each in output.outputs:
            assert each.finish_reason == "stop"
            jsonschema.validate(json.loads(each.text), PERSON)
        stop = SamplingParams(
            stop=["b"], temperature=0, structured_outputs={"choice": ["abc", "aby"]}
        )
        [output] = llm.generate("Who?", stop, use_tqdm=False)
        assert (output.outputs[0].text, output.outputs[0].stop_reason) == ("a", "b")
        for wrong in ({"regex": "("}, {"json": {"not": {}}}):
            with pytest.raises(RequestError, match="structured_outputs") as caught:
                llm.generate("Who?", SamplingParams(structured_outputs=wrong))
            assert caught.value.param == "structured_outputs"
        _check_that_it_outlives_its_compiler(llm, monkeypatch)
        worker = llm._grammars._worker._process
    assert worker.returncode is not None


def _check_that_it_outlives_its_compiler(llm, monkeypatch):
    """A grammar that kills it is refused, now and again, and the next one is compiled."""
    llm._grammars.close()
    code = "import os; from engine.grammar import worker; worker.check_grammar = lambda *_: "
    command = (sys.executable, "-P", "-c", f"{code}os.abort(); worker.main()")
    monkeypatch.setattr(worker_messages, "COMMAND", command)
    bad = SamplingParams(structured_outputs={"regex": "a+"})
    for _ in range(2):
        with pytest.raises(RequestError, match=r"structured_outputs.regex: it takes too much"):
            llm.generate("Who?", bad, use_tqdm=False)
        assert llm._grammars._worker is None
    monkeypatch.undo()
    good = SamplingParams(structured_outputs={"choice": ["yes"]})
    assert llm.generate("Who?", good, use_tqdm=False)[0].outputs[0].text == "yes"


def test_a_model_without_a_tokenizer_says_so(tiny_folder):
    threads = ConstraintThreads(lambda: load_vocabulary(tiny_folder, 97, [2]))
    with pytest.raises(RequestError, match="no tokenizer"):
        threads.check("start: /a/")
    threads.close()


@pytest.mark.usefixtures("built_at_once")  # so that the other still writes
def test_an_interrupt_loses_no_end(engine, source, monkeypatch):
    """A text that is forced whole ends between steps, and the next launch is interrupted."""
    settle, launch, ended = engine._constrained.settle, engine._runner.launch, []

    def recorded(seconds):
        deltas = settle(seconds)
        ended.extend(deltas)
        return deltas

    def interrupted(plan):
        if len(ended) == 1:
            ended.append(None)
            raise KeyboardInterrupt
        return launch(plan)

    monkeypatch.setattr(engine._constrained, "settle", recorded)
    monkeypatch.setattr(engine._runner, "launch", interrupted)
    go_on_when_interrupted(engine, monkeypatch)
    texts = run(
        engine, [("", {"max_tokens": 120, "ignore_eos": True}), (source(choice=["yes"]), {})]
    )
    assert len(ended) == 2
    assert [text.finish_reason for text in texts] == ["length", "stop"]
