"""The whole of it: `ingot serve` in its own processes, trained weights, the official client.

What many clients get at once must be, token by token, what each gets alone; with pages for all
of them, and with too few.
"""

import asyncio
import json
import os
import subprocess
import sys
import time
from contextlib import contextmanager
from pathlib import Path

import httpx
import openai
import pytest

from models.demo import DEMO_FOLDER
from serve.bench.drafts import parse_drafts
from serve.bench.free_port import free_port

STREAMS = 64
# servers of several files, which do not ask for more, have the same programs: the first compiles
FEW = (
    "--max-num-seqs", "4", "--max-num-batched-tokens", "64", "--num-gpu-blocks-override", "72",
)  # fmt: skip


@contextmanager
def server(model: Path, *flags: str):
    """The base URL of `ingot serve`, ready to answer."""
    port = free_port()
    command = [sys.executable, "-m", "serve", "serve", str(model), "--port", str(port), *flags]
    environment = {**os.environ, "JAX_PLATFORMS": "cpu", "JAX_NUM_CPU_DEVICES": "1"}
    process = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL)
    try:
        _wait(process, f"http://127.0.0.1:{port}/health")
        yield f"http://127.0.0.1:{port}"
    finally:
        process.terminate()
        assert process.wait(60) == 0


def _wait(process: subprocess.Popen, url: str) -> None:
    for _ in range(600):
        assert process.poll() is None, "the server ended while it was starting"
        try:
            if httpx.get(url).status_code == 200:
                return
        except httpx.HTTPError:
            pass
        time.sleep(0.2)
    raise TimeoutError("the server did not become ready")


def prompt(number: int) -> str:
    text = "Once upon a time there was a little dog who lived in a big house by the sea"
    return text[: 12 + 5 * (number % 13)] + "." * (number % 2)


async def _stream(client: openai.AsyncOpenAI, number: int) -> str:
    pieces = await client.completions.create(
        model="demo", prompt=prompt(number), max_tokens=16 + 16 * (number % 6), temperature=0,
        stream=True,
    )  # fmt: skip
    return "".join([piece.choices[0].text async for piece in pieces if piece.choices])


async def _together(url: str) -> list[str]:
    async with openai.AsyncOpenAI(base_url=f"{url}/v1", api_key="none") as client:
        return await asyncio.gather(*(_stream(client, number) for number in range(STREAMS)))


async def _one_by_one(url: str) -> list[str]:
    async with openai.AsyncOpenAI(base_url=f"{url}/v1", api_key="none") as client:
        return [await _stream(client, number) for number in range(STREAMS)]


def _beams(url: str, n: int) -> list[str]:
    body = {"prompt": prompt(1), "max_tokens": 32, "use_beam_search": True, "n": n}
    answer = httpx.post(f"{url}/v1/completions", json=body, timeout=60).json()
    return [choice["text"] for choice in answer["choices"]]


def _seeded(url: str) -> tuple[str, list[int]]:
    """What somebody reads who asks for chance, with a seed."""
    body = {
        "prompt": prompt(7), "max_tokens": 150, "temperature": 1.2, "top_p": 0.95, "seed": 41,
        "ignore_eos": True, "return_token_ids": True, "frequency_penalty": 0.3,
    }  # fmt: skip
    [choice] = httpx.post(f"{url}/v1/completions", json=body, timeout=60).json()["choices"]
    return choice["text"], choice["token_ids"]


ATTACKS: list[dict] = [
    {"prompt": prompt(7), "max_tokens": 30, "temperature": 2, "n": 3},
    {"prompt": prompt(7), "max_tokens": 30, "logit_bias": {"5": 100, "6": -100}, "seed": 41},
    {"prompt": [1] * 900, "max_tokens": 4, "prompt_logprobs": 3, "cache_salt": "mine"},
    {"prompt": prompt(7), "max_tokens": 20, "regex": "[ab ]{3,40}", "logprobs": 5},
    {"prompt": prompt(7), "max_tokens": 20, "presence_penalty": -2, "repetition_penalty": 1.9},
    {"prompt": prompt(7), "max_tokens": 20, "allowed_token_ids": [9], "min_tokens": 19},
    {"prompt": prompt(7), "max_tokens": 20, "use_beam_search": True, "n": 4},
    {"prompt": [10**6]}, {"prompt": [1] * 10**5}, {"prompt": "a", "logit_bias": {"5": 1e308}},
    {"prompt": prompt(7), "max_tokens": 400, "stream": True, "ignore_eos": True},  # and leaves
]  # fmt: skip


async def _attacked(url: str) -> list[tuple[str, list[int]]]:
    """What two such neighbours read while others try whatever might harm them."""
    statuses = []

    async def attack(client: httpx.AsyncClient, body: dict) -> None:
        async with client.stream("POST", "/v1/completions", json=body) as answer:
            statuses.append(answer.status_code)
            if not body.get("stream"):
                await answer.aread()

    async with httpx.AsyncClient(base_url=url, timeout=60) as client:
        neighbours = [asyncio.create_task(asyncio.to_thread(_seeded, url)) for _ in range(2)]
        while not all(each.done() for each in neighbours):
            await asyncio.gather(*(attack(client, body) for body in ATTACKS))
    assert set(statuses) == {200, 400}
    return [each.result() for each in neighbours]


def _wait_until_idle(url: str) -> None:
    """Until what was dropped last has been."""
    for _ in range(100):
        if _metric(url, "vllm:num_requests_running") == 0:
            return
        time.sleep(0.1)


def _metric(url: str, name: str) -> float:
    lines = httpx.get(f"{url}/metrics").text.splitlines()
    return sum(float(line.rsplit(" ", 1)[1]) for line in lines if line.startswith(name))


def test_many_streams_give_what_each_gives_alone():
    rows = ["--max-num-seqs", "16", "--max-num-batched-tokens", "128"]
    with server(DEMO_FOLDER, "--served-model-name", "demo", *rows) as url:
        alone = asyncio.run(_one_by_one(url))
        assert asyncio.run(_together(url)) == alone
        assert len(set(alone)) > STREAMS / 3
        assert _beams(url, 1) == alone[1:2]
        assert len(set(_beams(url, 4))) == 4
        quiet = _seeded(url)
        assert len(quiet[1]) == 150 and asyncio.run(_attacked(url)) == [quiet, quiet]
        _wait_until_idle(url)
        assert _metric(url, "vllm:kv_cache_usage_perc") == 0
    few = ["--max-model-len", "256", "--num-gpu-blocks-override", "18", "--max-num-seqs", "8"]
    few += ["--max-num-batched-tokens", "64"]
    guessing = ["--speculative-config", '{"num_speculative_tokens": 3}']
    with server(DEMO_FOLDER, "--served-model-name", "demo", *few, *guessing) as url:
        assert asyncio.run(_together(url)) == alone
        drafts = parse_drafts(httpx.get(f"{url}/metrics").text)
        assert 0 < sum(drafts.accepted_by_position.values()) == drafts.accepted_tokens
        assert drafts.accepted_tokens < drafts.draft_tokens <= 3 * drafts.drafts
        assert _metric(url, "vllm:num_preemptions_total") > 0
        assert _metric(url, "vllm:kv_cache_usage_perc") == 0


@pytest.mark.parametrize("name", ["stories260K", "babyllama105", "capp_gpt"])
def test_trained_weights_over_http(shared_data, name):
    folder = shared_data / "weights" / name
    golden = json.loads((folder / "golden_greedy.json").read_text())
    given, want = golden["prompt_ids"], golden["greedy_ids"]
    body = {
        "prompt": given, "max_tokens": len(want) - len(given), "temperature": 0,
        "ignore_eos": True, "return_token_ids": True,
    }  # fmt: skip
    with server(folder, "--max-num-seqs", "2", "--max-num-batched-tokens", "32") as url:
        answer = httpx.post(f"{url}/v1/completions", json=body, timeout=60)
        [choice] = answer.json()["choices"]
        assert given + choice["token_ids"] == want
        if "chain" in golden:
            names = json.loads((folder / "token_mappings.json").read_text())["id2token"]
            chain = [names[str(token)] for token in choice["token_ids"]]
            assert chain == golden["chain"]
        elif golden["prompt"]:
            whole = httpx.post(
                f"{url}/v1/completions", json=body | {"prompt": golden["prompt"]}, timeout=60
            )
            assert whole.json()["choices"][0]["text"] == choice["text"] != ""
