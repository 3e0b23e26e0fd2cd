"""The benchmark of families: what is counted, by hand, and a run of two small models."""

import json

import pytest
from flax import nnx
from typer.testing import CliRunner

from engine.errors import ConfigError
from models.encoder_decoder import make_decoder
from models.flatten import layout
from models.registry import find_architecture
from serve.bench import families
from serve.bench.cli import app
from serve.bench.family_shapes import FAMILIES, Count, Size, count
from tests.engine.conftest import few_programs

SMALL = Size(hidden=128, layers=4, vocab=96)


def counted(name, size, rows=8):
    raw = FAMILIES[name](size)
    config = find_architecture(raw).config(raw)
    decoder = nnx.eval_shape(lambda: make_decoder(config, dtype="float32"))
    return count(config, layout(decoder).leaves, rows)


def test_families_have_about_as_many_active_parameters():
    first = counted("dense", Size()).active
    for name in FAMILIES:
        assert counted(name, Size()).active == pytest.approx(first, rel=0.08), name


def test_a_dense_model_by_hand():
    found = counted("dense", SMALL)
    layer = 128 * (128 + 128 + 128) + 3 * 128 * 352 + 2 * 128
    assert found.active == found.moved == 4 * layer + 128 + 96 * 128
    assert found.total == found.active + 96 * 128


def test_of_experts_those_count_that_are_taken_and_those_are_read_that_someone_takes():
    expert = 3 * 128 * 176
    found, alone = counted("experts", SMALL), counted("experts", SMALL, 1)
    assert found.total - 96 * 128 - found.active == 4 * 6 * expert
    assert alone.active == alone.moved == found.active
    assert found.moved - found.active == pytest.approx(4 * expert * (8 * (1 - 0.75**8) - 2), abs=1)


def test_a_tied_head_is_active_and_places_are_not():
    found = counted("gpt2", SMALL)
    assert found.total - found.active == 2048 * 128


def test_states_of_rows_are_read_and_written():
    found, alone = counted("mamba2", SMALL), counted("mamba2", SMALL, 1)
    row = 3 * (4 * 64 * 64 + 3 * (4 * 64 + 2 * 64))
    assert found.moved - found.active == 16 * row and alone.moved - alone.active == 2 * row


@pytest.mark.parametrize(
    "name, row",
    [
        ("mamba", 7 * (256 * 16 + 3 * 256)),
        ("conv", 3 * 2 * 128),
        ("rglru", 3 * (128 + 3 * 128)),
    ],
)
def test_states_of_other_kinds_by_hand(name, row):
    found = counted(name, SMALL)
    assert found.moved - found.active == 16 * row


def test_what_reads_a_prompt_once_is_not_active():
    found = counted("cross", SMALL)
    layer = 4 * 128 * 128 + 2 * 128 * 128 + 3 * 128 * 224 + 3 * 128
    bias = 32 * 2  # of the distances that have one, for each head
    assert found.active == found.moved == 4 * layer + bias + 128 + 96 * 128


def test_ratios_are_of_the_same_round():
    found = families._compared(Count(0, 10, 20), [2.0, 6.0, 1.0], Count(0, 5, 5), [1.0, 2.0, 2.0])
    assert found["per_active_ratios"] == [1.0, 1.5, 0.25]
    assert found["per_active"] == 1.0 and found["bound"] == 2.0 and found["per_moved"] == 0.5


@pytest.mark.parametrize(
    "count, seconds, shown",
    [
        (Count(9, 5, 5), 1.154, ["1.15 yes", "1.15"]),
        (Count(9, 5, 5), 1.156, ["1.16 no", "1.16"]),
        (Count(9, 5, 20), 4.4, ["4.40 no", "1.10 yes"]),
        (Count(9, 5, 20), 4.8, ["4.80 no", "1.20 no"]),
    ],
)
def test_what_moves_more_than_the_limit_allows_is_judged_by_what_it_moves(count, seconds, shown):
    row = families._compared(count, [seconds], Count(9, 5, 5), [1.0])
    made = families.table({"rows": 8, "families": {"one": row}})
    cells = {column.header: next(iter(column.cells)) for column in made.columns}
    assert [cells["by active"], cells["by moved"]] == shown


def test_the_command_prints_and_writes_what_it_found(tmp_path, monkeypatch):
    few_programs(monkeypatch)
    target = tmp_path / "families.json"
    options = "--rows 1 --num-steps 3 --rounds 2 --hidden-size 128 --num-layers 4"
    arguments = ["families", *options.split(), "--only", "gpt2,cross"]
    done = CliRunner().invoke(app, [*arguments, "--output-json", str(target)])
    assert done.exit_code == 0, done.output
    found = json.loads(target.read_text())["families"]
    assert list(found) == ["gpt2", "cross"]
    for row in found.values():
        assert len(row["seconds"]) == 2 and min(row["seconds"]) > 0
    assert found["gpt2"]["per_active_ratios"] == [1.0, 1.0]
    assert "by active" in done.output and "1.00 yes" in done.output


def test_every_family_is_offered_and_no_other():
    command = next(one for one in app.registered_commands if one.callback.__name__ == "families")
    assert command.callback.__defaults__[5] == ",".join(FAMILIES)
    with pytest.raises(ConfigError, match="no family 'rwkv'; there are dense, "):
        families.measure_families(SMALL, families.Work(), ["rwkv"])


def test_a_width_that_heads_do_not_divide_is_named():
    done = CliRunner().invoke(app, ["families", "--hidden-size", "200"])
    assert done.exit_code and "multiple of 128" in str(done.exception)
