"""The benchmark of structured outputs: a small run, and what it counts."""

import json

from typer.testing import CliRunner

from serve.bench.cli import app
from tests.engine.conftest import few_programs


def test_the_command_compares_streams_beside_both_kinds_of_neighbours(tmp_path, monkeypatch):
    few_programs(monkeypatch)
    target, schema = tmp_path / "found.json", tmp_path / "schema.json"
    schema.write_text('{"type": "array", "items": {"enum": ["a", "b"]}, "maxItems": 9}')
    options = ["--streams", "1", "--neighbours", "1", "--output-len", "12", "--rounds", "2"]
    options += [
        "--max-model-len",
        "64",
        "--max-num-batched-tokens",
        "16",
        "--schema",
        str(schema),
        "--output-json",
        str(target),
    ]
    done = CliRunner().invoke(app, ["structured", *options])
    assert done.exit_code == 0, done.output
    assert "1 streams beside 1 rows" in done.output and "least" in done.output
    found = json.loads(target.read_text())
    assert len(found["rounds"]) == 2
    for number, each in enumerate(found["rounds"]):
        free, constrained = each["free"], each["constrained"]
        assert 0 < free["p50_itl_ms"] <= free["p99_itl_ms"]
        ratio = constrained["p50_itl_ms"] / free["p50_itl_ms"]
        assert found["ratios"]["p50_itl_ms"][number] == ratio
        assert free["neighbours_tokens_per_s"] > 0
        assert constrained["neighbours_tokens_per_s"] >= 0  # it may wait for masks all the time


def test_a_schema_that_is_none_is_refused(tmp_path):
    for text in ("{", "[]"):
        schema = tmp_path / "schema.json"
        schema.write_text(text)
        done = CliRunner().invoke(app, ["structured", "--schema", str(schema)])
        assert done.exit_code and "--schema" in str(done.exception)
