"""An hour of everything at once, after which nothing of it may be left.

    python -m tests.soak --minutes 60

`ingot serve demo` in its own processes, with pages for less than is asked of it, so that requests
are put off and pages go to the host's memory and back. Clients stream, draw several texts, ask for
JSON, for beams and for the odds of tokens; one in ten leaves in the middle, one in twenty asks for
nonsense. Each answer must be what the same request was answered before the others came. At the end
the server must be idle with every page free, nothing compiled since its warm-up, and memory and
descriptors where they were after a tenth of the time. Exit code 1 if not. Linux: it reads /proc.
"""

import argparse
import asyncio
import json
import random
import sys
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from time import monotonic
from typing import Any

import httpx

from serve.bench.front import Front, running

GROWTH_MB = 64.0  # of front and engine together: allocators round up, prefix caches fill
GROWTH_DESCRIPTORS = 8
FLAGS = (
    "--max-num-seqs", "16", "--num-gpu-blocks-override", "72", "--kv-offloading-size", "0.05",
    "--max-num-queued-reqs", "64",
)  # fmt: skip
_CHAT, _TEXT, _NATIVE = "/v1/chat/completions", "/v1/completions", "/generate"
_SCHEMA = {
    "type": "object",
    "properties": {"name": {"enum": ["Tom", "Lily"]}, "age": {"type": "integer", "maximum": 9}},
    "required": ["name", "age"],
}
_STORY = "Once upon a time there was a little dog who lived in a big house by the sea. "
GOOD: list[tuple[str, dict[str, Any]]] = [
    (_TEXT, {"prompt": "Once upon a time", "max_tokens": 48}),
    (_TEXT, {"prompt": _STORY * 4, "max_tokens": 24, "logprobs": 3}),
    (_TEXT, {"prompt": [_STORY, "The cat"], "max_tokens": 16, "echo": True}),
    (_TEXT, {"prompt": "One day", "max_tokens": 32, "n": 3, "temperature": 1, "seed": 7}),
    (_TEXT, {"prompt": "One day", "max_tokens": 24, "n": 2, "use_beam_search": True}),
    (_TEXT, {"prompt": "Lily", "max_tokens": 200, "stop": [".", "!"], "min_tokens": 4}),
    (_TEXT, {"prompt": "Tom", "max_tokens": 24, "repetition_penalty": 1.2, "bad_words": ["dog"]}),
    (_TEXT, {"prompt": "Every day", "max_tokens": 500, "ignore_eos": True}),
    (_TEXT, {"prompt": _STORY * 9, "max_tokens": 300, "ignore_eos": True}),
    (_CHAT, {"messages": [{"role": "user", "content": "Tell me a story."}], "max_tokens": 64}),
    (_CHAT, {"messages": [{"role": "user", "content": "Who are you?"}], "max_tokens": 40,
             "response_format": {"type": "json_schema",
                                 "json_schema": {"name": "who", "schema": _SCHEMA}}}),
    (_NATIVE, {"text": "A bird", "return_logprob": True,
               "sampling_params": {"max_new_tokens": 20, "temperature": 0, "regex": "[a-z ]{30}"}}),
]  # fmt: skip
BAD: list[tuple[str, Any]] = [
    (_TEXT, {"prompt": "a", "max_tokens": -1}),
    (_TEXT, {"prompt": "a", "temperature": "hot"}),
    (_TEXT, {"prompt": "a " * 100_000}),
    (_TEXT, {"prompt": [10**9], "max_tokens": 1}),
    (_CHAT, {"messages": []}),
    (_CHAT, {"messages": [{"role": "user", "content": "a"}], "no_such_field": 1}),
    (_CHAT, {"messages": [{"role": "user", "content": "a"}],
             "response_format": {"type": "json_schema",
                                 "json_schema": {"name": "n", "schema": {"type": "no"}}}}),
    (_NATIVE, {"text": "a", "sampling_params": {"regex": "("}}),
    (_NATIVE, []),
]  # fmt: skip


@dataclass
class Soak:
    """Clients of one server, and what has come of their requests so far."""

    front: Front
    seconds: float
    counts: Counter[str] = field(default_factory=Counter)
    faults: list[str] = field(default_factory=list)
    _wanted: list[list[str]] = field(default_factory=list)

    async def run(self, clients: int, seed: int) -> None:
        """Everything, with a line ten times and at the end; `faults` says what was wrong."""
        # below the 5 s after which the server closes an idle connection: httpx's own 5 s are a race
        limits = httpx.Limits(max_connections=None, keepalive_expiry=2.0)
        url = f"http://127.0.0.1:{self.front.port}"
        async with httpx.AsyncClient(base_url=url, timeout=120, limits=limits) as http:
            answers = [await http.post(path, json=body) for path, body in _asked()]
            self._wanted = [texts_of(answer.json()) for answer in answers]
            ends = monotonic() + self.seconds
            visitors = [self._visitor(http, random.Random(seed + i), ends) for i in range(clients)]
            watched = asyncio.create_task(self._watch(ends))
            await asyncio.gather(*visitors)
            before = await watched
        await asyncio.sleep(1)
        self._judge(before, self._look())

    async def _visitor(self, http: httpx.AsyncClient, luck: random.Random, ends: float) -> None:
        while monotonic() < ends:
            chance = luck.random()
            kind: Callable[[httpx.AsyncClient, random.Random], Awaitable[str]] = self._asks
            if chance < 0.15:
                kind = self._leaves if chance < 0.10 else self._errs
            try:
                self.counts[await kind(http, luck)] += 1
            except httpx.HTTPError as error:
                self.faults.append(f"{type(error).__name__}: {error}")

    async def _asks(self, http: httpx.AsyncClient, luck: random.Random) -> str:
        number = luck.randrange(len(GOOD))
        path, body = _asked()[number]
        if path != _NATIVE and "use_beam_search" not in body and luck.random() < 0.5:
            return await self._streams(http, number)
        answer = await http.post(path, json=body)
        if answer.status_code in (429, 503):
            return "overloaded"
        if answer.status_code != 200:
            self.faults.append(f"{path} {body}: {answer.status_code} {answer.text[:200]}")
        elif texts_of(answer.json()) != self._wanted[number]:
            self.faults.append(f"{path} {body}: another answer: {answer.text[:300]}")
        return "answered"

    async def _streams(self, http: httpx.AsyncClient, number: int) -> str:
        path, body = _asked()[number]
        pieces: dict[int, str] = {}
        async with http.stream("POST", path, json=body | {"stream": True}) as answer:
            if answer.status_code in (429, 503):
                return "overloaded"
            async for line in answer.aiter_lines():
                if line.startswith("data: {"):
                    for choice in json.loads(line[6:]).get("choices", ()):
                        pieces.setdefault(choice["index"], "")
                        pieces[choice["index"]] += _text(choice)
        if [pieces[index] for index in sorted(pieces)] != self._wanted[number]:
            self.faults.append(f"{path} {body}, streamed: {pieces}")
        return "streamed"

    async def _leaves(self, http: httpx.AsyncClient, luck: random.Random) -> str:
        path, body = luck.choice([each for each in _asked() if each[0] != _NATIVE])
        longer = body | {"stream": True, "max_tokens": 400}
        if "use_beam_search" in body:
            del longer["stream"]
        with_patience = luck.choice((0.001, 0.02, 0.2))
        try:
            async with asyncio.timeout(with_patience):
                await http.post(path, json=longer)
        except TimeoutError:
            return "left"
        return "left too late"

    async def _errs(self, http: httpx.AsyncClient, luck: random.Random) -> str:
        path, body = luck.choice(BAD)
        answer = await http.post(path, json=body)
        if not 400 <= answer.status_code < 500:
            self.faults.append(f"{path} {str(body)[:100]}: {answer.status_code}")
        return "refused"

    async def _watch(self, ends: float) -> dict[str, float]:
        """A line every tenth of the time; what was seen at the first of them."""
        first: dict[str, float] = {}
        for part in range(1, 10):
            await asyncio.sleep(max(0.0, ends - self.seconds * (1 - part / 10) - monotonic()))
            seen = await asyncio.to_thread(self._look)
            first = first or seen
            print(_line(self.seconds * part / 10, seen, self.counts, len(self.faults)), flush=True)
        return first

    def _look(self) -> dict[str, float]:
        front = self.front
        return {
            "MB": front.family_megabytes(),
            "descriptors": front.family_descriptors(),
            "running": front.metric("vllm:num_requests_running"),
            "waiting": front.metric("vllm:num_requests_waiting"),
            "pages": front.metric("vllm:kv_cache_usage_perc"),
            "preempted": front.metric("vllm:num_preemptions_total"),
            "compiles": front.metric("ingot:compiles_after_warmup_total"),
        }

    def _judge(self, before: dict[str, float], after: dict[str, float]) -> None:
        print(_line(self.seconds, after, self.counts, len(self.faults)))
        for name in ("running", "waiting", "pages", "compiles"):
            if after[name]:
                self.faults.append(f"{name} is {after[name]} at the end")
        for name, room in (("MB", GROWTH_MB), ("descriptors", GROWTH_DESCRIPTORS)):
            if after[name] > before[name] + room:
                self.faults.append(f"{name} grew from {before[name]:.0f} to {after[name]:.0f}")


def _asked() -> list[tuple[str, dict[str, Any]]]:
    return [(path, body if path == _NATIVE else {"temperature": 0} | body) for path, body in GOOD]


def texts_of(answer: dict[str, Any]) -> list[str]:
    """The texts of a whole answer, in their order."""
    choices = answer.get("choices", [answer])
    return [_text(choice) for choice in choices]


def _text(choice: dict[str, Any]) -> str:
    inner = choice.get("message") or choice.get("delta") or choice
    return inner.get("content") or inner.get("text") or ""


def _line(second: float, seen: dict[str, float], counts: Counter[str], faults: int) -> str:
    numbers = "  ".join(f"{name} {value:.4g}" for name, value in seen.items())
    done = "  ".join(f"{name} {count}" for name, count in sorted(counts.items()))
    return f"{second:7.0f} s  {numbers}  |  {done}  |  faults {faults}"


def main() -> int:
    """Start a server, soak it, say what was wrong."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--minutes", type=float, default=60)
    parser.add_argument("--clients", type=int, default=12)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    with running(*FLAGS, module="serve") as front:
        front.wait_for("/health")
        front.wait_until_quiet()
        soak = Soak(front, options.minutes * 60)
        asyncio.run(soak.run(options.clients, options.seed))
    for fault in soak.faults[:20]:
        print(fault)
    print("nothing was left" if not soak.faults else f"{len(soak.faults)} faults")
    return bool(soak.faults)


if __name__ == "__main__":
    sys.exit(main())
