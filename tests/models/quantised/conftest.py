"""A small Llama in float32, which several tests quantise in ways of their own."""

from pathlib import Path

import pytest

from tests.models.quantised import small_llama


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return small_llama.write(tmp_path_factory.mktemp("float"), small_llama.tensors())
