"""`ingot serve` from its settings to its exit code: the engine, the HTTP server, and their end.

    bind the port ▸ listen, /health says "loading" ▸ engine ready ▸ serve ▸ drain ▸ exit

SIGTERM and SIGINT drain, and a second of them ends what is left at once, the engine too; SIGUSR2
drains once a successor serves (`succession`), and until then, or if it does not come to that, this
server goes on. A successor accepts connections when it is ready.

Exit codes: 0 after a signal, 2 when settings or the model are wrong, 1 when the engine failed.
"""

import asyncio
import logging
import signal
import socket
from collections.abc import Callable, Coroutine, Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Any

import uvicorn

from engine.collector import keep_what_is_here
from engine.config import EngineConfig
from engine.messages import ModelInfo
from engine.model_files import tokenizer_folder
from engine.output_processor import OutputProcessor
from serve.adapters.names import AdapterNames
from serve.admission import Admission
from serve.app import build_app
from serve.engine_client import EngineClient
from serve.engine_life import EngineLife
from serve.engine_process import EngineProcess
from serve.generation.grammars import GrammarCompiler
from serve.http.http_protocol import HardenedProtocol
from serve.http.listener import remover, url_of
from serve.http.websockets import websocket_settings
from serve.model import ServedModel
from serve.operations.gpus import find_gpus
from serve.operations.metrics import Metrics
from serve.operations.tracing import Traces
from serve.service import Service
from serve.settings import ServerSettings
from serve.succession import Predecessor, start_successor

FLUSH_SECONDS = 5.0  # for responses that are complete but not yet sent when the server leaves
_FORCED_SECONDS = 0.2  # the same for one that was told twice
LAST_WORDS_SECONDS = 1.0  # a dead engine's requests get their errors, and /health says 503
_LOOK_SECONDS = 0.1  # between two looks at connections that are to end

logger = logging.getLogger("ingot.serve")
OnReady = Callable[[ModelInfo, str], None]


class Server(uvicorn.Server):
    """uvicorn's server, with signals that drain first and kill second.

    What is still open `flush_seconds` after it began to end, it cuts without a word.
    """

    def __init__(self, config: uvicorn.Config, flush_seconds: float = FLUSH_SECONDS) -> None:
        super().__init__(config)
        self._flush_seconds = flush_seconds
        self.leaving = asyncio.Event()
        self.forced = asyncio.Event()

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield  # `hearing` does, for longer than uvicorn serves

    @contextmanager
    def hearing(self) -> Iterator[None]:
        """While this lasts, signals end the server; also one that is about to end."""
        loop = asyncio.get_running_loop()
        for number, hear in self._signals().items():
            loop.add_signal_handler(number, hear)
        try:
            yield
        finally:
            for number in self._signals():
                loop.remove_signal_handler(number)

    def _signals(self) -> dict[signal.Signals, Callable[[], None]]:
        return {signal.SIGINT: self._on_signal, signal.SIGTERM: self._on_signal}

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        cutting = asyncio.create_task(self._cut_what_lasts())
        await super().shutdown(sockets)
        cutting.cancel()
        if self.server_state.tasks:  # they hear that their clients are gone
            await asyncio.wait(self.server_state.tasks, timeout=LAST_WORDS_SECONDS)

    def _on_signal(self) -> None:
        if self.leaving.is_set():
            self.should_exit = True
            self.forced.set()
        self.leaving.set()

    async def _cut_what_lasts(self) -> None:
        """uvicorn's own limit would cancel tasks, which do their work, and not the connections."""
        with suppress(TimeoutError):
            async with asyncio.timeout(self._flush_seconds):
                await self.forced.wait()
        await asyncio.sleep(_FORCED_SECONDS)
        self.force_exit = True
        for connection in list(self.server_state.connections):
            connection.transport.abort()


class RenewableServer(Server):
    """One in whose place another can step; SIGUSR2 asks for that."""

    def __init__(self, config: uvicorn.Config, on_started: Callable[[], None]) -> None:
        super().__init__(config)
        self._on_started = on_started
        self.renewing = asyncio.Event()

    def _signals(self) -> dict[signal.Signals, Callable[[], None]]:
        return {**super()._signals(), signal.SIGUSR2: self.renewing.set}

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self._on_started()

    async def retire(self) -> None:
        """Accept no connection any more; return when those there are have ended.

        Each does with its next answer, which says so, or when it has been idle for some seconds: a
        connection that is closed under a client which is about to use it would be an error to it.
        """
        for server in self.servers:
            server.close()
        for connection in list(self.server_state.connections):
            if not isinstance(connection, HardenedProtocol):  # a WebSocket, which would go on
                connection.shutdown()  # and hears that it may connect again
        self.config.encoded_headers.append((b"connection", b"close"))  # copied every second
        self.server_state.default_headers += [(b"connection", b"close")]
        while self.server_state.connections:
            await asyncio.sleep(_LOOK_SECONDS)


class Launcher:
    """One server, from start to end."""

    def __init__(
        self,
        engine_config: EngineConfig,
        settings: ServerSettings,
        model: ServedModel,
        listener: socket.socket,
        *,
        before: Predecessor | None,
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
        self._remove_path = remover(settings)
        self._before = before
        self._ready = asyncio.Event()
        self._on_ready = on_ready
        self._on_failure = on_failure
        self._metrics = metrics = Metrics(model.names[0], find_gpus())
        self._client = EngineClient(
            OutputProcessor(model.tokenizer),
            metrics,
            Admission(metrics, settings.max_num_queued_reqs, settings.max_num_queued_tokens),
            traces,
        )
        self._grammars = GrammarCompiler(tokenizer_folder(engine_config))
        adapters = AdapterNames(engine_config.lora_modules, model.names)
        service = Service(
            settings, engine_config, model, self._client, metrics, self._grammars, recent_log,
            traces, adapters,
        )  # fmt: skip
        self._pause = service.pause
        self._server = RenewableServer(
            uvicorn.Config(
                build_app(service),
                http=HardenedProtocol,
                **websocket_settings(),
                lifespan="off",
                log_config=None,  # `serve.operations.logs` has set it up
                log_level=settings.uvicorn_log_level,
                server_header=False,
                ssl_certfile=settings.ssl_certfile,
                ssl_keyfile=settings.ssl_keyfile,
                proxy_headers=False,
            ),
            on_started=before.relieve if before else lambda: None,
        )

    async def run(self) -> int:
        """Serve until a signal or a failure; returns the exit code."""
        with self._server.hearing():
            return await self._run()

    async def _run(self) -> int:
        http = asyncio.create_task(self._serve_http())
        engine = asyncio.create_task(self._run_engine())
        leaving = asyncio.create_task(self._server.leaving.wait())
        renewed = asyncio.create_task(self._until_renewed())
        try:
            ends = {engine, leaving, renewed, http}
            await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
            if leaving.done():
                self._client.drain()
                self._pause.dissolve()
                await self._leave(self._client.wait_until_idle(), engine)
            elif renewed.done():
                self._server.leaving.set()  # a signal from here on is the second
                self._end_pause()
                await self._leave(self._server.retire(), engine)
        finally:
            self._server.should_exit = True
            if not self._server.started:
                http.cancel()
            for task in (leaving, renewed, engine):
                task.cancel()
            await asyncio.gather(leaving, renewed, engine, http, return_exceptions=True)
            if renewed.cancelled():  # else the path is the successor's
                self._remove_path()
            await self._grammars.close()
        if not http.cancelled():
            http.result()
        return 0 if engine.cancelled() else engine.result()

    def _end_pause(self) -> None:
        """Of a server that its operator does not reach any more: all go on, or end if it sleeps."""
        if not self._client.resident:
            self._client.drain()
        self._client.thaw()
        self._pause.dissolve()

    async def _serve_http(self) -> None:
        if self._before is not None:
            await self._ready.wait()
        await self._server.serve(sockets=[self._listener])

    async def _until_renewed(self) -> None:
        """Return once another server has taken this one's place."""
        while True:
            await self._server.renewing.wait()
            try:
                if await start_successor(self._listener) is not None:
                    return
            except Exception:  # whatever it is: nobody has taken this server's place
                logger.exception("No server could be started in the place of this one.")
            self._on_failure("The new server did not become ready; this one goes on.")
            self._server.renewing.clear()

    async def _run_engine(self) -> int:
        """Engines until one has failed for good; the exit code after its last words."""
        config, command, logs = self._engine_config, self._command, self._settings.logs
        life = EngineLife(
            lambda: EngineProcess.start(config, command, logs),
            self._client,
            self._metrics,
            watchdog_timeout=self._settings.watchdog_timeout,
            on_ready=self._serving,
            on_failure=self._on_failure,
            forced=self._server.forced,
        )
        code = await life.run()
        await asyncio.sleep(LAST_WORDS_SECONDS)
        return code

    def _serving(self, info: ModelInfo) -> None:
        """An engine is ready."""
        keep_what_is_here()
        self._on_ready(info, url_of(self._listener, self._settings))
        self._ready.set()

    async def _leave(self, done: Coroutine[Any, Any, None], engine: asyncio.Task[int]) -> None:
        """Wait until all is `done`, as long as the settings allow and nobody signals again."""
        idle = asyncio.create_task(self._finish(done))
        forced = asyncio.create_task(self._server.forced.wait())
        with suppress(TimeoutError):
            async with asyncio.timeout(self._settings.shutdown_timeout):
                await asyncio.wait({idle, forced, engine}, return_when=asyncio.FIRST_COMPLETED)
        idle.cancel()
        forced.cancel()
        self._client.drain()
        self._client.fail_all("The server is shutting down.")

    async def _finish(self, done: Coroutine[Any, Any, None]) -> None:
        """A trace is of all that was `done`."""
        await done
        if self._engine_config.profiler_config is not None and self._ready.is_set():
            await self._client.end_profile()
