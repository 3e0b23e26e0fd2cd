"""`ingot run-batch`: a JSONL file of requests, answered as fast as the engine can, and no server.

    {"custom_id": "1", "method": "POST", "url": "/v1/chat/completions", "body": {...}}
    {"custom_id": "2", "url": "/v1/audio/transcriptions", "body": {"file_url": "data:...", ...}}
    {"id": "...", "custom_id": "1", "response": {"status_code": 200, "request_id": "...",
                                                 "body": {...}}, "error": null}

OpenAI's format for batches. Requests go through the same application as those of a server. Answers
are written as they come, so their order is not that of the requests.
"""

import asyncio
import logging
from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, TextIO
from uuid import uuid4

import msgspec
from starlette.datastructures import Headers
from starlette.types import ASGIApp

from engine.config import EngineConfig
from engine.errors import ConfigError, RequestError
from engine.messages import ModelInfo
from engine.model_files import located, tokenizer_folder
from engine.output_processor import OutputProcessor
from serve.adapters.names import AdapterNames
from serve.app import build_app
from serve.audio.batch import form_of
from serve.audio.form import AUDIO_PATHS
from serve.commands.status import status
from serve.engine_client import EngineClient
from serve.engine_life import work
from serve.engine_process import ENGINE_COMMAND, EngineProcess
from serve.errors import error_body
from serve.generation.grammars import GrammarCompiler
from serve.model import load_served_model, model_folder
from serve.ollama.routes import LINES
from serve.operations.metrics import Metrics
from serve.paths import OPERATIONS
from serve.service import Service
from serve.settings import ServerSettings

logger = logging.getLogger("ingot.serve")

_URLS = frozenset(operation.path for operation in OPERATIONS)
_JSON, _STREAMS = "application/json", ("text/event-stream", LINES)
_BYTES = "application/octet-stream"
_WAITING = 2  # requests in the engine for each of its rows, so that none is ever free


class BatchRequest(msgspec.Struct, forbid_unknown_fields=True):
    """One line of the input."""

    custom_id: str
    url: str
    body: msgspec.Raw
    method: str = "POST"


class BatchResponse(msgspec.Struct):
    """What the server would have said."""

    status_code: int
    request_id: str
    body: msgspec.Raw


class BatchOutput(msgspec.Struct):
    """One line of the output; `error` is about a line that is no request."""

    id: str
    custom_id: str | None
    response: BatchResponse | None
    error: dict[str, str] | None = None


async def run_batch(
    lines: Iterable[str],
    output: TextIO,
    app: ASGIApp,
    *,
    concurrency: int,
    tell: Callable[[str], None] = lambda text: None,
) -> tuple[int, int]:
    """Answer each line; returns how many were answered well, and how many were not.

    `tell` is told of both as they grow.
    """
    done = failed = 0
    running: set[asyncio.Task[BatchOutput]] = set()
    requests = _requests(lines)
    while True:
        while len(running) < concurrency and (number_line := next(requests, None)):
            running.add(asyncio.create_task(_answer(app, *number_line)))
        if not running:
            return done, failed
        finished, running = await asyncio.wait(running, return_when=asyncio.FIRST_COMPLETED)
        for task in finished:
            answer = task.result()
            good = answer.response is not None and answer.response.status_code == 200
            done, failed = done + good, failed + (not good)
            output.write(msgspec.json.encode(answer).decode() + "\n")
        output.flush()
        tell(f"{done} requests answered, {failed} failed ...")


def _requests(lines: Iterable[str]) -> Iterator[tuple[int, str]]:
    return ((number, line) for number, line in enumerate(lines, 1) if line.strip())


async def _answer(app: ASGIApp, number: int, line: str) -> BatchOutput:
    output = BatchOutput(f"batch_req_{uuid4().hex}", None, None)
    try:
        request = msgspec.json.decode(line, type=BatchRequest)
    except (msgspec.DecodeError, UnicodeError, RecursionError) as error:
        output.error = _error(f"Line {number} is no request: {str(error).replace('`', '')[:200]}.")
        return output
    output.custom_id = request.custom_id
    if request.method != "POST" or request.url not in _URLS:
        output.error = _error(
            f"Line {number}: there is no {request.method[:10]} {request.url[:100]}; "
            f"use POST with one of {', '.join(sorted(_URLS))}."
        )
        return output
    media, body = _JSON, bytes(request.body)
    if request.url in AUDIO_PATHS:
        try:
            media, body = form_of(body)
        except RequestError as error:
            output.response = _refusal(output.id, error)
            return output
    status, kind, body = await call(app, request.url, body, media)
    if kind.startswith(_STREAMS):
        output.error = _error(f"Line {number}: batches cannot be streamed; leave out stream.")
    elif kind.startswith(_BYTES):
        output.error = _error(f"Line {number}: lines hold no bytes; use encoding_format base64.")
    else:
        shown = body if kind.startswith(_JSON) else msgspec.json.encode(body.decode())
        output.response = BatchResponse(status, output.id, msgspec.Raw(shown))
    return output


def _refusal(request_id: str, error: RequestError) -> BatchResponse:
    """What the server would have said of a body that it cannot be sent."""
    status, body = error_body(error)
    return BatchResponse(status, request_id, msgspec.Raw(msgspec.json.encode(body)))


def _error(message: str) -> dict[str, str]:
    return {"code": "invalid_request", "message": message}


async def call(app: ASGIApp, path: str, body: bytes, media: str = _JSON) -> tuple[int, str, bytes]:
    """POST `body` to an application in this process: the status, and the type and the whole of the
    answer."""
    sent = asyncio.Event()
    status, kind, answer = 500, _JSON, bytearray()

    async def receive() -> dict[str, Any]:
        if not sent.is_set():
            sent.set()
            return {"type": "http.request", "body": body, "more_body": False}
        await asyncio.Event().wait()  # nobody leaves
        return {}

    async def send(message: Any) -> None:
        nonlocal status, kind
        if message["type"] == "http.response.start":
            status = message["status"]
            kind = Headers(raw=message["headers"]).get("content-type", "")
        else:
            answer.extend(message.get("body", b""))

    headers = [(b"content-type", media.encode()), (b"host", b"localhost")]
    scope = {
        "type": "http", "asgi": {"version": "3.0"}, "http_version": "1.1", "method": "POST",
        "scheme": "http", "path": path, "raw_path": path.encode(), "query_string": b"",
        "root_path": "", "headers": headers, "client": None, "server": None,
    }  # fmt: skip
    try:
        await app(scope, receive, send)
    except Exception:  # after the application has answered that it failed
        logger.exception("POST %s failed.", path)
    return status, kind, bytes(answer)


@asynccontextmanager
async def running_app(
    config: EngineConfig, settings: ServerSettings, command: tuple[str, ...]
) -> AsyncIterator[tuple[ASGIApp, int]]:
    """The application over an engine of its own, and the engine's rows; raises StartError."""
    name, config = config.model, located(config)
    folder = model_folder(config.model)
    model = load_served_model(folder, name, settings, tokenizer_folder(config))
    metrics = Metrics(model.names[0])
    client = EngineClient(OutputProcessor(model.tokenizer), metrics)
    grammars = GrammarCompiler(tokenizer_folder(config))
    process = await EngineProcess.start(msgspec.structs.replace(config, model=str(folder)), command)
    try:
        info = await client.connect(process)
        pump = asyncio.create_task(_pump(client, process, info, settings.watchdog_timeout))
        adapters = AdapterNames(config.lora_modules, model.names)
        service = Service(settings, config, model, client, metrics, grammars, adapters=adapters)
        yield build_app(service), info.max_num_seqs
        pump.cancel()
        await asyncio.gather(pump, return_exceptions=True)
    finally:
        await grammars.close()
        await process.stop()


async def _pump(
    client: EngineClient, process: EngineProcess, info: ModelInfo, watchdog_timeout: float
) -> None:
    """Let the engine work, and say why it ended, which it should not do."""
    logger.error("%s", await work(client, process, info, watchdog_timeout))


def _other_file(target: Path, source: Path) -> Path:
    if target.exists() and target.samefile(source):
        raise ConfigError(f"Answers written to {target} would replace the requests; name another.")
    return target


def run_batch_file(
    config: EngineConfig,
    settings: ServerSettings,
    source: Path,
    target: Path,
    command: tuple[str, ...] = ENGINE_COMMAND,
) -> tuple[int, int]:
    """Answer the requests of a file; raises ConfigError for files that cannot be used."""

    async def run(tell: Callable[[str], None]) -> tuple[int, int]:
        async with running_app(config, settings, command) as (app, rows):
            return await run_batch(lines, output, app, concurrency=_WAITING * rows, tell=tell)

    try:
        with (
            source.open(encoding="utf-8", errors="replace") as lines,
            _other_file(target, source).open("w", encoding="utf-8") as output,
            status(f"loading and compiling {config.model} ...") as tell,
        ):
            return asyncio.run(run(tell))
    except OSError as error:
        raise ConfigError(
            f"Cannot use the file {error.filename}: {error.strerror or error}."
        ) from None
