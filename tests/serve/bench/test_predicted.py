"""The benchmark of predicted answers: a small run, and what it counts."""

import json
from types import SimpleNamespace

import pytest
from typer.testing import CliRunner

from serve.bench.cli import app
from serve.bench.predicted import SHARES, Load, Turn, _rounds
from serve.bench.target import BenchError
from tests.engine.conftest import few_programs

SMALL = ["--output-len", "12", "--rounds", "1", "--max-model-len", "64",
         "--max-num-batched-tokens", "16", "--streams", "1"]  # fmt: skip


def test_what_was_known_before_takes_fewer_steps(tmp_path, monkeypatch):
    few_programs(monkeypatch)
    target = tmp_path / "found.json"
    done = CliRunner().invoke(app, ["predicted", *SMALL, "--output-json", str(target)])
    assert done.exit_code == 0, done.output
    assert "100%" in done.output and "0%" in done.output
    found = json.loads(target.read_text())
    assert [len(found["ratios"][str(share)]) for share in SHARES] == [1] * len(SHARES)
    [known], [unknown] = (found["steps"][str(share)] for share in (1.0, 0.0))
    assert known < 0.6 and known < unknown


def test_an_answer_that_changed_is_told(monkeypatch):
    def run(core, ids, load, asked):
        return Turn(1.0, 1, [[len(said)] for _, said in asked])

    monkeypatch.setattr("serve.bench.predicted._run", run)
    core = SimpleNamespace(info=SimpleNamespace(vocab_size=9))
    with pytest.raises(BenchError, match="100% was right changed an answer"):
        next(_rounds(core, Load()))


@pytest.mark.parametrize("option", ["--streams", "--rounds"])
def test_none_is_refused(option):
    assert CliRunner().invoke(app, ["predicted", option, "0"]).exit_code == 2
