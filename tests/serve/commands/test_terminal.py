"""`ingot generate` and `ingot chat` over a scripted `LLM`."""

import io
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Self

import pytest

import engine
from engine.errors import RequestError
from engine.sampling.params import SamplingParams
from models.errors import CheckpointError
from serve.commands.terminal import converse, print_continuation


class FakeLLM:
    """Answers in capitals, a word at a time; remembers what it was asked."""

    asked: list[Any]

    def __init__(self, **settings: Any) -> None:
        type(self).asked = [settings]

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.asked.append("closed")

    def get_default_sampling_params(self) -> SamplingParams:
        return SamplingParams(temperature=0.3)

    def stream(self, prompt: str, params: SamplingParams) -> Iterator[Any]:
        self.asked.append((prompt, params))
        yield from (SimpleNamespace(text=word) for word in prompt.upper().split(" "))

    def stream_chat(self, messages: list[dict[str, str]], params: SamplingParams) -> Iterator[Any]:
        self.asked.append([dict(message) for message in messages])
        yield from self.stream(messages[-1]["content"], params)
        if messages[-1]["content"] == "stop":
            raise KeyboardInterrupt


@pytest.fixture(autouse=True)
def fake_llm(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engine, "LLM", FakeLLM, raising=False)


def test_a_continuation_is_printed_as_it_comes(capsys: pytest.CaptureFixture[str]) -> None:
    print_continuation("once upon", {"max_tokens": 3}, model="demo", seed=1)
    assert capsys.readouterr().out == "ONCEUPON\n"
    assert FakeLLM.asked == [
        {"model": "demo", "seed": 1},
        ("once upon", SamplingParams(max_tokens=3, temperature=0.3)),
        "closed",
    ]


def test_a_wrong_option_is_found_before_the_model_is_loaded() -> None:
    FakeLLM.asked = []
    with pytest.raises(RequestError):
        print_continuation("once", {"top_p": 7.0}, model="demo")
    assert FakeLLM.asked == []


def test_an_empty_prompt_is_found_before_the_model_is_loaded() -> None:
    FakeLLM.asked = []
    with pytest.raises(RequestError, match="empty"):
        print_continuation("", {}, model="demo")
    assert FakeLLM.asked == []


def test_a_model_without_words_is_found_before_it_is_loaded(tmp_path: Path) -> None:
    FakeLLM.asked = []
    with pytest.raises(CheckpointError, match=r"has no config\.json; give the folder of"):
        print_continuation("once", {}, model=str(tmp_path))
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(RequestError, match="has no tokenizer"):
        print_continuation("once", {}, model=str(tmp_path))
    with pytest.raises(RequestError, match="has no tokenizer"):
        converse(None, {}, model=str(tmp_path))
    assert FakeLLM.asked == []


def test_a_conversation_is_remembered(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "stdin", io.StringIO("hi you\nstop\nbye\n"))
    converse("Be loud.", {"max_tokens": None}, model="demo")
    assert capsys.readouterr().out == "HIYOU\nSTOP\nBYE\n"
    last = [message for message in FakeLLM.asked if isinstance(message, list)][-1]
    assert [message["content"] for message in last] == [
        "Be loud.", "hi you", "HIYOU", "stop", "STOP", "bye",
    ]  # fmt: skip
