"""What `ingot bench serve` is told, whom it asks, and how it reads what comes."""

import asyncio
import json
from itertools import cycle

import pytest
import typer

from engine.errors import ConfigError
from serve.bench import serving
from serve.bench.arrivals import Arrivals
from serve.bench.cli import app
from serve.bench.http_client import HttpError
from serve.bench.load import Load, put_load
from serve.bench.requests import Client, Outcome
from serve.bench.results import summarise
from serve.bench.samples import DatasetOptions, Sample, with_adapters
from serve.bench.serving import ServeOptions, ServeRun
from serve.bench.target import BenchError, reach


def told(monkeypatch, *flags):
    """What a command line means."""
    seen = []

    def run(options):
        seen.append(options)
        raise ConfigError("That is enough.")

    monkeypatch.setattr(serving, "run", run)
    with pytest.raises(ConfigError, match="enough"):
        typer.main.get_command(app)(["serve", *flags], standalone_mode=False)
    return seen[0]


def test_a_line_that_vllm_takes_is_understood(monkeypatch):
    found = told(
        monkeypatch, "--port", "8123", "--input-len", "7", "--output-len", "3", "--top-k", "5",
        "--min-p", "0.1", "--temperature", "0", "--repetition-penalty", "1.1", "--lora-modules",
        "a", "b", "--lora-assignment", "round-robin", "--goodput", "ttft:9", "tpot:8",
        "--metadata", "tp=1", "note=a=b", "--label", "mine", "--ready-check-timeout-sec", "30",
        "--extra-body", '{"min_p": 0.2, "seed": 1}', "--header", "X-A=1", "X-B=2",
    )  # fmt: skip
    assert found.base_url == "http://127.0.0.1:8123" and found.tokenizer is None
    assert (found.dataset.random_input_len, found.dataset.output_len) == (7, 3)
    assert found.extra_body == {
        "temperature": 0.0, "top_k": 5, "min_p": 0.2, "repetition_penalty": 1.1, "seed": 1,
    }  # fmt: skip
    assert (found.lora_modules, found.lora_assignment) == (["a", "b"], "round-robin")
    assert found.goodput == ["ttft:9", "tpot:8"] and found.label == "mine"
    assert found.metadata == {"tp": "1", "note": "a=b"} and found.ready_check_timeout == 30
    assert found.headers == {"x-a": "1", "x-b": "2"}
    assert told(monkeypatch, "--base-url", "https://a/b").base_url == "https://a/b"


@pytest.mark.parametrize("flags, message", [
    (["--metadata", "tp"], "--metadata takes NAME=VALUE, got 'tp'"),
    (["--lora-assignment", "fair"], "--lora-assignment is random or round-robin, not 'fair'"),
])  # fmt: skip
def test_what_is_no_setting_is_refused(flags, message):
    with pytest.raises(ConfigError, match=message):
        typer.main.get_command(app)(["serve", *flags], standalone_mode=False)


class Says:
    """A server that answers so, one after another; what is raised stays raised."""

    host, port = "10.0.0.1", 1  # whose processes nobody can see from here

    def __init__(self, *answers):
        self._answers, self.bodies = cycle(answers), []

    async def fetch(self, *_, **__):
        answer = next(self._answers)
        if isinstance(answer, Exception):
            raise answer
        return json.dumps(answer).encode()

    async def send(self, method, endpoint, body, headers):
        self.bodies.append(json.loads(body))
        for piece in next(self._answers):
            yield b"data: %s\n" % json.dumps(piece).encode()


LISTED = {"data": [{"id": "a", "root": "org/a"}, {"id": "b"}]}
REFUSED, LOADING = OSError(111, "refused"), HttpError("status 503: loading", 503)
NONE = HttpError("status 404: nothing", 404)


@pytest.mark.parametrize("name, patience, answers, found", [
    (None, 0, [LISTED], ("a", "org/a")), ("b", 0, [LISTED], ("b", "b")),
    ("other", 0, [LISTED], ("other", "other")), ("other", 9, [NONE], ("other", "other")),
    (None, 9, [REFUSED, LOADING, LISTED], ("a", "org/a")),
    ("a", 9, [LOADING, LISTED], ("a", "org/a")),
])  # fmt: skip
def test_whom_a_server_serves(monkeypatch, name, patience, answers, found):
    monkeypatch.setattr("serve.bench.target._POLL", 0.0)
    assert asyncio.run(reach(Says(*answers), {}, name, patience=patience)) == found


@pytest.mark.parametrize("name, answer, message", [
    ("a", REFUSED, "No server answers at 10.0.0.1:1"), (None, LOADING, "--ready-check-timeout-sec"),
    (None, NONE, "name it with --model"), (None, {"data": []}, "its list of models is empty"),
    (None, [], "name it with --model"),
])  # fmt: skip
def test_a_server_of_which_nothing_is_known(name, answer, message):
    with pytest.raises(BenchError, match=message):
        asyncio.run(reach(Says(answer), {}, name))


def test_a_server_that_hangs_is_as_dead(monkeypatch):
    server = Says()
    monkeypatch.setattr("serve.bench.target._SILENCE", 0.01)
    monkeypatch.setattr(server, "fetch", lambda *_, **__: asyncio.sleep(600))
    with pytest.raises(BenchError, match=r"No server answers .*says nothing for 0\.01 s"):
        asyncio.run(reach(server, {}))


def test_prompts_are_of_the_served_models_tokens():
    assert (
        serving._tokenizer(None, "demo").vocab_size == serving._tokenizer("demo", "/x").vocab_size
    )
    with pytest.raises(ConfigError, match=r"served model's .* name one with --tokenizer"):
        serving._tokenizer(None, "/nowhere/at/all")


def test_each_request_names_an_adapter():
    samples = [Sample("x", [5], 2, then=(Sample("y", [6], 2),)) for _ in range(40)]
    turns = [each.model for each in with_adapters(samples, ["a", "b"], "round-robin", 0)]
    assert turns == ["a", "b"] * 20
    drawn = [each.model for each in with_adapters(samples, ["a", "b"], "random", 0)]
    assert {*drawn} == {"a", "b"} and drawn != turns
    assert with_adapters(samples, [], "random", 0) == samples
    server = Says([{"choices": [{"text": "z"}]}])
    client = Client(server, "base", tokenizer=serving.load_tokenizer("demo"))
    asyncio.run(put_load(client, with_adapters(samples[:1], ["a"], "random", 0), [0.0]))
    assert [body["model"] for body in server.bodies] == ["a", "a"]


def test_a_role_is_no_token():
    """It may come long before the first; an answer of nothing else has ended at once."""
    role = {"choices": [{"delta": {"role": "assistant", "content": ""}}]}
    text, usage = {"choices": [{"delta": {"content": "Hm"}}]}, {"usage": {"completion_tokens": 1}}

    def outcome(*pieces):
        return asyncio.run(Client(Says(pieces), "m", "openai-chat").run(Sample("a", [5], 9)))

    found = outcome(role, text, text)
    assert found.success and len(found.itl) == 1
    ended = outcome(role, usage)
    assert ended.success and ended.ttft == ended.latency > 0 and not outcome(role).success


def test_the_busiest_second_is_of_tokens():
    """Four tokens a piece: the peak is not below the mean."""
    load = Load(
        [Outcome(1, 0.0, ttft=0.1, itl=[0.2, 0.2], latency=0.5, output_tokens=12)], 0.5, None
    )
    assert summarise(load)["max_output_tokens_per_s"] == 12


def test_warm_ups_leave_only_the_first_prompt_in_a_cache():
    server = Says([{"choices": [{"text": "z"}]}])
    options = ServeOptions(DatasetOptions(), Arrivals(), num_warmups=5)
    samples = [Sample("x", [number], 2) for number in range(9)]
    asyncio.run(serving._warm_up(Client(server, "m"), samples, options))
    assert [body["prompt"] for body in server.bodies] == [[0]] * 6


def test_files_are_named_as_vllms(tmp_path):
    ramp = Arrivals(ramp_up_strategy="linear", ramp_up_start_rps=1, ramp_up_end_rps=9).described()
    for given, name in (
        (Arrivals().described() | {"max_concurrency": None}, "openai-infqps-a-now.json"),
        (Arrivals(4.0).described() | {"max_concurrency": 8, "label": "x"},
         "x-4.0qps-concurrency8-a-now.json"),
        (ramp | {"max_concurrency": None}, "openai-ramp-up-linear-1qps-9qps-a-now.json"),
    ):  # fmt: skip
        result = {"backend": "openai", "label": None, "model_id": "org/a", "date": "now", **given}
        path = serving.save(ServeRun(result, Load([], 1.0, None)), tmp_path, None, detailed=False)
        assert path.name == name and json.loads(path.read_text()) == result
