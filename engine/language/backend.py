"""What writes and scores for a state: the model in this process, or a server.

Owns the two questions that can be asked, and where the tokens of a choice begin.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Protocol

from engine.language.parts import Likelihood, Written
from models.errors import IngotError


@dataclass(frozen=True)
class Write:
    """Continue `prompt`; `options` are fields of `SamplingParams`, the rest are the model's."""

    prompt: str
    options: Mapping[str, Any]
    chat: bool  # the prompt was rendered by a chat template, which wrote its beginning too
    marked: str | None = None  # the prompt for a tokenizer: see `engine.tokenizers.token_guard`


@dataclass(frozen=True)
class Score:
    """How likely is each of `choices` behind `prompt`?"""

    prompt: str
    choices: tuple[str, ...]
    chat: bool
    marked: str | None = None


@dataclass(frozen=True)
class Scored:
    """The answer, in the order of the choices; counts are of tokens of all prompts together."""

    likelihoods: Sequence[Likelihood]
    num_prompt_tokens: int
    num_cached_tokens: int


Ask = Write | Score
Answer = Written | Scored | IngotError


class Requests(Protocol):
    """Requests that run side by side; what is unfinished when the context ends is aborted."""

    def start(self, key: int, ask: Ask) -> None:
        """Begin with a request; raises RequestError if it cannot be served as it is written."""

    def turn(self) -> list[tuple[int, Answer]]:
        """Go on for a little while, an engine's step or so; what has been answered meanwhile.

        Raises IngotError if nothing that runs can be answered any more.
        """

    def __enter__(self) -> "Requests": ...

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
        /,
    ) -> None: ...


class Backend(Protocol):
    """Where requests can be made."""

    def requests(self) -> Requests:
        """A context for some of them."""


def first_scored(prompt: Sequence[int], texts: Sequence[Sequence[int]]) -> int:
    """Where the tokens that tell the choices apart begin, in [1, length of the shortest text).

    `texts` are the ids of the prompt with each choice behind it. A choice may change how the end
    of the prompt is tokenised ("a" + "b" as "ab"); then that end is scored too, in every text, so
    that all are judged behind the same tokens.
    """
    first = min(_common(prompt, text) for text in texts)
    return max(1, min(first, min(map(len, texts)) - 1))


def _common(left: Sequence[int], right: Sequence[int]) -> int:
    """How many tokens two sequences begin with together."""
    pairs = enumerate(zip(left, right, strict=False))
    return next((at for at, (a, b) in pairs if a != b), min(len(left), len(right)))
