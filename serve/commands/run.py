"""`ingot serve` before the event loop starts: what can be wrong at once, and what is printed."""

import asyncio
from pathlib import Path

import msgspec
from rich.console import Console
from rich.markup import escape

from engine.config import EngineConfig
from engine.messages import ModelInfo
from engine.model_files import located, tokenizer_folder
from serve.commands.summary import print_summary
from serve.engine_process import ENGINE_COMMAND
from serve.http.hosts import allowed_hosts
from serve.http.listener import bind, check_certificate
from serve.launcher import Launcher
from serve.model import load_served_model, model_folder
from serve.operations.logs import log_failure, set_up_logs
from serve.operations.tracing import make_traces
from serve.settings import ServerSettings
from serve.succession import predecessor


def run_server(
    config: EngineConfig,
    settings: ServerSettings,
    command: tuple[str, ...] = ENGINE_COMMAND,
    console: Console | None = None,
) -> int:
    """Serve until a signal; returns the exit code. Raises IngotError for what is wrong at once."""
    out, err = console or Console(), Console(stderr=True, soft_wrap=True)
    name, config = config.model, located(config)
    folder: Path = model_folder(config.model)
    model = load_served_model(folder, name, settings, tokenizer_folder(config))
    check_certificate(settings)
    recent_log = set_up_logs(settings.logs, requests=settings.enable_log_requests)
    endpoint = settings.otlp_traces_endpoint
    traces = make_traces(endpoint, model.names[0]) if endpoint else None
    before = predecessor()
    listener = before.listener if before else bind(settings)
    settings = msgspec.structs.replace(settings, allowed_hosts=allowed_hosts(settings))

    def ready(info: ModelInfo, url: str) -> None:
        print_summary(out, info, model, settings, url)

    def failed(sentence: str) -> None:
        log_failure(sentence)
        if settings.log_format == "text":
            err.print(f"[bold red]error:[/] {escape(sentence)}", highlight=False)

    async def serve() -> int:
        launcher = Launcher(
            msgspec.structs.replace(config, model=str(folder)),
            settings,
            model,
            listener,
            before=before,
            command=command,
            recent_log=recent_log,
            traces=traces,
            on_ready=ready,
            on_failure=failed,
        )
        return await launcher.run()

    out.print(f"[dim]loading and compiling {escape(name)} ...[/]")
    try:
        return asyncio.run(serve())
    finally:
        if traces is not None:
            traces.close()
