"""`ingot generate` and `ingot chat`: the engine in this process, its text on the terminal."""

import sys
from collections.abc import Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, Protocol

import msgspec
from rich.console import Console

from engine.config import make_config
from engine.errors import RequestError
from engine.model_files import located, tokenizer_folder
from engine.sampling.params import SamplingParams
from engine.tokenizers.tokenizer import has_tokenizer
from serve.commands.interrupted import leaving_at_once
from serve.commands.status import status
from serve.model import model_folder

if TYPE_CHECKING:
    from engine import LLM


class Piece(Protocol):
    """What the engine streams."""

    @property
    def text(self) -> str: ...


def print_continuation(prompt: str, sampling: Mapping[str, Any], **settings: Any) -> None:
    """Load the model, continue `prompt`, and write the text to stdout as it comes."""
    SamplingParams(**sampling)  # a wrong option is found before the model is loaded
    if not prompt:
        raise RequestError("The prompt is empty: it must hold some text.", "prompt")
    with _loaded(settings) as llm:
        _write(llm.stream(prompt, _params(llm, sampling)))


def converse(system: str | None, sampling: Mapping[str, Any], **settings: Any) -> None:
    """Ask, answer, remember; until an empty line or the end of the input."""
    SamplingParams(**sampling)  # a wrong option is found before the model is loaded
    with _loaded(settings) as llm:
        params = _params(llm, sampling)
        messages = [{"role": "system", "content": system}] if system else []
        for question in _questions():
            messages.append({"role": "user", "content": question})
            answer = _write(llm.stream_chat(messages, params))
            messages.append({"role": "assistant", "content": answer})


def _loaded(settings: Mapping[str, Any]) -> "LLM":
    """The engine; a terminal says so meanwhile, for the first start compiles."""
    with status(f"loading and compiling {settings['model']} ..."), leaving_at_once():
        from engine import LLM

        _check_words(settings)
        return LLM(**settings)


def _check_words(settings: Mapping[str, Any]) -> None:
    """Raise RequestError for a model without words, before it is loaded and compiled.

    Raises CheckpointError where there is no model.
    """
    config = located(make_config(**settings))
    model_folder(config.model)
    if not has_tokenizer(tokenizer_folder(config)):
        raise RequestError(
            f"{settings['model']} has no tokenizer, and so no text goes in or out; "
            "`LLM.generate` takes token ids, and --tokenizer names another folder that has one.",
            "model",
        )


def _params(llm: "LLM", sampling: Mapping[str, Any]) -> SamplingParams:
    """What the command line says, over what the model's makers recommend."""
    return msgspec.structs.replace(llm.get_default_sampling_params(), **sampling)


def _questions() -> Iterator[str]:
    console = Console(stderr=True)
    while True:
        try:
            question = console.input("[bold cyan]›[/] " if sys.stdin.isatty() else "")
        except (EOFError, KeyboardInterrupt):
            console.print()  # the shell's prompt belongs on a line of its own
            return
        if not question.strip():
            return
        yield question


def _write(pieces: Iterable[Piece]) -> str:
    """Write each piece at once; Ctrl-C ends this answer and keeps what was said."""
    said: list[str] = []
    try:
        for piece in pieces:
            said.append(piece.text)
            sys.stdout.write(piece.text)
            sys.stdout.flush()
    except KeyboardInterrupt:
        pass
    sys.stdout.write("\n")
    return "".join(said)
