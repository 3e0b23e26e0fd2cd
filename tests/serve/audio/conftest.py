"""A random Whisper, compiled once."""

from collections.abc import Iterator

import pytest

from engine.config import EngineConfig
from engine.core import EngineCore
from tests.serve.audio.speech_model import write_speech_model


@pytest.fixture(scope="package")
def speech(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple]:
    """The folder of the model, and an engine that runs it."""
    folder = tmp_path_factory.mktemp("whisper")
    write_speech_model(folder)
    core = EngineCore(
        EngineConfig(
            model=str(folder), load_format="dummy", seed=3, max_num_seqs=2,
            max_num_batched_tokens=32,
        )
    )  # fmt: skip
    core.step_seconds = 0  # what `InProcessEngine` waits for
    yield folder, core
    core.close()
