"""Small trained models, as their authors published them, continue texts as their goldens say."""

import json
from pathlib import Path

import pytest

from models.checkpoints.loading import load
from models.sharding import make_mesh
from tests.parity.paged import PagedRun


@pytest.mark.parametrize("shards", [1, 4])
@pytest.mark.parametrize("name", ["stories260K", "babyllama105", "capp_gpt"])
def test_greedy_continuations_are_the_recorded_ones(
    shared_data: Path, name: str, shards: int
) -> None:
    folder = shared_data / "weights" / name
    golden = json.loads((folder / "golden_greedy.json").read_text())
    tokens = golden["greedy_ids"]  # begins with the prompt
    prompt = len(golden["prompt_ids"])
    run = PagedRun(load(folder, make_mesh(shards), dtype="float32"))
    for way, logits in run.follow(tokens[:-1], prompt).items():
        chosen = tokens[prompt : len(logits) + 1]
        assert logits[prompt - 1 :].argmax(axis=-1)[: len(chosen)].tolist() == chosen, way
