"""Every architecture and every positional scaling against what transformers recorded.

Prefill in one piece and in chunks, then each of 64 decode steps, beside a row that is shorter and
one that takes its place: all logits within 1e-4 of their scale, and the same greedy tokens.
`record.py` makes the goldens; PyTorch is not needed here.
"""

import json
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest

from tests.parity import table
from tests.parity.case import DECODE_STEPS
from tests.parity.cases import CASES
from tests.parity.goldens import FOLDER, Golden, read
from tests.parity.paged import WAYS, PagedRun, load_case, write_case

TOLERANCE = 1e-4  # of the logits' scale, which is their deviation

# two KV heads and biases, one KV head, one with windows and sandwich norms, packed QKV, Conv1D
SHARDED = ("qwen2", "llama3_2", "gemma3", "phi4", "gpt2")
# pairs and norms of each head, heads in groups, sums in parallel and biases of the logits, streams,
# two sizes of heads
SHARDED_LAYOUTS = ("cohere_plus", "falcon_40b", "phi", "gemma3n", "gemma4_12b")
# linear biases
SHARDED_SLOPES = ("bloom", "mpt", "baichuan2_13b")
# a shared expert, a norm over all heads, experts with biases and sinks, latents and their index;
# experts that are rows of one tensor, a bias of the choice
SHARDED_MIXTURES = (
    "qwen2_moe",
    "olmoe",
    "gpt_oss",
    "deepseek_v32",
    "granite_moe",
    "ernie4_5_moe",
    "llama4",
)
# attention with a gate and experts are divided, states are not
SHARDED_STATES = ("qwen3_next",)


@pytest.mark.parametrize("name", CASES)
def test_logits_and_tokens_are_those_of_transformers(name: str, tmp_path: Path) -> None:
    check(name, tmp_path, shards=1)


@pytest.mark.parametrize("shards", [2, 4])
@pytest.mark.parametrize("name", SHARDED)
def test_shards_do_not_change_logits_or_tokens(name: str, shards: int, tmp_path: Path) -> None:
    check(name, tmp_path, shards)


@pytest.mark.parametrize("name", SHARDED_LAYOUTS)
def test_heads_of_other_checkpoints_are_divided_too(name: str, tmp_path: Path) -> None:
    check(name, tmp_path, shards=4)


@pytest.mark.parametrize("name", SHARDED_SLOPES)
def test_linear_biases_are_divided_with_their_heads(name: str, tmp_path: Path) -> None:
    check(name, tmp_path, shards=3)


@pytest.mark.parametrize("name", SHARDED_MIXTURES + SHARDED_STATES)
def test_experts_on_other_devices_do_not_change_logits_or_tokens(name: str, tmp_path: Path) -> None:
    check(name, tmp_path, shards=2)


def check(name: str, folder: Path, shards: int) -> None:
    """Run the case on `shards` devices and compare all of its rows with the golden."""
    case, golden = CASES[name], read(name)
    write_case(folder, case, golden)
    run = PagedRun(load_case(folder, case, shards))
    compare(golden, run.follow(golden.tokens, case.prompt_length))


def compare(golden: Golden, answers: Mapping[str, np.ndarray]) -> None:
    """All logits [n, V] of the first n tokens are close, and the best ones are the golden's."""
    assert set(answers) == set(WAYS)
    first = len(golden.tokens) - DECODE_STEPS
    for way, logits in answers.items():
        distance = np.abs(logits - golden.logits[: len(logits)]).max(axis=-1) / golden.scale
        worst = int(np.nanargmax(np.where(np.isnan(distance), np.inf, distance)))
        assert distance[worst] <= TOLERANCE, f"{way}: token {worst}, {distance[worst]:.1e}"
        chosen = golden.tokens[first : len(logits) + 1]
        assert logits[first - 1 :].argmax(axis=-1)[: len(chosen)].tolist() == chosen, way


def test_each_case_has_its_golden_and_nothing_else_lies_there() -> None:
    assert {path.stem for path in FOLDER.iterdir()} == set(CASES)
    for name, case in CASES.items():
        golden = read(name)
        assert golden.config == json.loads(json.dumps(case.config))
        assert golden.tokens[: case.prompt_length] == case.prompt()
        assert len(golden.tokens) == case.prompt_length + DECODE_STEPS


def test_the_goldens_stay_small() -> None:
    assert sum(path.stat().st_size for path in FOLDER.iterdir()) < 3_300_000


def test_the_readme_has_every_architecture() -> None:
    text = table.README.read_text()
    assert table.rewrite(text, table.readme_table()) == text
