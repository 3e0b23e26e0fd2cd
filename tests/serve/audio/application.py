"""The application over the random Whisper."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

from starlette.applications import Starlette

from engine.output_processor import OutputProcessor
from serve.app import build_app
from serve.engine_client import EngineClient
from serve.generation.grammars import GrammarCompiler
from serve.model import load_served_model
from serve.operations.metrics import Metrics
from serve.service import Service
from serve.settings import ServerSettings
from tests.serve.served import InProcessEngine

SETTINGS = ServerSettings(max_audio_clip_filesize_mb=1)


@asynccontextmanager
async def application(
    speech: tuple, settings: ServerSettings = SETTINGS
) -> AsyncIterator[Starlette]:
    folder, core = speech
    model = load_served_model(folder, "whisper", settings)
    metrics = Metrics("whisper")
    client = EngineClient(OutputProcessor(model.tokenizer), metrics)
    await client.connect(InProcessEngine(core))
    pump = asyncio.create_task(client.pump())
    grammars = GrammarCompiler(folder)
    yield build_app(Service(settings, core.config, model, client, metrics, grammars))
    await grammars.close()
    pump.cancel()
    with suppress(asyncio.CancelledError):
        await pump
