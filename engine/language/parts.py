"""The parts of a text that a model writes, `gen` and `choice`, and what became of each.

Owns how parts are said and added up; knows neither a model nor the text they stand in.

    "Q: 2 + 2 =" + gen("sum", regex=r" \\d+") + "\\nIs it even?" + choice("even", [" yes", " no"])
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from engine.errors import RequestError
from engine.grammar.params import StructuredOutputsParams
from engine.messages import FinishReason
from engine.sampling.params import SamplingParams

Normalization = Literal["mean", "sum"]
MAX_CHOICES = 256


class Piece:
    """What can be added to a text: `"a" + piece`, `piece + "b"`, `piece + piece`."""

    def __add__(self, other: "str | Piece") -> "Pieces":
        return Pieces((*parts_of(self), *parts_of(other)))

    def __radd__(self, other: str) -> "Pieces":
        return Pieces((other, *parts_of(self)))


@dataclass(frozen=True)
class Gen(Piece):
    """Text that the model writes; `options` are fields of `SamplingParams`, where they are said."""

    name: str | None
    options: Mapping[str, Any]


@dataclass(frozen=True)
class Choice(Piece):
    """The likeliest of some texts."""

    name: str | None
    choices: tuple[str, ...]
    normalization: Normalization


Part = str | Gen | Choice


@dataclass(frozen=True)
class Pieces(Piece):
    """Several parts in a row."""

    parts: tuple[Part, ...]


@dataclass(frozen=True)
class Written:
    """What became of a `gen`."""

    text: str
    num_tokens: int
    finish_reason: FinishReason  # "length": max_tokens cut it off, a regex may be half matched
    stop_reason: int | str | None  # the stop string, or the stop token, that ended it
    num_prompt_tokens: int
    num_cached_tokens: int  # of the prompt, that were known and not computed again


@dataclass(frozen=True)
class Likelihood:
    """How likely a model finds a text where it stands: the sum over its tokens, in nats."""

    logprob: float
    num_tokens: int

    @property
    def mean(self) -> float:
        return self.logprob / max(1, self.num_tokens)


@dataclass(frozen=True)
class Chosen:
    """What became of a `choice`; `scores` is what was compared, for each text."""

    text: str
    scores: Mapping[str, float]
    likelihoods: Mapping[str, Likelihood]
    num_prompt_tokens: int  # of all the texts, each with what stands before it
    num_cached_tokens: int  # of these


def gen(
    name: str | None = None,
    *,
    max_tokens: int = 128,
    stop: str | Sequence[str] | None = None,
    regex: str | None = None,
    json: str | dict[str, Any] | None = None,
    structured_outputs: StructuredOutputsParams | None = None,
    temperature: float | None = None,
    top_p: float | None = None,
    top_k: int | None = None,
    min_p: float | None = None,
    seed: int | None = None,
    ignore_eos: bool | None = None,
) -> Gen:
    """Text that the model writes here, up to a `stop` string, which is not part of it.

    `regex`: the whole text matches it. `json`: it satisfies a JSON schema. `structured_outputs`:
    any other constraint. What is None is as the model's own defaults say.

    Raises:
        RequestError: an option is out of bounds, or two constraints exclude each other.
    """
    constraints = {"regex": regex, "json": json}
    given: dict[str, Any] = {key: it for key, it in constraints.items() if it is not None}
    if given and structured_outputs is not None:
        raise RequestError(
            f"{next(iter(given))} and structured_outputs exclude each other.", "structured_outputs"
        )
    options = {
        "max_tokens": max_tokens,
        "stop": stop if stop is None or isinstance(stop, str) else list(stop),
        "temperature": temperature, "top_p": top_p, "top_k": top_k, "min_p": min_p, "seed": seed,
        "ignore_eos": ignore_eos,
        "structured_outputs": StructuredOutputsParams(**given) if given else structured_outputs,
    }  # fmt: skip
    said: dict[str, Any] = {key: value for key, value in options.items() if value is not None}
    SamplingParams(**said)  # what is wrong is said where it is written
    return Gen(name, said)


def choice(
    name: str | None, choices: Sequence[str], *, normalization: Normalization = "mean"
) -> Choice:
    """The text among `choices` that the model finds likeliest here; nothing is sampled.

    A text's score is the sum of the log-probabilities of its tokens. "mean" divides it by how many
    they are, so that a text does not lose for being long, as SGLang does; "sum" compares the
    probabilities of the texts themselves. The first of equals wins.

    Raises:
        RequestError: there are no choices, or two of them are the same.
    """
    texts = () if isinstance(choices, str) else tuple(choices)
    if not 0 < len(texts) <= MAX_CHOICES or not all(isinstance(t, str) and t for t in texts):
        raise RequestError(
            f"choices must be a list of 1 to {MAX_CHOICES} texts, none of them empty.", "choices"
        )
    if len(set(texts)) < len(texts):
        raise RequestError("choices must differ from one another.", "choices")
    if normalization not in ("mean", "sum"):
        raise RequestError('normalization must be "mean" or "sum".', "normalization")
    return Choice(name, texts, normalization)


def parts_of(piece: str | Piece) -> tuple[Part, ...]:
    """The parts that something stands for; raises TypeError for what is no piece of a text."""
    if isinstance(piece, Pieces):
        return piece.parts
    if isinstance(piece, str | Gen | Choice):
        return (piece,)
    raise TypeError(f"a text, gen() or choice() can be added, not {type(piece).__name__}")


def choose(
    choice: Choice, likelihoods: Sequence[Likelihood], num_prompt_tokens: int, num_cached: int
) -> Chosen:
    """The likeliest of the choices, given what each has."""
    mean = choice.normalization == "mean"
    scores = [each.mean if mean else each.logprob for each in likelihoods]
    best = max(range(len(scores)), key=scores.__getitem__)
    return Chosen(
        choice.choices[best],
        dict(zip(choice.choices, scores, strict=True)),
        dict(zip(choice.choices, likelihoods, strict=True)),
        num_prompt_tokens,
        num_cached,
    )
