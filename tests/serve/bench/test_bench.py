"""Numbers of a benchmark from outcomes made by hand, and whole runs against a scripted engine."""

import asyncio
import email
import json
import math
import subprocess
import sys
import time
from pathlib import Path
from unittest.mock import MagicMock

import numpy as np
import pytest
import typer
from hypothesis import given
from hypothesis import strategies as st

from engine.errors import ConfigError
from models.checkpoints.checkpoint import find_folder
from serve.bench.arrivals import Arrivals
from serve.bench.cli import app
from serve.bench.cpu_time import CpuMeter
from serve.bench.http_client import Server
from serve.bench.load import Load, put_load
from serve.bench.requests import Client, Outcome
from serve.bench.results import parse_goodput, percentile, summarise
from serve.bench.samples import DatasetOptions, Sample, make_samples, shared_share, that_fits
from serve.bench.serving import BenchError, ServeOptions, _profile, load_tokenizer
from tests.serve.processes.test_engine_end_to_end import FEW, server
from tests.serve.served import PATIENCE

FLOATS = st.lists(st.floats(0, 1e6), min_size=1, max_size=40)


@pytest.fixture(scope="module")
def tokenizer():
    return load_tokenizer("demo")


@given(values=FLOATS, share=st.floats(0, 100))
def test_percentiles_are_numpys(values, share):
    assert percentile(values, share) == pytest.approx(np.percentile(values, share), abs=1e-6)


def test_a_run_by_hand():
    """Two requests at once, one alone, one failed."""
    load = Load(
        [
            Outcome(10, 0.0, ttft=0.5, itl=[0.1, 0.1], latency=0.7, output_tokens=3),
            Outcome(20, 0.2, ttft=0.1, itl=[0.3], latency=0.4, output_tokens=2, cached_tokens=16),
            Outcome(30, 5.0, ttft=0.2, itl=[], latency=0.2, output_tokens=1),
            Outcome(99, 5.0, error="refused"),
        ],
        duration=10.0,
        cpu_seconds=3.0,
    )
    found = summarise(load, percentiles=(50,), metrics=("ttft", "tpot", "itl", "e2el"),
                      goodput={"ttft": 300.0, "tpot": 250.0})  # fmt: skip
    assert (found["completed"], found["failed"]) == (3, 1)
    assert (found["total_input_tokens"], found["total_output_tokens"]) == (60, 6)
    assert (found["request_throughput"], found["output_throughput"]) == (0.3, 0.6)
    assert found["total_cached_tokens"] == 16
    assert found["request_goodput"] == 0.1  # the second is too slow by token, the first to begin
    assert found["max_concurrent_requests"] == 2
    assert found["max_output_tokens_per_s"] == 5  # in the first second
    assert found["mean_ttft_ms"] == pytest.approx(800 / 3)
    assert found["mean_tpot_ms"] == pytest.approx((100 + 300) / 2)
    assert found["p50_itl_ms"] == pytest.approx(100)
    assert found["median_e2el_ms"] == pytest.approx(400)
    assert found["cpu_seconds_per_1k_output_tokens"] == 500


def test_arrivals_at_a_rate_end_when_they_should():
    times = Arrivals(request_rate=4.0, burstiness=0.3).times(200, seed=1)
    assert times == sorted(times) and times[-1] == pytest.approx(50.0)
    assert Arrivals().times(3, 0) == [0.0, 0.0, 0.0]


def test_bursts_are_burstier():
    def spread(burstiness):
        return np.diff(Arrivals(10.0, burstiness).times(2000, seed=0)).std()

    assert spread(0.2) > 1.5 * spread(1.0) > 1.5 * spread(20.0)


def test_a_ramp_begins_slowly_and_ends_fast():
    for strategy in ("linear", "exponential"):
        ramp = Arrivals(100.0, 50.0, strategy, ramp_up_start_rps=1.0, ramp_up_end_rps=50.0)
        gaps = np.diff(ramp.times(400, seed=0))
        assert gaps[:10].mean() > 5 * gaps[-10:].mean()


@pytest.mark.parametrize(
    "options", [{"request_rate": 0}, {"burstiness": 0}, {"ramp_up_strategy": "steep"}]
)
def test_arrivals_refuse_nonsense(options):
    with pytest.raises(ConfigError):
        Arrivals(**options)


def test_random_samples_have_their_lengths_and_a_seed(tokenizer):
    options = DatasetOptions(num_prompts=20, random_input_len=30, random_output_len=7,
                             random_prefix_len=5)  # fmt: skip
    samples = make_samples(options, tokenizer)
    assert {len(sample.token_ids) for sample in samples} == {35}
    assert {sample.output_len for sample in samples} == {7}
    assert len({tuple(sample.token_ids[:5]) for sample in samples}) == 1
    assert samples == make_samples(options, tokenizer)
    assert not tokenizer.special_ids & {i for sample in samples for i in sample.token_ids}


def test_prefixes_are_repeated(tokenizer):
    options = DatasetOptions("prefix_repetition", num_prompts=30, prefix_len=8, suffix_len=4,
                             num_prefixes=3)  # fmt: skip
    samples = make_samples(options, tokenizer)
    assert len({tuple(sample.token_ids[:8]) for sample in samples}) == 3
    assert len({tuple(sample.token_ids) for sample in samples}) == 30


def test_a_conversation_goes_on_with_what_was_answered(tokenizer):
    options = DatasetOptions("multi_turn", num_prompts=5, num_turns=3, first_len=20, message_len=4,
                             output_len=6)  # fmt: skip
    samples = make_samples(options, tokenizer)
    assert [len(sample.turns) for sample in samples] == [3, 3]
    answer = b'data: {"choices": [{"text": "Once upon"}], "usage": {"completion_tokens": 6}}\n'
    server = Answers(answer, b"data: [DONE]\n")
    client = Client(server, "m", tokenizer=tokenizer)
    load = asyncio.run(put_load(client, samples[:1], [0.0]))
    said = tokenizer.encode("Once upon", add_special_tokens=False)
    first, second, third = (body["prompt"] for _, body in server.bodies)
    assert len(first) == 20 and len(second) == len(first) + len(said) + 4
    assert second[: 20 + len(said)] == first + said and third[: len(second)] == second
    assert [outcome.prompt_len for outcome in load.outcomes] == [
        len(first),
        len(second),
        len(third),
    ]
    assert len(samples[0].next("Once upon a time " * 9, tokenizer).token_ids) == 20 + 6 + 4
    assert shared_share(options) == pytest.approx(1 - 28 / (20 + 30 + 40))


@pytest.mark.parametrize(
    "backend, field", [("openai-chat", "messages"), ("openai-responses", "input")]
)
def test_a_conversation_is_messages(tokenizer, backend, field):
    pieces = {
        "openai-chat": b'data: {"choices": [{"delta": {"content": "yes"}}]}\n',
        "openai-responses": b'data: {"type": "response.output_text.delta", "delta": "yes"}\n',
    }
    server = Answers(pieces[backend], b"data: [DONE]\n")
    talk = Sample("why", [5], 9, then=(Sample("really", [6], 9),))
    load = asyncio.run(put_load(Client(server, "m", backend, tokenizer=tokenizer), [talk], [0.0]))
    assert len(load.outcomes) == 2
    assert server.bodies[1][1][field] == [
        {"role": "user", "content": "why"}, {"role": "assistant", "content": "yes"},
        {"role": "user", "content": "really"},
    ]  # fmt: skip
    failing = Client(Answers(b'data: {"error": "no"}\n'), "m", backend, tokenizer=tokenizer)
    assert len(asyncio.run(put_load(failing, [talk], [0.0])).outcomes) == 1


def test_files_of_prompts(tokenizer, tmp_path):
    lines = tmp_path / "custom.jsonl"
    lines.write_text('{"prompt": "Once upon a time", "output_tokens": 9}\n{"prompt": "Hi"}\n')
    first, second = make_samples(DatasetOptions("custom", lines), tokenizer)
    assert (first.text, first.output_len, second.output_len) == ("Once upon a time", 9, 256)
    talks = tmp_path / "talks.json"
    asked, answered = "Where does the little girl go?", "She goes to the big park."
    turns = [{"value": asked}, {"value": answered}]
    pairs = [turns, turns[:1], [turns[0], {"value": "No"}], [{"value": asked * 200}, turns[1]],
             [turns[0], {"value": answered * 400}], [{"value": "Hi"}, turns[1]]]  # fmt: skip
    talks.write_text(json.dumps([{"conversations": pair} for pair in pairs]))
    [talk] = make_samples(DatasetOptions("sharegpt", talks), tokenizer)
    length = len(tokenizer.encode(answered, add_special_tokens=False))
    assert (talk.text, talk.output_len) == (asked, length)
    found = make_samples(DatasetOptions("sharegpt", talks, output_len=5), tokenizer)
    assert [(talk.text, talk.output_len) for talk in found] == [(asked, 5)] * 3


def test_lengths_of_burstgpt(tokenizer, tmp_path):
    """Only what GPT-4 answered; the ids are drawn, the same for the same seed."""
    rows = tmp_path / "burst.csv"
    rows.write_text(
        "Timestamp,Model,Request tokens,Response tokens,Total tokens,Log Type\n"
        "5,ChatGPT,472,18,490,Conversation log\n45,GPT-4,9,7,16,API log\n"
        "118,GPT-4,30,0,30,API log\n119,GPT-4,3,2,5,API log\n"
    )
    found = make_samples(DatasetOptions("burstgpt", rows), tokenizer)
    assert sorted((len(s.token_ids), s.output_len) for s in found) == [(3, 2), (9, 7)]
    assert found == make_samples(DatasetOptions("burstgpt", rows), tokenizer)
    one = make_samples(DatasetOptions("burstgpt", rows, num_prompts=1, output_len=5), tokenizer)
    assert [s.output_len for s in one] == [5]
    rows.write_text("Model,Request tokens\nGPT-4,x\n")
    with pytest.raises(ConfigError, match="line 2"):
        make_samples(DatasetOptions("burstgpt", rows), tokenizer)


@pytest.mark.parametrize("command", ["throughput", "latency", "startup"])
def test_models_are_named_as_in_serve(monkeypatch, command):
    """A name on the hub is downloaded once; its tokenizer and the engine have the folder."""
    fetched, started = [], []

    def fetch(name, **options):
        fetched.append((name, options["revision"], options["weights"]))
        return find_folder("demo")

    def start(model=None, **settings):
        settings = model if isinstance(model, dict) else {"model": model, **settings}
        started.append((settings["model"], settings["hf_overrides"]))
        raise ConfigError("That is enough.")

    monkeypatch.setattr("engine.model_files.fetch", fetch)
    monkeypatch.setattr("engine.llm.LLM", start)
    monkeypatch.setattr("serve.bench.startup.measure_startup", lambda given, **_: start(given))
    flags = ["--model", "org/name", "--revision", "v1", "--hf-overrides", '{"head_dim": 8}']
    with pytest.raises(ConfigError, match="enough"):
        typer.main.get_command(app)([command, *flags], standalone_mode=False)
    assert fetched == [("org/name", "v1", True)]
    assert started == [(str(find_folder("demo")), {"head_dim": 8})]


@pytest.mark.parametrize(
    "flags, lengths",
    [
        ([], (1000 - 128, 128)),
        (["--input-len", "9", "--output-len", "3"], (9, 3)),
        (["--random-prefix-len", "4", "--input-len", "9"], (13, 128)),
        (["--dataset-name", "custom"], (3, 9)),
        (["--dataset-name", "custom", "--output-len", "5"], (3, 5)),
        (["--dataset-name", "prefix_repetition", "--prefix-repetition-prefix-len", "6"],
         (262, 128)),
    ],
)  # fmt: skip
def test_throughput_takes_the_lengths_of_its_dataset(monkeypatch, tmp_path, flags, lengths):
    lines, seen = tmp_path / "custom.jsonl", []
    lines.write_text('{"prompt": "Once upon a", "output_tokens": 9}\n')
    engine = MagicMock()
    engine.return_value.__enter__.return_value.core.info.max_model_len = 1000
    monkeypatch.setattr("engine.llm.LLM", engine)
    monkeypatch.setattr(
        "serve.bench.offline.measure_throughput", lambda llm, samples, n: seen.extend(samples) or {}
    )
    command = ["throughput", "--num-prompts", "1", "--dataset-path", str(lines), *flags]
    typer.main.get_command(app)(command, standalone_mode=False)
    assert [(len(sample.token_ids), sample.output_len) for sample in seen] == [lengths]


@pytest.mark.parametrize("name", ["custom", "prefix_repetition"])
def test_an_input_length_is_refused_where_it_would_be_ignored(name):
    command = ["throughput", "--dataset-name", name, "--input-len", "9"]
    with pytest.raises(ConfigError, match="--input-len is for --dataset-name random"):
        typer.main.get_command(app)(command, standalone_mode=False)


@pytest.mark.parametrize(
    "options, message",
    [
        ({"name": "what"}, "must be one of random"),
        ({"name": "custom"}, "--dataset-path"),
        ({"name": "custom", "path": Path("/nowhere")}, "Cannot read /nowhere"),
        ({"random_range_ratio": 1.5}, "--random-range-ratio"),
        ({"name": "multi_turn", "num_turns": 0}, "--multi-turn-num-turns"),
    ],
)
def test_datasets_refuse_nonsense(tokenizer, options, message):
    with pytest.raises(ConfigError, match=message):
        make_samples(DatasetOptions(**options), tokenizer)


def test_a_line_that_is_no_prompt_is_named(tokenizer, tmp_path):
    lines = tmp_path / "custom.jsonl"
    lines.write_text('{"prompt": "a"}\n[]\n')
    with pytest.raises(ConfigError, match="line 2"):
        make_samples(DatasetOptions("custom", lines), tokenizer)


@pytest.mark.parametrize("pair", ["ttft", "ttft:-1", "speed:3", "ttft:fast"])
def test_goodput_refuses_nonsense(pair):
    with pytest.raises(ConfigError, match="ttft:500"):
        parse_goodput([pair])


def test_a_host_may_be_an_address_of_ipv6(monkeypatch):
    asked = []

    def run(given):
        asked.append(given.base_url)
        raise ConfigError("That is enough.")

    monkeypatch.setattr("serve.bench.serving.run", run)
    with pytest.raises(ConfigError, match="enough"):
        typer.main.get_command(app)(
            ["serve", "--host", "::1", "--port", "9"], standalone_mode=False
        )
    assert asked == ["http://[::1]:9"]


def bench(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "serve", "bench", *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)


@pytest.mark.parametrize("flags", [
    ["serve", "--base-url", "http://127.0.0.1:9"], ["serve", "--port", "9", "--model", "named"],
    ["sweep", "--max-concurrency", "1,2", "--port", "9"],
])  # fmt: skip
def test_a_dead_server_is_said_to_be_dead(flags):
    done = bench(*flags, "--num-prompts", "1")
    assert done.returncode == 1
    assert "No server answers at 127.0.0.1:9" in done.stderr


# reference for names: vLLM's benchmarks/serve.py
FIELDS = {
    "date", "backend", "model_id", "tokenizer_id", "num_prompts", "request_rate", "burstiness",
    "max_concurrency", "duration", "completed", "failed", "total_input_tokens",
    "total_output_tokens", "request_throughput", "request_goodput", "output_throughput",
    "total_token_throughput", "max_output_tokens_per_s", "max_concurrent_requests", "input_lens",
    "output_lens", "ttfts", "itls", "generated_texts", "errors",
}  # fmt: skip


@pytest.fixture(scope="module")
def url():
    with server(find_folder("demo"), *FEW, "--num-scheduler-steps", "1") as address:
        yield address


@pytest.mark.parametrize("backend", ["openai", "openai-chat", "openai-responses"])
def test_a_real_server_is_measured(url, tmp_path, backend):
    done = bench(
        "serve", "--base-url", url, "--backend", backend, "--num-prompts", "6",
        "--random-input-len", "24", "--random-output-len", "5", "--max-concurrency", "3",
        "--save-detailed", "--result-dir", str(tmp_path), "--result-filename", "r.json",
        "--plot", str(tmp_path / "run"), "--percentile-metrics", "ttft,tpot,itl,e2el",
        "--metric-percentiles", "50,99.9", "--goodput", "ttft:60000", "tpot:60000",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    result = json.loads((tmp_path / "r.json").read_text())
    spread = {f"{number}_{name}_ms" for number in ("mean", "median", "std", "p50", "p99.9")
              for name in ("ttft", "tpot", "itl", "e2el")}  # fmt: skip
    assert FIELDS | spread <= result.keys()
    assert result["request_goodput"] == result["request_throughput"] and not any(result["errors"])
    assert (result["completed"], result["failed"]) == (6, 0)
    assert result["model_id"].endswith("demo")
    assert result["output_lens"] == [5] * 6 and result["total_output_tokens"] == 30
    assert 1 <= result["max_concurrent_requests"] <= 3
    assert all(0 < first < 60 for first in result["ttfts"])
    assert result["cpu_seconds_per_1k_output_tokens"] > 0
    assert (tmp_path / "run.png").stat().st_size > 5000 and (tmp_path / "run.svg").exists()


def test_random_prompts_leave_room_for_their_answers(tokenizer):
    options = DatasetOptions(num_prompts=40, random_range_ratio=0.5, random_prefix_len=10)
    samples = make_samples(that_fits(options, 400), tokenizer)
    longest = max(len(sample.token_ids) + sample.output_len for sample in samples)
    assert 300 < longest <= 400
    assert that_fits(options, 4096) == options
    with pytest.raises(ConfigError, match="--input-len 999 and answers of"):
        that_fits(options, 400, wanted=999)


def test_a_sweep_is_a_file_each_and_a_picture(url, tmp_path):
    done = bench(
        "sweep", "--max-concurrency", "1,2", "--result-dir", str(tmp_path), "--plot",
        str(tmp_path / "sweep"), "--base-url", url, "--num-prompts", "4",
        "--random-input-len", "8", "--random-output-len", "4",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    results = [json.loads((tmp_path / f"max-concurrency-{n}.json").read_text()) for n in (1, 2)]
    assert [result["max_concurrency"] for result in results] == [1, 2]
    assert results[1]["total_cached_tokens"] <= 8  # the first prompt, which is tried beforehand
    assert not math.isnan(results[0]["median_tpot_ms"])
    assert (tmp_path / "sweep.svg").exists()


def test_an_idle_server_uses_less_than_a_hundredth_of_a_core(url):
    """Both its processes, once all is compiled; one that polls has no such moment."""
    meter, deadline = CpuMeter.of_server(Server.parse(url)), time.monotonic() + 4 * PATIENCE
    while time.monotonic() < deadline:
        before = meter.seconds()
        time.sleep(2.0)
        if meter.seconds() - before < 0.01 * 2.0:
            return
    pytest.fail("the server was never idle")


def test_a_server_without_a_profiler_is_said_to_have_none(url):
    with pytest.raises(BenchError, match=r"POST /start_profile.*--profiler-config"):
        asyncio.run(_profile(Server.parse(url), "start", {}))


def test_conversations_are_measured(url, tmp_path):
    done = bench(
        "serve", "--base-url", url, "--dataset-name", "multi_turn", "--num-prompts", "6",
        "--multi-turn-num-turns", "3", "--multi-turn-first-len", "40", "--output-len", "4",
        "--multi-turn-message-len", "3", "--save-result", "--result-dir", str(tmp_path),
        "--result-filename", "r.json",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    result = json.loads((tmp_path / "r.json").read_text())
    assert (result["num_prompts"], result["completed"]) == (6, 6)
    assert result["total_cached_tokens"] >= 4 * 32  # of two turns after each first, in pages of 16


def test_requests_that_fail_are_counted_and_the_exit_says_so(url):
    done = bench(
        "serve", "--base-url", url, "--num-prompts", "2", "--random-input-len", "8",
        "--random-output-len", "1400",
    )  # fmt: skip
    assert done.returncode == 1 and "max_tokens" in done.stderr


def test_the_engine_alone_is_measured(tmp_path):
    for command in (
        ["latency", "--batch-size", "2", "--input-len", "8", "--num-iters-warmup", "1",
         "--num-iters", "2"],
        ["throughput", "--num-prompts", "4", "--input-len", "8", "--max-num-seqs", "2"],
    ):  # fmt: skip
        target = tmp_path / f"{command[0]}.json"
        done = bench(*command, "--output-len", "4", "--output-json", str(target),
                     "--max-model-len", "64", "--max-num-batched-tokens", "16",
                     "--num-scheduler-steps", "1")  # fmt: skip
        assert done.returncode == 0, done.stderr
    throughput = json.loads((tmp_path / "throughput.json").read_text())
    assert throughput["total_num_tokens"] == 4 * (8 + 4)
    latency = json.loads((tmp_path / "latency.json").read_text())
    assert len(latency["latencies"]) == 2 and latency["percentiles"]["99"] > 0


class Answers:
    """A server that says the same to everybody."""

    host, port = "10.0.0.1", 1  # whose processes nobody can see from here

    def __init__(self, *pieces):
        self.pieces, self.bodies = pieces, []

    async def send(self, method, endpoint, body, headers):
        self.bodies.append((endpoint, json.loads(body)))
        for piece in self.pieces:
            yield piece


def test_tokens_that_a_server_does_not_count_are_counted(tokenizer):
    pieces = [
        b'data: {"choices": [{"text": "%s"}]}\n' % text for text in (b"Once upon", b" a time")
    ]
    usage = b'data: {"choices": [], "usage": {"completion_tokens": 3}}\n'
    sample, end = Sample("a", [5], 9), b"data: [DONE]\n"

    def outcome(*answer):
        client = Client(Answers(*answer, end), "m", tokenizer=tokenizer)
        return asyncio.run(put_load(client, [sample], [0.0])).outcomes[0]

    counted = len(tokenizer.encode("Once upon a time", add_special_tokens=False))
    assert outcome(*pieces).output_tokens == counted > 0
    assert outcome(*pieces, usage).output_tokens == 3


@pytest.mark.parametrize("name", ["content", "reasoning_content", "reasoning"])
def test_thoughts_are_pieces_too(name):
    event = json.dumps({"choices": [{"delta": {"content": "", name: "Hm"}}]}).encode()
    client = Client(Answers(b"data: " + event + b"\n"), "m", "openai-chat")
    outcome = asyncio.run(client.run(Sample("a", [5], 9)))
    assert outcome.text == "Hm" and outcome.success


def test_a_vector_is_asked_for_by_ids():
    answer = b'{"data": [{"embedding": [0.5]}], "usage": {"prompt_tokens": 2}}'
    server = Answers(answer[:9], answer[9:])
    client = Client(server, "m", "openai-embeddings")
    outcome = asyncio.run(client.run(Sample("a b", [5, 6], 9)))
    assert outcome.success and 0 < outcome.ttft <= outcome.latency and outcome.output_tokens == 0
    assert server.bodies == [("/v1/embeddings", {"model": "m", "input": [5, 6]})]
    empty = Client(Answers(b'{"data": [{"embedding": []}]}'), "m", "openai-embeddings")
    assert "no numbers" in asyncio.run(empty.run(Sample("a", [5], 9))).error


@pytest.mark.parametrize("backend, path, answer", [
    ("vllm-pooling", "/pooling", {"data": [{"data": [[0.1], [0.2]]}]}),
    ("vllm-rerank", "/v1/rerank", {"results": [{"index": 0, "relevance_score": 0.5}]}),
])  # fmt: skip
def test_other_answers_that_come_at_once(tokenizer, backend, path, answer):
    options = DatasetOptions("random-rerank", num_prompts=1, random_input_len=8,
                             random_batch_size=2)  # fmt: skip
    [sample] = make_samples(options, tokenizer)
    assert len(sample.token_ids) == 3 * 4 and len(sample.documents) == 2
    server = Answers(json.dumps(answer).encode())
    outcome = asyncio.run(Client(server, "m", backend).run(sample))
    [(asked, body)] = server.bodies
    assert outcome.success and outcome.ttft > 0 and asked == path
    want = {"query": sample.text, "documents": list(sample.documents)}
    assert body == {"model": "m", **(want if "query" in body else {"input": sample.token_ids})}
    for empty in ({"data": [{"data": []}]}, {"results": []}, {"data": []}, {"other": 1}):
        server = Answers(json.dumps(empty).encode())
        assert asyncio.run(Client(server, "m", backend).run(sample)).error


@pytest.mark.parametrize("backend, dataset", [
    ("vllm-rerank", "random"), ("openai", "random-rerank"), ("vllm-pooling", "multi_turn"),
    ("openai-audio", "random"), ("openai", "custom_audio"),
])  # fmt: skip
def test_datasets_that_a_backend_does_not_take_are_refused(backend, dataset):
    with pytest.raises(ConfigError, match="--dataset-name"):
        ServeOptions(DatasetOptions(dataset), Arrivals(), backend=backend)


def test_recordings_are_sent_as_files(tokenizer, tmp_path):
    (tmp_path / "a.wav").write_bytes(b"RIFF\r\n--")
    lines = tmp_path / "list.jsonl"
    lines.write_text('{"audio": "a.wav"}\n')
    [sample] = make_samples(DatasetOptions("custom_audio", lines), tokenizer)
    forms = []

    class Hears(Answers):
        async def send(self, method, endpoint, body, headers):
            forms.append((endpoint, body, headers))
            for piece in self.pieces:
                yield piece

    server = Hears(
        b'data: {"type": "transcript.text.delta", "delta": "Once upon"}\n',
        b'data: {"type": "transcript.text.done", "text": "", "usage": {"seconds": 4}}\n',
    )
    client = Client(server, "m", "openai-audio", extra_body={"language": "en"}, tokenizer=tokenizer)
    load = asyncio.run(put_load(client, [sample], [0.0]))
    [outcome] = load.outcomes
    assert outcome.success and outcome.text == "Once upon" and outcome.output_tokens > 0
    assert summarise(load)["rtfx"] == pytest.approx(4 / load.duration)
    [(endpoint, body, headers)] = forms
    message = email.message_from_bytes(
        b"content-type: %s\n\n" % headers["content-type"].encode() + body
    )
    parts = {p.get_param("name", header="content-disposition"): p.get_payload(decode=True)
             for p in message.get_payload()}  # fmt: skip
    assert endpoint == "/v1/audio/transcriptions"
    assert parts == {"model": b"m", "stream": b"true", "response_format": b"json",
                     "language": b"en", "file": b"RIFF\r\n--"}  # fmt: skip
    lines.write_text('{"audio": "b.wav"}\n')
    with pytest.raises(ConfigError, match=r"names b.wav, and .*b.wav is no file"):
        make_samples(DatasetOptions("custom_audio", lines), tokenizer)


def test_a_response_that_fails_is_an_error():
    event = b'data: {"type": "response.failed", "response": {"error": {"message": "too hot"}}}\n'
    outcome = asyncio.run(Client(Answers(event), "m", "openai-responses").run(Sample("a", [5], 9)))
    assert "too hot" in outcome.error
