"""One request of a benchmark and what became of it, measured where the client is.

sent ──── first piece ─ piece ─ piece ─ [DONE]
  └─ TTFT ─┘          └ITL┘   └ITL┘
  └──────── latency (E2EL) ───────────────┘
"""

from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from time import perf_counter
from typing import Any

import msgspec

from engine.tokenizers.tokenizer import Tokenizer
from serve.bench.form import write_form
from serve.bench.http_client import HttpError, Server
from serve.bench.samples import Sample

ENDPOINTS = {
    "openai": "/v1/completions",
    "openai-chat": "/v1/chat/completions",
    "openai-responses": "/v1/responses",
    "openai-embeddings": "/v1/embeddings",
    "vllm-pooling": "/pooling",
    "vllm-rerank": "/v1/rerank",
    "openai-audio": "/v1/audio/transcriptions",
}
WHOLE = ("openai-embeddings", "vllm-pooling", "vllm-rerank")  # whose answers come at once
_PIECES = (
    "response.output_text.delta", "response.reasoning_text.delta", "transcript.text.delta",
)  # fmt: skip
_SAID = ("content", "reasoning_content", "reasoning")  # of which a piece has one, under two names
BACKENDS = {"vllm": "openai", "ingot": "openai"}  # other names of the same


@dataclass(slots=True)
class Outcome:
    """Times in seconds; `start` by this process's clock."""

    prompt_len: int
    start: float = 0.0
    ttft: float = 0.0
    itl: list[float] = field(default_factory=list)
    latency: float = 0.0
    output_tokens: int = 0
    cached_tokens: int = 0
    audio_seconds: float = 0.0  # that were heard
    text: str = ""
    error: str = ""

    @property
    def success(self) -> bool:
        return not self.error

    @property
    def tpot(self) -> float:
        """Seconds for each token after the first; 0 for a single one."""
        if self.output_tokens < 2:
            return 0.0
        return (self.latency - self.ttft) / (self.output_tokens - 1)


@dataclass(frozen=True)
class Client:
    """How requests are written for one server and model."""

    server: Server
    model: str
    backend: str = "openai"
    endpoint: str | None = None
    headers: dict[str, str] = field(default_factory=dict)
    ignore_eos: bool = False
    extra_body: dict[str, Any] = field(default_factory=dict)
    tokenizer: Tokenizer | None = None  # counts what a server does not

    async def run(self, sample: Sample) -> Outcome:
        """Send one sample and follow its answer; what fails is an outcome too."""
        outcome = Outcome(len(sample.token_ids), start=perf_counter())
        endpoint = self.endpoint or ENDPOINTS[self.backend]
        try:
            kind, body = self._body(sample)
            headers = {**self.headers, "content-type": kind}
            outcome.start = perf_counter()
            pieces = self.server.send("POST", endpoint, body, headers)
            if self.backend in WHOLE:
                await _take_whole(pieces, outcome)
            else:
                await _follow(pieces, outcome)
            outcome.latency = perf_counter() - outcome.start
            if not outcome.ttft and outcome.output_tokens:
                outcome.ttft = outcome.latency  # of tokens that are no text
            elif not outcome.ttft:
                outcome.error = "The answer held no piece of text."
        except (HttpError, OSError, msgspec.MsgspecError) as error:
            outcome.error = f"{type(error).__name__}: {error}"
        except (ValueError, LookupError, TypeError, AttributeError) as error:  # odd JSON
            outcome.error = f"{type(error).__name__}: {error}"
        return outcome

    async def converse(self, sample: Sample) -> AsyncIterator[Outcome]:
        """Send a sample and what is asked then, each after the answer to the one before."""
        while True:
            outcome = await self.run(sample)
            yield outcome
            if not sample.then or not outcome.success:
                return
            if self.tokenizer is None:
                raise RuntimeError("a conversation goes on with its answers' tokens")
            sample = sample.next(outcome.text, self.tokenizer)

    def complete(self, outcome: Outcome) -> None:
        """Count the tokens of an answer that came without `usage`."""
        if self.tokenizer is not None and outcome.text and not outcome.output_tokens:
            ids = self.tokenizer.encode(outcome.text, add_special_tokens=False)
            outcome.output_tokens = len(ids)

    def _body(self, sample: Sample) -> tuple[str, bytes]:
        """Its content type, and what is sent."""
        if sample.audio is not None:
            return write_form(self.payload(sample), sample.audio)
        return "application/json", msgspec.json.encode(self.payload(sample))

    def payload(self, sample: Sample) -> dict[str, Any]:
        """The body of a request."""
        model = sample.model or self.model
        if self.backend == "vllm-rerank":
            documents = list(sample.documents)
            return {
                "model": model, "query": sample.text, "documents": documents,
            } | self.extra_body  # fmt: skip
        if self.backend in WHOLE:
            return {"model": model, "input": sample.token_ids} | self.extra_body
        body: dict[str, Any] = {"model": model, "stream": True}
        if self.backend == "openai-responses":
            asked = _messages(sample) if sample.history else sample.text
            body |= {"input": asked, "max_output_tokens": sample.output_len, "store": False}
        elif self.backend == "openai-audio":
            body["response_format"] = "json"
        elif self.backend == "openai-chat":
            body["messages"] = _messages(sample)
            body["max_completion_tokens"] = sample.output_len
        else:
            body |= {"prompt": sample.token_ids, "max_tokens": sample.output_len}
        if self.backend in ("openai", "openai-chat"):
            body["stream_options"] = {"include_usage": True}
        if self.ignore_eos:
            body["ignore_eos"] = True
        return body | self.extra_body


def _messages(sample: Sample) -> list[dict[str, str]]:
    """A conversation, which begins with the user."""
    roles, texts = ("user", "assistant"), (*sample.history, sample.text)
    return [{"role": roles[place % 2], "content": text} for place, text in enumerate(texts)]


async def _take_whole(pieces: AsyncIterator[bytes], outcome: Outcome) -> None:
    """Read a vector, or scores of documents, which come at once."""
    answer = msgspec.json.decode(b"".join([piece async for piece in pieces]))
    if "results" in answer:
        if not answer["results"]:
            raise HttpError("No document was ranked.")
    else:
        first = answer["data"][0]
        if not (first["embedding"] if "embedding" in first else first["data"]):
            raise HttpError("The vector has no numbers.")
    outcome.ttft = perf_counter() - outcome.start


async def _follow(pieces: AsyncIterator[bytes], outcome: Outcome) -> None:
    """Read server-sent events until [DONE] into the outcome."""
    last, rest = outcome.start, b""
    async for piece in pieces:
        *lines, rest = (rest + piece).split(b"\n")
        for line in lines:
            if not line.startswith(b"data:"):
                continue
            data = line[5:].strip()
            if data == b"[DONE]":
                return
            last = _take(msgspec.json.decode(data), outcome, last)


def _take(event: Any, outcome: Outcome, last: float) -> float:
    """Add one event; returns the time of the newest piece of text."""
    response = event.get("response") or {}  # of /v1/responses, which name their events
    if error := event.get("error") or response.get("error"):
        raise HttpError(str(error))
    if usage := event.get("usage") or response.get("usage"):
        outcome.output_tokens = usage.get("completion_tokens") or usage.get("output_tokens") or 0
        outcome.audio_seconds = usage.get("seconds") or 0.0
        details = usage.get("prompt_tokens_details") or usage.get("input_tokens_details") or {}
        outcome.cached_tokens = details.get("cached_tokens") or 0
    text = _text(event)
    if text is None:  # a role, or an end
        return last
    now = perf_counter()
    if not outcome.ttft:
        outcome.ttft = now - outcome.start
    else:
        outcome.itl.append(now - last)
    outcome.text += text
    return now


def _text(event: Any) -> str | None:
    """The piece of text that an event brings, if it brings one."""
    if event.get("type") in _PIECES:
        return str(event["delta"])
    choices = event.get("choices")
    if not choices:
        return None
    if (text := choices[0].get("text")) is not None:
        return str(text)
    delta = choices[0].get("delta") or {}
    said = [str(delta[name]) for name in _SAID if delta.get(name) is not None]
    if "role" in delta and not any(said):  # sent before there is anything to say
        return None
    return next(filter(None, said), "") if said else None
