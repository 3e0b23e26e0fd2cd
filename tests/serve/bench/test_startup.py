"""Starts of engines, cold and warm, of one folder or of two in turns."""

import subprocess
import time
from unittest.mock import MagicMock

import pytest
import typer
from rich.console import Console

from engine.errors import ConfigError
from serve.bench import startup
from serve.bench.cli import app


def test_starts_of_two_folders_take_turns(monkeypatch):
    started = []

    def start(settings, background):
        started.append((settings["model"], settings["compilation_cache_dir"]))
        seconds = {"a": 4.0, "b": 2.0}[settings["model"]]
        return dict.fromkeys(startup._PARTS, seconds)

    monkeypatch.setattr(startup, "_start", start)
    found = startup.measure_startup({"model": "a"}, cold_starts=2, warm_starts=2, beside="b")
    assert [model for model, _ in started] == ["a", "b", "a", "b", "a", "b", "b", "a"]
    caches = [folder for _, folder in started]
    assert len({*caches[:4]}) == 4 and {*caches[4:]} == {*caches[2:4]}
    assert found["warm"][0]["load"] == 4.0 and found["beside"]["cold"][1]["load"] == 2.0
    assert found["beside"]["ratios"] == {"load": [2.0, 2.0], "ready": [2.0, 2.0]}
    assert found["cold_startup_times"] == [12.0, 12.0]  # weights, compiling, warm-up
    assert found["avg_warm_compilation_time"] == found["warm_compilation_percentiles"]["90"] == 4.0
    console = Console(record=True, width=120)
    for table in startup.tables(found, ("a", "b")):
        console.print(table)
    said = console.export_text()
    assert "seconds of b" in said and "a by b" in said and "warm-up" in said


def test_the_shape_that_is_started_is_compares(tmp_path):
    with pytest.raises(ConfigError, match=r"--shape takes llama-125m; got 'gpt'"):
        startup.untrained("gpt", tmp_path)


def test_the_parts_of_a_start():
    sizes = {"max_model_len": 64, "max_num_seqs": 1, "max_num_batched_tokens": 16}
    parts = startup._report(time.time(), {"model": "demo", **sizes}, True)
    assert parts.keys() == startup._PARTS.keys() and min(parts.values()) > 0
    assert parts["warm_up"] + parts["compile"] < parts["ready"]


def test_what_follows_the_first_token_may_be_left_alone(monkeypatch):
    engine = MagicMock()
    monkeypatch.setattr("engine.LLM", engine)
    core = engine.return_value.__enter__.return_value.core
    core.info.configure_mock(load_seconds=1.0, compile_seconds=3.0, warm_up_seconds=0.5)
    parts = startup._report(time.time(), {"model": "demo"}, False)
    assert parts.keys() == startup._PARTS.keys() - {"background"} and parts["compile"] == 2.5
    assert not core.wait_for_programs.called


def test_a_folder_beside_is_converted_if_it_is_not_there(monkeypatch, tmp_path):
    commands, asked = [], []

    def measure(settings, *, tell, **others):
        asked.append(others)
        raise ConfigError("That is enough.")

    def run(command, **_):
        commands.append(command[1:])
        return subprocess.CompletedProcess(command, 0, "", "")

    monkeypatch.setattr(startup, "measure_startup", measure)
    monkeypatch.setattr(startup.subprocess, "run", run)
    for folder in (tmp_path / "made", tmp_path):
        command = ["startup", "--beside", str(folder), "--dtype", "float32"]
        command += ["--num-iters-warm", "2"]
        with pytest.raises(ConfigError, match="enough"):
            typer.main.get_command(app)(command, standalone_mode=False)
        assert asked.pop() == {"cold_starts": 1, "warm_starts": 2, "beside": str(folder)}
    flags = ["--dtype", "float32"]
    assert commands == [["-m", "serve", "convert", "demo", str(tmp_path / "made"), *flags]]
