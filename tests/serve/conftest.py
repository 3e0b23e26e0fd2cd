"""A model folder without weights, and an application over a scripted core in the same process."""

import asyncio
import contextlib
import json
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers

from engine.config import EngineConfig
from engine.output_processor import OutputProcessor
from serve.adapters.names import AdapterNames
from serve.admission import Admission
from serve.app import build_app
from serve.engine_client import EngineClient
from serve.generation.grammars import GrammarCompiler
from serve.model import load_served_model
from serve.operations.metrics import Metrics
from serve.operations.tracing import Traces
from serve.service import Service
from serve.settings import ServerSettings
from tests.fake_engine import FakeCore
from tests.serve.served import InProcessEngine, Serve, Served

TEMPLATE = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


@pytest.fixture(scope="session")
def model_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Ids 0..255 are bytes in the order of byte-level BPE, 256 and 257 begin and end a turn."""
    folder = tmp_path_factory.mktemp("model")
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokenizer = Tokenizer(models.BPE({letter: i for i, letter in enumerate(alphabet)}, []))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens([AddedToken("<|im_start|>"), AddedToken("<|im_end|>")])
    tokenizer.save(str(folder / "tokenizer.json"))
    write(folder / "tokenizer_config.json", {"eos_token": "<|im_end|>", "chat_template": TEMPLATE})
    write(folder / "config.json", {"architectures": ["FakeForCausalLM"]})
    write(folder / "generation_config.json", {"temperature": 0.5, "top_p": 0.9, "eos_token_id": 1})
    return folder


def write(path: Path, value: object) -> None:
    path.write_text(json.dumps(value))


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture
def serve(model_folder: Path) -> Serve:
    """`async with serve(...) as served`; keywords are settings of the server or of the engine."""

    @asynccontextmanager
    async def run(
        settings: ServerSettings | None = None,
        config: EngineConfig | None = None,
        folder: Path = model_folder,
        traces: Traces | None = None,
    ) -> AsyncIterator[Served]:
        before = asyncio.all_tasks()
        settings, config = settings or ServerSettings(), config or EngineConfig()
        model = load_served_model(folder, "tiny", settings)
        metrics = Metrics(model.names[0])
        metrics.engine_started(os.getpid())
        core = FakeCore(config)
        client = EngineClient(
            OutputProcessor(model.tokenizer),
            metrics,
            Admission(metrics, settings.max_num_queued_reqs, settings.max_num_queued_tokens),
            traces,
        )
        await client.connect(InProcessEngine(core))
        pump = asyncio.create_task(client.pump())
        grammars = GrammarCompiler(folder)
        adapters = AdapterNames(config.lora_modules, model.names)
        service = Service(
            settings, config, model, client, metrics, grammars, traces=traces, adapters=adapters
        )
        served = Served(build_app(service), core, client)
        async with served.http:
            yield served
        await grammars.close()
        pump.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await pump
        others = asyncio.all_tasks() - before
        assert not others, f"tasks were left behind: {others}"

    return run
