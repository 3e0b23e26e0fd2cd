"""States of a server: its refusals, its silence, and requests that nobody waits for any more."""

import time

import httpx
import pytest

from engine import Remote, choice, function, gen
from engine.errors import ConfigError, EngineError, RequestError
from tests.serve.processes.test_server import ENDLESS, PATIENCE, running


@pytest.fixture(scope="module")
def server(model_folder):
    with running(model_folder, "--api-key", "k", "--max-num-seqs", "8", step_seconds=0.01) as it:
        it.wait_until(200)
        yield it


@pytest.fixture
def remote(server):
    return Remote(server.url + "/v1", api_key="k")


def test_forks_and_choices_over_http(remote):
    s = remote.state("ab")
    s += gen("more", max_tokens=3, temperature=0) + choice("end", ["xyz", "x"])
    assert s["more"] == "aba" and s["end"] == "xyz"  # each token has probability 1/2
    assert s.chosen("end").likelihoods["xyz"].num_tokens == 3
    forks = s.fork(3)
    forks += gen("own", max_tokens=2)
    assert forks["own"] == ["ab"] * 3 and s.written("more").num_prompt_tokens == 2


def test_a_batch_over_http(remote):
    @function
    def more(s, text):
        s += text + gen("more", max_tokens=2)
        s += gen("then", max_tokens=len(s["more"]))

    states = more.batch(remote, [{"text": text} for text in ("ab", "", "cd")])
    assert states[0].text == "ababab" and states[2]["then"] == "cd"
    with pytest.raises(RequestError, match="more: "):
        states[1]["more"]


def test_what_a_server_refuses_names_the_part(remote, server):
    good, bad = forks = remote.state("ab").fork(2)
    bad += "c" * 200
    forks += gen("more", max_tokens=2)
    assert good["more"] == "ab"
    with pytest.raises(RequestError, match="more: The prompt has 202 tokens") as caught:
        bad["more"]
    assert caught.value.param == "prompt"
    s = Remote(server.url).state("ab")
    s += gen("more")
    with pytest.raises(RequestError, match=r"more: .*key"):
        s["more"]
    other = Remote(server.url, api_key="k", model="gpt-7").state("ab")
    other += gen("more")
    with pytest.raises(RequestError, match=r"more: .*gpt-7"):
        other["more"]


def test_an_interrupt_aborts_what_is_open(model_folder):
    with running(model_folder, *ENDLESS, step_seconds=0.01) as server:
        server.wait_until(200)
        remote = Remote(server.url)
        s = remote.state("ab")
        s += gen("more", max_tokens=90_000)
        with remote.requests() as requests:
            requests.start(1, s._tree._ask(s._place))
            _wait(server, ("vllm:num_requests_running{", ""), 1)
        _wait(server, ("vllm:request_success_total{", 'finished_reason="abort"'), 1)


def _wait(server, name, value):
    deadline = time.monotonic() + PATIENCE
    while True:
        lines = httpx.get(f"{server.url}/metrics").text.splitlines()
        found = [each for each in lines if each.startswith(name[0]) and name[1] in each]
        if any(float(line.rsplit(" ", 1)[1]) == value for line in found):
            return
        assert time.monotonic() < deadline, lines


def test_addresses_and_silence():
    with pytest.raises(ConfigError, match="no address of a server"):
        Remote("localhost:8000")
    with pytest.raises(ConfigError, match="no address of a server"):
        Remote("http://[::1")
    s = Remote("http://127.0.0.1:9").state("ab")
    s += gen("more")
    with pytest.raises(EngineError, match=r"http://127.0.0.1:9 gave no answer: .*refused"):
        s["more"]
