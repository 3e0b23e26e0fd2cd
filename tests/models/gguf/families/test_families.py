"""Each family: a GGUF file means the same model as the folder from which it was converted."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from models.checkpoints.loading import LoadedModel, load
from models.sharding import make_mesh
from tests.models.gguf.files import converted, metadata, write_gguf
from tests.parity.cases import CASES
from tests.parity.goldens import read
from tests.parity.paged import PagedRun, load_case, write_case
from tests.parity.weights import tensor

# the same parameters and the same ModelConfig, but for `architecture`
EQUAL = {
    "llama2": "llama", "llama3": "llama", "llama_biases": "llama", "rope_linear": "llama",
    "qwen2": "qwen2", "qwen2_5": "qwen2", "qwen3": "qwen3", "qwen3_tied": "qwen3",
    "rope_yarn": "qwen3", "phi3": "phi3", "phi4": "phi3", "gemma": "gemma", "gpt2": "gpt2",
    "mixtral": "llama", "qwen3_moe": "qwen3moe", "gpt_oss": "gpt-oss",
}  # fmt: skip
# of which a file says the same in other numbers: divisors of frequencies
LOGITS = {"llama3_1": "llama", "llama3_2": "llama", "phi4_mini": "phi3"}


def convert(name: str, family: str, folder: Path) -> Path:
    case, golden = CASES[name], read(name)
    tensors = {name: tensor(case.seed, name, shape, case.spread) for name, shape in golden.tensors}
    keys = metadata(family, case.config)
    return write_gguf(folder / "a.gguf", family, keys, converted(family, case.config, tensors))


def load_gguf(path: Path, context: int | None = None, shards: int = 1) -> LoadedModel:
    return load(path, make_mesh(shards), dtype="float32", max_model_len=context)


@pytest.mark.parametrize("name", EQUAL)
def test_a_converted_model_has_the_same_parameters(name: str, tmp_path: Path) -> None:
    case = CASES[name]
    write_case(tmp_path / "folder", case, read(name))
    expected = load_case(tmp_path / "folder", case)
    found = load_gguf(convert(name, EQUAL[name], tmp_path), case.context)
    assert found.config == expected.config
    assert found.eos_token_ids == expected.eos_token_ids
    compare_leaves(found, expected)


def compare_leaves(found: LoadedModel, expected: LoadedModel) -> None:
    """All equal; of norms whose model adds 1 the sums, which is what it computes with."""
    offset = 1.0 if expected.config.norm_offset else 0.0
    for leaf, ours, theirs in zip(found.layout.leaves, found.leaves, expected.leaves, strict=True):
        added = np.float32(offset if "norm" in leaf.paths[0] else 0)
        np.testing.assert_array_equal(np.asarray(ours) + added, np.asarray(theirs) + added)


@pytest.mark.parametrize("name", LOGITS)
def test_a_converted_model_has_the_same_logits(name: str, tmp_path: Path) -> None:
    golden, case = read(name), CASES[name]
    run = PagedRun(load_gguf(convert(name, LOGITS[name], tmp_path)))
    prompt = golden.tokens[: case.prompt_length]
    logits = run.follow(prompt, len(prompt))["one piece"]
    distance = np.abs(logits - golden.logits[: case.prompt_length]).max() / golden.scale
    assert distance < 1e-4


@pytest.mark.parametrize("name", ["gemma2", "gemma3"])
def test_scores_are_scaled_by_heads_which_no_key_says(name: str, tmp_path: Path) -> None:
    write_case(tmp_path / "folder", CASES[name], read(name))
    expected = load_case(tmp_path / "folder", CASES[name])
    found = load_gguf(convert(name, name, tmp_path))
    assert found.config == replace(expected.config, attention_scale=16**-0.5)  # the case has 20
    compare_leaves(found, expected)


def test_shards_read_whole_heads(tmp_path: Path) -> None:
    case = CASES["llama3"]
    write_case(tmp_path / "folder", case, read("llama3"))
    expected = load_case(tmp_path / "folder", case, shards=2)
    found = load_gguf(convert("llama3", "llama", tmp_path), shards=2)
    for ours, theirs in zip(found.leaves, expected.leaves, strict=True):
        np.testing.assert_array_equal(np.asarray(ours), np.asarray(theirs))
