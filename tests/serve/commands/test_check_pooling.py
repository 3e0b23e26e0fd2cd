"""`ingot check` of models that give vectors: alone, beside another, and beside transformers."""

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from rich.console import Console

from engine import LLM
from engine.check import pooling_reference, reference
from engine.check.trace import Trace
from serve.commands.check_pooling import check_pooler
from tests.engine.pooling_folders import write_folder, write_modules
from tests.models.checkpoints.safetensors_files import write_checkpoint
from tests.parity.pooling_cases import CASES
from tests.parity.pooling_goldens import read
from tests.parity.weights import tensor
from tests.serve.commands.test_check import check

PROMPT = "the dogs sat on a mat"
FLAGS = ("--max-model-len", "32", "--prompt", PROMPT)


@dataclass(frozen=True)
class Stranger:
    """Stands for transformers, with a model that is another by so much from some layer on."""

    ours: Any
    factor: float
    ids: list[int] | None
    name: str = "a stranger"

    @property
    def opened(self) -> "Stranger":
        return self

    def encode(self, *texts: str) -> list[int] | None:
        return self.ids

    def trace(self, tokens: list[int], types: list[int]) -> Trace:
        assert types == []
        found = pooling_trace(self.ours, tokens)
        states = {n: s * (self.factor if n.startswith("layer 1") else 1)
                  for n, s in found.items()}  # fmt: skip
        last = states["layer 1, normed"].mean(0)[None]
        return Trace(states, last / np.linalg.norm(last) * self.factor, "vector")


def pooling_trace(model: Any, tokens: list[int]) -> dict[str, np.ndarray]:
    from engine.check.pooling_trace import trace_pooler

    return trace_pooler(model, tokens, [], np.zeros(1, np.float32)).states


@pytest.fixture(scope="module")
def llm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LLM]:
    folder = write_folder(tmp_path_factory.mktemp("embedder"), "bert")
    write_modules(folder, {"pooling_mode_mean_tokens": True}, "Normalize")
    with LLM(str(folder), max_num_seqs=1, max_num_batched_tokens=32, max_model_len=32) as llm:
        yield llm


@pytest.mark.parametrize(
    ("factor", "ids", "code", "said"),
    [
        (1.0, [2, 4, 5, 17, 7, 8, 9, 10, 3], 0, "prompt's ids  ok  9 are equal"),
        (1.01, None, 1, "more than 0.001 of the deviation apart, first in: layer 1, normed"),
        (1.0, [2, 3], 1, "[2, 4, 5, 17, 7, 8, 9, 10, 3] here and [2, 3] there"),
    ],
)
def test_layers_vectors_and_ids_must_be_the_same(
    monkeypatch: pytest.MonkeyPatch, llm: LLM,
    factor: float, ids: list[int] | None, code: int, said: str,
) -> None:  # fmt: skip
    stranger = lambda ours: Stranger(ours, factor, ids)  # noqa: E731
    monkeypatch.setattr(pooling_reference, "load_pooling_reference", stranger)
    console = Console(width=200, record=True, quiet=False)
    assert check_pooler(console, llm, PROMPT, None) == code
    shown = console.export_text()
    assert said in shown and "beside a stranger" in shown
    assert len(re.findall(r"^(embedding|layer 0|layer 1, normed|vector)  ", shown, re.M)) == 5


def test_without_transformers_a_vector_is_checked_by_itself(
    monkeypatch: pytest.MonkeyPatch, llm: LLM
) -> None:
    monkeypatch.setattr(reference, "find_spec", lambda name: None)
    console = Console(width=200, record=True, quiet=False)
    assert check_pooler(console, llm, PROMPT, None) == 0
    shown = console.export_text()
    assert "activations  ok  finite in 2 layers" in shown and "ingot[parity]" in shown
    assert "vector       ok  40 numbers" in shown


def test_a_layer_that_gives_no_numbers_is_named(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    case, golden = CASES["bert"], read("bert")
    tensors = {n: tensor(case.seed, n, s, case.spread) for n, s in golden.tensors}
    tensors["encoder.layer.1.output.dense.weight"][3] = np.nan
    write_checkpoint(tmp_path, case.config, tensors)
    assert check(monkeypatch, str(tmp_path), *FLAGS) == 1
    shown = capfd.readouterr().out
    assert re.search(r"activations +failed +layer 1, normed: \d+% are no finite numbers", shown)
    assert re.search(r"vector +failed +The model gave what is no number", shown)


PARITY = {  # what is compared, and by what name of transformers
    "bert_cross_encoder": ("scores", "BertForSequenceClassification"),
    "distilbert": ("vector", "DistilBertModel"),
    "modernbert_classifier": ("scores", "ModernBertForSequenceClassification"),
    "umt5_encoder": ("vector", "UMT5EncoderModel"),
    "qwen3_reward": ("scores", "Qwen3ForSequenceClassification"),
}


@pytest.mark.parity
@pytest.mark.parametrize("name", PARITY)
def test_vectors_and_scores_are_those_of_transformers(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], tmp_path: Path, name: str
) -> None:
    pytest.importorskip("torch")
    pytest.importorskip("transformers")
    folder = write_folder(tmp_path, name)
    whole = {"tokenizer_class": "PreTrainedTokenizerFast"}  # and not what BERT's would be
    (folder / "tokenizer_config.json").write_text(json.dumps(whole))
    if name == "distilbert":
        write_modules(folder, {"pooling_mode_mean_tokens": True}, "Normalize")
    what, theirs = PARITY[name]
    assert check(monkeypatch, str(folder), *FLAGS) == 0
    shown = capfd.readouterr().out
    assert theirs in shown and re.search(rf"^{what} +\S+e-0[5-9]", shown, re.M)
    assert re.search(r"prompt's ids +ok", shown)
