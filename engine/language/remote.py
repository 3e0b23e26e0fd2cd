"""States of a server: the same questions, asked over HTTP.

Writing needs `/v1/completions` as OpenAI has it; a choice needs `/tokenize` and `prompt_logprobs`
too, which Ingot and vLLM have. Ingot scores a choice from where it begins on, and has what stands
before in its cache (`prompt_logprobs_start`); a server without that scores the whole prompt.
"""

import http.client
import queue
import socket
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from threading import Lock
from typing import Any
from urllib.parse import urlsplit

import msgspec

from engine.errors import ConfigError, EngineError, OverloadedError, RequestError
from engine.language.backend import Answer, Ask, Score, Scored, Write, first_scored
from engine.language.parts import Likelihood, Written
from engine.language.state import State
from models.errors import IngotError

_TURN = 0.1  # seconds until somebody who waits looks for new requests


class Remote:
    """A server at `url` ("http://127.0.0.1:8000"), as `LLM` is a model in this process.

    Args:
        model: the name to ask for; the server's own where it is None.
        api_key: what the server's `--api-key` asks for.
        timeout: seconds without an answer after which a request has failed.
        max_concurrency: requests that are open at a time.

    Raises:
        ConfigError: `url` is none of http:// or https://.
    """

    def __init__(
        self,
        url: str,
        *,
        model: str | None = None,
        api_key: str | None = None,
        timeout: float = 600.0,
        max_concurrency: int = 64,
    ) -> None:
        try:
            parts = urlsplit(url)
            fits = parts.scheme in ("http", "https") and parts.hostname and parts.port != 0
        except ValueError:  # a bracket without its partner, a port that is no number
            fits = False
        if not fits:
            raise ConfigError(f"{url!r} is no address of a server; write http://127.0.0.1:8000.")
        self.url, self.model, self.timeout = url, model, timeout
        self.max_concurrency = max_concurrency
        self.headers = {"Content-Type": "application/json"}
        if api_key is not None:
            self.headers["Authorization"] = f"Bearer {api_key}"
        self.https, self.path = parts.scheme == "https", parts.path.rstrip("/").removesuffix("/v1")
        self.address = parts.netloc.rpartition("@")[2]

    def state(self, text: str = "") -> State:
        """A text to go on from."""
        return State(self, text)

    def requests(self) -> "RemoteRequests":
        return RemoteRequests(self)

    def __repr__(self) -> str:
        return f"Remote({self.url!r})"


class RemoteRequests:
    """Requests that are open at a server; dropping their connections aborts them there."""

    def __init__(self, server: Remote) -> None:
        self._server = server
        self._threads = ThreadPoolExecutor(server.max_concurrency, "ingot-remote")
        self._answers: queue.SimpleQueue[tuple[int, Answer]] = queue.SimpleQueue()
        self._open: set[http.client.HTTPConnection] = set()
        self._lock = Lock()
        self._closed = False

    def start(self, key: int, ask: Ask) -> None:
        """Begin with a request; what is wrong with it is answered, not raised."""
        self._threads.submit(self._work, key, ask)

    def turn(self) -> list[tuple[int, Answer]]:
        """What has been answered, once something has, or after a tenth of a second."""
        answers = []
        with suppress(queue.Empty):
            answers.append(self._answers.get(timeout=_TURN))
            while True:
                answers.append(self._answers.get_nowait())
        return answers

    def __enter__(self) -> "RemoteRequests":
        return self

    def __exit__(self, *_: object) -> None:
        with self._lock:
            self._closed = True
            for connection in self._open:
                with suppress(OSError):
                    if connection.sock is not None:
                        connection.sock.shutdown(socket.SHUT_RDWR)
        self._threads.shutdown(cancel_futures=True)

    def _work(self, key: int, ask: Ask) -> None:
        answer: Answer
        try:
            answer = self._write(ask) if isinstance(ask, Write) else self._score(ask)
        except IngotError as error:
            answer = error
        except Exception as error:  # whoever waits for this answer would wait for ever
            answer = EngineError(f"{self._server.url} answered in another shape: {error!r}.")
        self._answers.put((key, answer))

    def _write(self, ask: Write) -> Written:
        options = dict(ask.options)
        reply = self._post(
            "/v1/completions",
            {"prompt": ask.prompt, **msgspec.to_builtins(options), **self._special(ask)},
        )
        [choice] = reply["choices"]
        return Written(
            choice["text"],
            reply["usage"]["completion_tokens"],
            choice["finish_reason"],
            choice.get("stop_reason"),
            *_counts(reply),
        )

    def _score(self, ask: Score) -> Scored:
        texts = [self._tokenize(ask, ask.prompt + each) for each in ask.choices]
        first = first_scored(self._tokenize(ask, ask.prompt), texts)
        body = {
            "prompt": texts, "max_tokens": 1, "temperature": 0, "prompt_logprobs": 0,
            "prompt_logprobs_start": first,
        }  # fmt: skip
        reply = self._post("/v1/completions", body)
        choices = sorted(reply["choices"], key=lambda choice: int(choice["index"]))
        likelihoods = [
            _likelihood(choice["prompt_logprobs"][first:], ids[first:])
            for choice, ids in zip(choices, texts, strict=True)
        ]
        return Scored(likelihoods, *_counts(reply))

    def _tokenize(self, ask: Ask, text: str) -> list[int]:
        tokens = self._post("/tokenize", {"prompt": text, **self._special(ask)})["tokens"]
        return [int(token) for token in tokens]

    @staticmethod
    def _special(ask: Ask) -> dict[str, bool]:
        if ask.marked is not None:
            raise RequestError(
                "Messages that spell special tokens of the model cannot be sent as a prompt, in "
                "which they would be tokens; leave those out."
            )
        return {"add_special_tokens": False} if ask.chat else {}

    def _post(self, path: str, body: Mapping[str, Any]) -> dict[str, Any]:
        """The reply's JSON; raises IngotError."""
        server = self._server
        kind = http.client.HTTPSConnection if server.https else http.client.HTTPConnection
        connection = kind(server.address, timeout=server.timeout)
        try:
            with self._lock:
                self._open.add(connection)
                if self._closed:
                    raise OSError("the requests were aborted")
            named = {"model": server.model, **body} if server.model else body
            connection.request(
                "POST", server.path + path, msgspec.json.encode(named), server.headers
            )
            response = connection.getresponse()
            return _read(response.status, response.read(), server.url + path)
        except (OSError, http.client.HTTPException) as error:
            reason = str(error) or type(error).__name__
            raise EngineError(f"{server.url} gave no answer: {reason}.") from None
        finally:
            with self._lock:
                self._open.discard(connection)
            connection.close()


def _read(status: int, body: bytes, url: str) -> dict[str, Any]:
    """The answer of a status of 200; what others mean is raised."""
    try:
        reply = msgspec.json.decode(body, type=dict[str, Any])
    except msgspec.DecodeError:
        reply = {}
    if status == 200 and reply:
        return reply
    error = reply.get("error")
    said = error.get("message") if isinstance(error, dict) else None
    message = str(said or f"{url} answered with status {status} and no reason")
    if status in (429, 503):
        raise OverloadedError(message)
    if 400 <= status < 500:
        param = error.get("param") if isinstance(error, dict) else None
        raise RequestError(message, param if isinstance(param, str) else None)
    raise EngineError(message)


def _counts(reply: Mapping[str, Any]) -> tuple[int, int]:
    """Tokens of the prompts, and how many of them were known."""
    usage = reply["usage"]
    details = usage.get("prompt_tokens_details") or {}
    return usage["prompt_tokens"], details.get("cached_tokens") or 0


def _likelihood(
    positions: Sequence[Mapping[str, Mapping[str, Any]]], ids: Sequence[int]
) -> Likelihood:
    found = [at[str(token)]["logprob"] for at, token in zip(positions, ids, strict=True)]
    return Likelihood(sum(found), len(found))
