"""Much of one thing: letters, schemas, streams. Time and memory stay bounded, and others go on."""

import asyncio
import json
import os
import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

import pytest

from engine.config import EngineConfig
from engine.grammar.worker_messages import Remembered
from engine.tokenizers.tokenizer import Tokenizer
from models.demo import DEMO_FOLDER
from serve.commands.batch import call
from tests.serve.attacks.harm import assert_unharmed
from tests.serve.http.test_http_protocol import HEAD, listening
from tests.serve.served import PATIENCE, Serve, until

pytestmark = pytest.mark.anyio
MILLION = 1_000_000
TEXTS = {
    "spaces": " " * MILLION,
    "one word": "a" * MILLION,
    "emoji": "👩‍👩‍👧" * (MILLION // 20),
    "names of tokens": "<|im_end|>" * (MILLION // 30),
    "beginnings of names": "<|" * (MILLION // 6),
}


@pytest.mark.parametrize("name", TEXTS)
async def test_a_million_letters_are_tokenised_while_others_are_served(
    serve: Serve, name: str
) -> None:
    config = EngineConfig(max_model_len=4 * MILLION)
    turn = {"role": "user", "content": TEXTS[name]}
    async with serve(config=config, folder=DEMO_FOLDER) as served, asyncio.timeout(PATIENCE):
        served.core.info.vocab_size = 2048
        large = asyncio.create_task(served.post("/tokenize", messages=[turn]))
        answered = 0
        while not large.done():
            assert (await served.complete(prompt=[5], max_tokens=2)).status_code == 200
            answered += 1
        tokens = (await large).json()["tokens"]
    tokenizer = Tokenizer.load(DEMO_FOLDER)
    assert tokenizer is not None and answered > 3
    assert TEXTS[name] in tokenizer.decode(tokens, False)
    assert tokens.count(1) == 2  # turns, which the template has begun


LARGE: dict[str, dict[str, Any]] = {
    "logit_bias": {"logit_bias": {str(each): 1 for each in range(500_000)}},
    "allowed_token_ids": {"allowed_token_ids": [*range(100)] * 20_000},
    "stop": {"stop": [f"x{each}" for each in range(500_000)]},
    "bad_words": {"bad_words": [f"x{each}" for each in range(500_000)]},
    "prompts": {"prompt": ["a"] * MILLION},
    "ids": {"prompt": [*range(100)] * 20_000},
    "messages": {"messages": [{"role": "user", "content": "a"}] * 9_000},
    "tools": {"messages": [{"role": "user", "content": "a"}], "tools": [
        {"type": "function", "function": {"name": f"f{each}", "parameters": {
            "type": "object", "properties": {f"p{i}": {"type": "string"} for i in range(50)}}}}
        for each in range(1000)]},
    "unknown fields": {f"x{each}": None for each in range(400_000)},
}  # fmt: skip


@contextmanager
def counted() -> Iterator[Counter[str]]:
    """Lines of Python that this thread runs, the event loop's, by function; those of a loop as
    often as it turns. What other threads do is not among them, nor what runs in C."""
    lines: Counter[str] = Counter()

    def trace(frame: FrameType, event: str, _: object) -> Any:
        lines[f"{frame.f_code.co_filename}:{frame.f_code.co_name}"] += event == "line"
        return trace

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        yield lines
    finally:
        sys.settrace(before)


@pytest.mark.parametrize("name", LARGE)
async def test_a_large_body_does_not_hold_up_the_loop(serve: Serve, name: str) -> None:
    """Python that runs there once for each of a million entries would hold it for 0.1 s. Lines are
    counted, for seconds are the machine's; 9,000 messages are looked at, with 6 lines each."""
    kind = "/v1/chat/completions" if "messages" in LARGE[name] else "/v1/completions"
    prompt = {} if "messages" in LARGE[name] else {"prompt": "a"}
    body = json.dumps({"max_tokens": 1, **prompt, **LARGE[name]}).encode()
    async with serve(config=EngineConfig(max_model_len=4 * MILLION)) as served:
        await call(served.app, kind, b"{}")
        with counted() as lines:
            status, *_ = await asyncio.create_task(call(served.app, kind, body))
    assert status in (200, 400)
    assert 100 < lines.total() < 80_000, lines.most_common(3)


async def test_the_scores_of_a_long_prompt_are_not_read_on_the_loop(serve: Serve) -> None:
    """Where others would wait 159 ms for 8,192 positions of 21 tokens."""
    body = {"prompt": [5] * 3000, "max_tokens": 1, "prompt_logprobs": 3}
    more: dict[str, Any]
    for more in ({}, {"echo": True, "logprobs": 1}):
        async with serve(config=EngineConfig(max_model_len=4000)) as served:
            with counted() as lines:
                status, *_, answer = await call(
                    served.app, "/v1/completions", json.dumps(body | more).encode()
                )
        assert status == 200
        assert len(json.loads(answer)["choices"][0]["prompt_logprobs"]) == 3000
        read = [name for name in lines if name.endswith("output_processor.py:_position")]
        assert lines and not [name for name in read if lines[name] > 50], lines.most_common(5)


async def test_a_flood_of_schemas_is_forgotten_again(
    serve: Serve, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """What is remembered is bounded by bytes, the compilers by their number and their growth."""
    bound, count = 40_000, 1200
    monkeypatch.chdir(tmp_path)
    kept: list[Remembered] = []
    monkeypatch.setattr(
        "serve.generation.grammars.Remembered", lambda: kept.append(Remembered(bound)) or kept[-1]
    )

    async with serve() as served:

        async def ask(number: int) -> None:
            schema = {"type": "object", "properties": {f"p{number}": {"type": "integer"}}}
            done = await served.complete(prompt="a", max_tokens=1, json_schema=json.dumps(schema))
            assert done.status_code == 200, done.text

        await asyncio.gather(*map(ask, range(20)))
        workers = children()
        before = resident(workers)
        for begin in range(20, count, 20):
            await asyncio.gather(*map(ask, range(begin, begin + 20)))
        assert children() == workers and len(workers) <= 2
        assert resident(workers) - before < 8 * 2**20
        [known] = kept
        assert known.num_bytes <= bound and len(known) < count / 4
        await assert_unharmed(served)
    assert not list(tmp_path.iterdir())


def children() -> set[int]:
    tasks = Path("/proc/self/task")
    if not tasks.exists():
        pytest.skip("processes are listed in /proc, which this system has not")
    return {
        int(each) for task in tasks.iterdir() for each in (task / "children").read_text().split()
    }


def resident(processes: set[int]) -> int:
    pages = sum(int(Path(f"/proc/{each}/statm").read_text().split()[1]) for each in processes)
    return pages * os.sysconf("SC_PAGE_SIZE")


async def test_a_thousand_streams_that_are_opened_and_dropped(serve: Serve) -> None:
    """Over sockets, a hundred at a time; each is in the middle of its answer when it is dropped."""
    body = json.dumps({"prompt": "ab", "max_tokens": 100, "stream": True}).encode()
    request = HEAD + b"Content-Length: %d\r\n\r\n" % len(body) + body
    async with serve(config=EngineConfig(max_num_seqs=100)) as served, listening(served) as port:

        async def open_one() -> asyncio.StreamWriter:
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(request)
            assert b"data: " in await reader.readuntil(b"data: ")
            return writer

        served.core.step_seconds = 0.002
        files = open_files()
        for _ in range(10):
            writers = await asyncio.gather(*(open_one() for _ in range(100)))
            for writer in writers:
                writer.transport.abort()
            await served.engine.wait_until_idle()
            await until(lambda: not served.core.has_work)
        await until(lambda: open_files() <= files)
        assert len(served.core.added) == 1000 and len(served.core.aborted) > 900
        await assert_unharmed(served)


def open_files() -> int:
    return len(os.listdir("/dev/fd"))
