"""`ingot serve` from its settings to its exit code: the engine, the HTTP server, and their end.

    bind the port ▸ listen, /health says "loading" ▸ engine ready ▸ serve ▸ drain ▸ exit

Exit codes: 0 after a signal, 2 when settings or the model are wrong, 1 when the engine failed.
"""

import asyncio
import signal
import socket
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

import uvicorn

from engine.config import EngineConfig
from engine.messages import ModelInfo
from engine.output_processor import OutputProcessor
from serve.app import build_app
from serve.engine_client import EngineClient, StartError
from serve.engine_process import EngineProcess
from serve.gpus import find_gpus
from serve.grammars import GrammarCompiler
from serve.http_protocol import HardenedProtocol
from serve.listener import url_of
from serve.metrics import Metrics
from serve.model import ServedModel
from serve.service import Service
from serve.settings import ServerSettings
from serve.tracing import Traces

FLUSH_SECONDS = 5  # for responses that are complete but not yet sent when the server leaves
LAST_WORDS_SECONDS = 1.0  # a dead engine's requests get their errors, and /health says 503
MAX_HEADER_BYTES = 64 * 1024

OnReady = Callable[[ModelInfo, str], None]


class Server(uvicorn.Server):
    """uvicorn's server, with signals that drain first and kill second."""

    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self.leaving = asyncio.Event()
        self.forced = asyncio.Event()

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        loop = asyncio.get_running_loop()
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(number, self._on_signal)
        try:
            yield
        finally:
            for number in (signal.SIGINT, signal.SIGTERM):
                loop.remove_signal_handler(number)

    def leave_now(self) -> None:
        """Cut every connection that is still open."""
        self.config.timeout_graceful_shutdown = 0
        self.force_exit = self.should_exit = True
        self.forced.set()

    def _on_signal(self) -> None:
        if self.leaving.is_set():
            self.leave_now()
        self.leaving.set()


class Launcher:
    """One server, from start to end."""

    def __init__(
        self,
        engine_config: EngineConfig,
        settings: ServerSettings,
        model: ServedModel,
        listener: socket.socket,
        *,
        command: tuple[str, ...],
        recent_log: Sequence[str],
        traces: Traces | None,
        on_ready: OnReady,
        on_failure: Callable[[str], None],
    ) -> None:
        self._engine_config = engine_config
        self._command = command
        self._settings = settings
        self._listener = listener
        self._on_ready = on_ready
        self._on_failure = on_failure
        metrics = Metrics(model.names[0], find_gpus())
        self._client = EngineClient(
            OutputProcessor(model.tokenizer), metrics, settings.max_num_queued_reqs, traces
        )
        self._grammars = GrammarCompiler(Path(engine_config.model))
        service = Service(
            settings, engine_config, model, self._client, metrics, self._grammars, recent_log,
            traces,
        )  # fmt: skip
        self._server = Server(
            uvicorn.Config(
                build_app(service),
                http=HardenedProtocol,
                ws="none",
                lifespan="off",
                log_level=settings.uvicorn_log_level,
                server_header=False,
                ssl_certfile=settings.ssl_certfile,
                ssl_keyfile=settings.ssl_keyfile,
                proxy_headers=False,
                h11_max_incomplete_event_size=MAX_HEADER_BYTES,
                timeout_graceful_shutdown=FLUSH_SECONDS,
            )
        )

    async def run(self) -> int:
        """Serve until a signal or a failure; returns the exit code."""
        http = asyncio.create_task(self._server.serve(sockets=[self._listener]))
        engine = asyncio.create_task(self._run_engine())
        leaving = asyncio.create_task(self._server.leaving.wait())
        try:
            await asyncio.wait({engine, leaving, http}, return_when=asyncio.FIRST_COMPLETED)
            if leaving.done():
                await self._drain(engine)
        finally:
            self._server.should_exit = True
            leaving.cancel()
            engine.cancel()
            await asyncio.gather(leaving, engine, return_exceptions=True)
            await http
            await self._grammars.close()
        return 0 if engine.cancelled() else engine.result()

    async def _run_engine(self) -> int:
        """The engine's life, and a second one if it dies at work; the exit code after that."""
        for is_last in (False, True):
            code, reason = await self._live()
            if code is not None or is_last:
                self._on_failure(reason)
                break
            self._on_failure(f"{reason} It is started again; a second failure ends the server.")
            self._client.restart()
        await asyncio.sleep(LAST_WORDS_SECONDS)
        return 1 if code is None else code

    async def _live(self) -> tuple[int | None, str]:
        """Start the engine and pass its reports on until it ends, which it should not do.

        Returns why it ended, and the exit code if it never began.
        """
        process = await EngineProcess.start(self._engine_config, self._command)
        try:
            info = await self._client.connect(process)
            self._on_ready(info, url_of(self._listener, self._settings))
            return None, await self._client.pump()
        except StartError as error:
            return 2 if error.user_error else 1, str(error)
        finally:
            await process.stop()

    async def _drain(self, engine: asyncio.Task[int]) -> None:
        """Let requests in flight finish, as long as the settings allow and nobody signals again."""
        self._client.drain()
        idle = asyncio.create_task(self._client.wait_until_idle())
        forced = asyncio.create_task(self._server.forced.wait())
        with suppress(TimeoutError):
            async with asyncio.timeout(self._settings.shutdown_timeout):
                await asyncio.wait({idle, forced, engine}, return_when=asyncio.FIRST_COMPLETED)
        idle.cancel()
        forced.cancel()
        self._client.fail_all("The server is shutting down.")
