"""`ingot check`: what it shows, and its exit code."""

import json
import re
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from rich.console import Console

from engine.check import reference
from engine.check.trace import Trace
from serve import cli
from serve.commands.check import _Asked, _compare
from tests.engine.conftest import few_programs
from tests.models.checkpoints.safetensors_files import write_checkpoint
from tests.parity.cases import CASES
from tests.parity.encdec_cases import CASES as WITH_ENCODER
from tests.parity.encdec_cases import FOLDER
from tests.parity.goldens import read
from tests.parity.paged import write_case
from tests.parity.weights import tensor


def check(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> int:
    """The exit code of the command."""
    monkeypatch.setattr(sys, "argv", ["ingot", "check", *arguments])
    monkeypatch.setenv("COLUMNS", "200")
    with pytest.raises(SystemExit) as exit:
        cli.main()
    return int(exit.value.code or 0)


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    few_programs(monkeypatch)


@pytest.fixture
def alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reference, "find_spec", lambda name: None)


def test_without_transformers_a_model_is_checked_by_itself(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], alone: None
) -> None:
    flags = ("--max-tokens", "4", "--max-model-len", "64")
    assert check(monkeypatch, "demo", *flags) == 0
    shown = capfd.readouterr().out
    assert len(re.findall(r"(activations|token ids|chat template|greedy) +ok ", shown)) == 4
    assert "pip install 'ingot[parity]'" in shown


def test_a_layer_that_gives_no_numbers_is_exit_code_1(
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
    alone: None,
    tmp_path: Path,
) -> None:
    case = CASES["llama3_2"]
    tensors = {n: tensor(case.seed, n, s, case.spread) for n, s in read("llama3_2").tensors}
    tensors["model.layers.1.mlp.up_proj.weight"][3] = np.nan
    write_checkpoint(tmp_path / "nan", case.config, tensors)
    flags = ("--max-tokens", "2", "--max-model-len", "32")
    assert check(monkeypatch, str(tmp_path / "nan"), *flags) == 1
    shown = capfd.readouterr().out
    assert re.search(r"activations +failed +layer 1: \d+% are no finite numbers", shown)
    assert "the model has no tokenizer" in shown


def test_an_encoder_s_decoder_that_gives_no_numbers_is_exit_code_1(
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
    alone: None,
    tmp_path: Path,
) -> None:
    case, golden = WITH_ENCODER["t5"], read("t5", FOLDER)
    tensors = {n: tensor(case.seed, n, s, case.spread) for n, s in golden.tensors}
    tensors["decoder.block.1.layer.2.DenseReluDense.wo.weight"][3] = np.nan
    write_checkpoint(tmp_path / "nan", case.config, tensors)
    assert check(monkeypatch, str(tmp_path / "nan"), "--max-model-len", "32") == 1
    shown = capfd.readouterr().out
    assert re.search(r"activations +failed +layer 1: \d+% are no finite numbers", shown)
    assert re.search(r"greedy +failed +ended behind 0 tokens", shown)


def test_a_model_that_does_not_load_is_exit_code_2(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    (tmp_path / "config.json").write_text(json.dumps({"architectures": ["NoneForCausalLM"]}))
    assert check(monkeypatch, str(tmp_path)) == 2
    assert "the architecture NoneForCausalLM, which is not supported" in capfd.readouterr().err


def traced(factor: float) -> Trace:
    numbers = np.arange(6.0).reshape(2, 3)
    return Trace({"embedding": numbers, "layer 0, normed": factor * numbers}, factor * numbers)


@dataclass(frozen=True)
class Stranger:
    """Stands for transformers, with a model that is another by so much."""

    factor: float
    tokens: list[int]
    ids: list[int] | None
    name: str = "a stranger"

    def generate(self, tokens: list[int], count: int, read: None) -> list[int]:
        return self.tokens

    def encode(self, text: str) -> list[int] | None:
        return self.ids


@pytest.mark.parametrize(
    ("stranger", "right", "said"),
    [
        (Stranger(1.0, [1, 2], [7, 8]), True, "prompt's ids   ok  2 are equal"),
        (Stranger(1.0, [1, 2], None), True, "all 2 are equal"),
        (Stranger(1.01, [1, 2], None), False, "first in: layer 0, normed"),
        (Stranger(1.0, [1, 3], None), False, "equal until token 1, then 2 instead of 3"),
        (Stranger(1.0, [1, 2], [7]), False, "[7, 8] here and [7] there"),
    ],
)
def test_logits_tokens_and_ids_must_be_the_same(stranger: Any, right: bool, said: str) -> None:
    console = Console(width=200, record=True, quiet=False)
    traces = traced(1.0), traced(stranger.factor)
    found = _compare(console, stranger, traces, "Hi", _Asked([7, 8], None, [], [1, 2]), 1e-3)
    assert found is right
    assert said in console.export_text()


@pytest.mark.parity
def test_the_demo_is_what_transformers_computes(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("torch")
    pytest.importorskip("transformers")
    assert check(monkeypatch, "demo") == 0
    shown = capfd.readouterr().out
    assert "LlamaForCausalLM" in shown and "all 16 are equal" in shown


@pytest.mark.parity
@pytest.mark.parametrize("name", ["bart", "t5", "whisper", "gemma3n", "qwen2_5_vl"])
def test_other_kinds_of_models_are_what_transformers_computes(
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
    tmp_path: Path,
    name: str,
) -> None:
    pytest.importorskip("torch")
    pytest.importorskip("transformers")
    if name in CASES:
        write_case(tmp_path / name, CASES[name], read(name))
    else:
        write_case(tmp_path / name, WITH_ENCODER[name], read(name, FOLDER))
    flags = ("--max-tokens", "6", "--max-model-len", "48", "--dtype", "float32")
    assert check(monkeypatch, str(tmp_path / name), *flags) == 0
    shown = capfd.readouterr().out
    assert "beside transformers" in shown
    assert ("all 6 are equal" in shown) == (name != "whisper")
    assert ("encoder's layer 1, normed" in shown) == (name in WITH_ENCODER)
