"""`ingot run-batch` over the scripted core."""

import json
from pathlib import Path
from typing import Any

import pytest

from engine.config import EngineConfig
from engine.errors import ConfigError
from serve.commands.batch import run_batch_file
from serve.engine_process import StartError
from serve.settings import ServerSettings
from tests.fake_server import FAKE_ENGINE

TINY = ServerSettings(served_model_names=("tiny",))


def line(custom_id: str, url: str = "/v1/chat/completions", **body: Any) -> str:
    return json.dumps({"custom_id": custom_id, "method": "POST", "url": url, "body": body})


def test_each_line_is_answered(model_folder: Path, tmp_path: Path) -> None:
    chats = [
        line(f"c{i}", messages=[{"role": "user", "content": f"Hi {i}"}], model="tiny")
        for i in range(20)
    ]
    others = [
        line("text", "/v1/completions", prompt="abc", max_tokens=4),
        line("ids", "/tokenize", prompt="abc"),
        "",
        line("wrong", messages=[]),
        line("other", messages=[{"role": "user", "content": "x"}], model="other"),
        line("stream", messages=[{"role": "user", "content": "x"}], stream=True),
        line("nowhere", "/v1/images", prompt="x"),
        "{}",
        "not JSON \ud800".encode("utf-8", "replace").decode(),
    ]
    source, target = tmp_path / "in.jsonl", tmp_path / "out.jsonl"
    source.write_text("\n".join(chats + others) + "\n")
    config = EngineConfig(model=str(model_folder))
    counts = run_batch_file(config, TINY, source, target, FAKE_ENGINE)
    answers = [json.loads(each) for each in target.read_text().splitlines()]
    by_id = {answer["custom_id"]: answer for answer in answers if answer["custom_id"]}
    assert counts == (22, 6) and len(answers) == 28
    said = by_id["c3"]["response"]["body"]["choices"][0]["message"]["content"]
    assert said == "user\nHi 3" and by_id["other"]["response"]["status_code"] == 404
    assert by_id["text"]["response"]["body"]["choices"][0]["text"] == "abca"
    assert by_id["ids"]["response"]["body"]["count"] == 3
    assert by_id["wrong"]["response"]["status_code"] == 400
    assert "streamed" in by_id["stream"]["error"]["message"]
    assert "/v1/completions" in by_id["nowhere"]["error"]["message"]
    broken = [answer["error"]["message"] for answer in answers if not answer["custom_id"]]
    assert len(broken) == 2 and all(each.startswith("Line 2") for each in broken)


@pytest.mark.filterwarnings("error")
def test_a_file_of_nothing_is_answered_by_nothing(model_folder: Path, tmp_path: Path) -> None:
    source, target = tmp_path / "in.jsonl", tmp_path / "out.jsonl"
    source.write_text("\n")
    config = EngineConfig(model=str(model_folder))
    assert run_batch_file(config, TINY, source, target, FAKE_ENGINE) == (0, 0)
    assert target.read_text() == ""


def test_an_engine_that_hangs_fails_what_it_has(
    model_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FAKE_STEP_SECONDS", "1000")
    source, target = tmp_path / "in.jsonl", tmp_path / "out.jsonl"
    source.write_text("\n".join(line(f"{i}", "/v1/completions", prompt="a") for i in range(20)))
    config, settings = EngineConfig(model=str(model_folder)), ServerSettings(watchdog_timeout=0.5)
    assert run_batch_file(config, settings, source, target, FAKE_ENGINE) == (0, 20)
    answers = [json.loads(each)["response"] for each in target.read_text().splitlines()]
    assert {each["status_code"] for each in answers} == {503}
    assert "hung" in answers[0]["body"]["error"]["message"]


def test_what_cannot_start_says_so(model_folder: Path, tmp_path: Path) -> None:
    source, target = tmp_path / "in.jsonl", tmp_path / "out.jsonl"
    with pytest.raises(ConfigError, match=r"in\.jsonl"):
        run_batch_file(EngineConfig(model=str(model_folder)), TINY, source, target, FAKE_ENGINE)
    source.write_text("\n")
    with pytest.raises(ConfigError, match="would replace the requests"):
        run_batch_file(EngineConfig(model=str(model_folder)), TINY, source, source, FAKE_ENGINE)
    assert source.read_text() == "\n"
    with pytest.raises(StartError, match="unlucky"):
        run_batch_file(
            EngineConfig(model=str(model_folder), seed=666), TINY, source, target, FAKE_ENGINE
        )
