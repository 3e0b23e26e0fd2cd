"""How tokens are chosen and when a request ends: every option, with its bounds.

The struct is the single place where bounds live, so no route and no script can forget one. It
knows nothing of a model: ids are checked against the vocabulary by `check_vocabulary`, at
admission. Names, defaults and meanings are vLLM's.
"""

from collections.abc import Callable, Mapping, Sequence, Sized
from numbers import Integral
from typing import Any

import msgspec

from engine.errors import RequestError
from engine.grammar.params import StructuredOutputsParams, structured_outputs
from engine.plain_values import boolean, integer, integer_keys, number, sequence, shown, string
from engine.stopping.repetition import RepetitionDetectionParams, repetition_detection

MAX_N = 128
MAX_LOGPROBS = 20
MAX_LOGPROB_TOKEN_IDS = 128
MAX_STOP_STRINGS = 64
MAX_STOP_STRING_CHARS = 1024
MAX_STOP_CHARS = 4096  # of all stop strings together
MAX_STOP_REGEXES = 16
MAX_STOP_REGEX_CHARS = 512
MAX_ALLOWED_TOKEN_IDS = 16384
MAX_STOP_TOKEN_IDS = 64
MAX_LOGIT_BIAS = 1024
MAX_BAD_WORDS = 128
MAX_BAD_WORD_TOKENS = 8
MAX_EXTRA_ARGS = 64
MAX_EXTRA_NUMBERS = 1024  # of one argument
LEAST_TEMPERATURE = 1e-5  # anything colder is greedy, as in vLLM
_SEED_RANGE = (-(2**63), 2**64 - 1)


class SamplingParams(msgspec.Struct, kw_only=True, frozen=True, forbid_unknown_fields=True):
    """Options of one request; raises `RequestError` naming the field that is out of bounds.

    `temperature` 0 is greedy. `top_k` 0 or -1 is off. `max_tokens` None runs to the end of the
    context. `logprobs` k returns the chosen token and the k likeliest, of the distribution before
    any option below is applied; `prompt_logprobs` the same for the prompt's tokens, from
    `prompt_logprobs_start` on: those before it get None, and may come from the prefix cache.
    `logprob_token_ids`: tokens whose log-probabilities are returned instead of the likeliest.
    `stop_regex`: ends the text where it matches, as `stop` does; see `engine.stopping.stop_regex`.
    `structured_outputs`: what the output must satisfy, `StructuredOutputsParams` or a dict of it.
    `repetition_detection` ends an answer that goes round in circles.
    `thinking_token_budget`: tokens of reasoning, of which the end is then forced; -1 is no limit.
    `watermarking`: whether the engine's watermark is in the output; None is where it has one, and
    tokens are drawn.
    `routed_experts_prompt_start`: the first token whose experts are told, where they are; of those
    before it the prompt's may come from the prefix cache.
    `extra_args`: arguments of logits processors by name, each a number, true, false or a list.
    """

    n: int = 1
    temperature: float = 1.0
    top_p: float = 1.0
    top_k: int = 0
    min_p: float = 0.0
    presence_penalty: float = 0.0
    frequency_penalty: float = 0.0
    repetition_penalty: float = 1.0
    seed: int | None = None
    stop: str | list[str] | None = None
    stop_regex: str | list[str] | None = None
    stop_token_ids: list[int] | None = None
    bad_words: list[str] | None = None
    ignore_eos: bool = False
    max_tokens: int | None = 16
    min_tokens: int = 0
    logprobs: int | None = None
    logprob_token_ids: list[int] | None = None
    prompt_logprobs: int | None = None
    prompt_logprobs_start: int = 0
    logit_bias: dict[int, float] | None = None
    allowed_token_ids: list[int] | None = None
    detokenize: bool = True
    skip_special_tokens: bool = True
    spaces_between_special_tokens: bool = True
    include_stop_str_in_output: bool = False
    structured_outputs: StructuredOutputsParams | None = None
    repetition_detection: RepetitionDetectionParams | None = None
    thinking_token_budget: int | None = None
    watermarking: bool | None = None
    routed_experts_prompt_start: int = 0
    extra_args: dict[str, Any] | None = None

    def __post_init__(self) -> None:
        self._convert()
        self._check_ranges()
        self._check_lists()

    @property
    def greedy(self) -> bool:
        return self.temperature == 0.0

    @property
    def draws(self) -> bool:
        """Whether tokens are drawn, and are not the likeliest each."""
        return self.temperature >= LEAST_TEMPERATURE

    @property
    def stop_strings(self) -> list[str]:
        if self.stop is None:
            return []
        return [self.stop] if isinstance(self.stop, str) else self.stop

    @property
    def stop_regexes(self) -> list[str]:
        if self.stop_regex is None:
            return []
        return [self.stop_regex] if isinstance(self.stop_regex, str) else self.stop_regex

    @property
    def has_penalties(self) -> bool:
        """Whether the tokens before change a token's chances."""
        return (
            self.presence_penalty != 0
            or self.frequency_penalty != 0
            or self.repetition_penalty != 1
        )

    @property
    def looks_back(self) -> bool:
        """Whether they do so in any way, beyond the model."""
        return self.has_penalties or bool(self.bad_words) or self.watermarking is True

    def check_vocabulary(self, vocab_size: int) -> None:
        """Raise `RequestError` for an id that is no column of the logits, [0, vocab_size)."""
        for name in ("stop_token_ids", "allowed_token_ids", "logit_bias", "logprob_token_ids"):
            for token in getattr(self, name) or ():
                if not 0 <= token < vocab_size:
                    raise RequestError(
                        f"{name} holds {shown(token)}, which is no token id of this model "
                        f"(0 to {vocab_size - 1}).",
                        name,
                    )

    def _convert(self) -> None:
        """Typed callers may pass anything (NumPy scalars, tuples); keep only plain values."""
        for name, convert in _CONVERSIONS.items():
            value = getattr(self, name)
            if name in _LENGTHS and isinstance(value, Sized) and not isinstance(value, str):
                _check_length(name, value, _LENGTHS[name])  # before any work is done on them
            if value is not None or name not in _OPTIONAL:
                msgspec.structs.force_setattr(self, name, convert(name, value))

    def _check_ranges(self) -> None:
        self._check_scored()
        for name, low, high in _RANGES:
            value = getattr(self, name)
            in_range = value is None or low <= value <= high
            _require(in_range, name, f"must be between {low} and {high}", self)
        _require(self.top_p > 0, "top_p", "must be above 0 and at most 1", self)
        _require(self.repetition_penalty > 0, "repetition_penalty", "must be above 0", self)
        if self.max_tokens is not None and self.min_tokens > self.max_tokens:
            raise RequestError(
                f"min_tokens {self.min_tokens} exceeds max_tokens {self.max_tokens}.", "min_tokens"
            )
        if self.prompt_logprobs_start and self.prompt_logprobs is None:
            raise RequestError(
                "prompt_logprobs_start needs prompt_logprobs.", "prompt_logprobs_start"
            )

    def _check_scored(self) -> None:
        """With `logprob_token_ids` there are log-probabilities, and none of the likeliest."""
        ids = self.logprob_token_ids
        if ids is None:
            return
        if not ids or len(set(ids)) < len(ids):
            raise RequestError(
                "logprob_token_ids must hold token ids, each once; leave it out for the likeliest.",
                "logprob_token_ids",
            )
        if self.logprobs not in (None, 0, len(ids)):
            raise RequestError(
                f"logprobs must be {len(ids)}, as many as there are logprob_token_ids, or left "
                f"out, got {self.logprobs}.",
                "logprobs",
            )
        msgspec.structs.force_setattr(self, "logprobs", 0)

    def _check_lists(self) -> None:
        _check_strings("stop", self.stop_strings)
        _require(
            sum(map(len, self.stop_strings)) <= MAX_STOP_CHARS,
            "stop", f"may hold at most {MAX_STOP_CHARS} characters in all", self,
        )  # fmt: skip
        _check_strings("stop_regex", self.stop_regexes, MAX_STOP_REGEX_CHARS)
        _check_strings("bad_words", self.bad_words or [])
        for token, bias in (self.logit_bias or {}).items():
            if not -100 <= bias <= 100:
                raise RequestError(
                    f"logit_bias of token {shown(token)} must be between -100 and 100, got {bias}.",
                    "logit_bias",
                )
        if self.allowed_token_ids is not None and not self.allowed_token_ids:
            raise RequestError(
                "allowed_token_ids must not be empty: no token could be chosen.",
                "allowed_token_ids",
            )
        if self.allowed_token_ids is not None and self.structured_outputs is not None:
            raise RequestError(
                "allowed_token_ids and structured_outputs exclude each other: both say which "
                "tokens may be chosen.",
                "allowed_token_ids",
            )


def _strings(name: str, value: object) -> list[str]:
    return sequence(name, value, string)


def _integers(name: str, value: object) -> list[int]:
    return sequence(name, value, integer)


def _arguments(name: str, value: object) -> dict[str, Any]:
    if not isinstance(value, Mapping) or len(value) > MAX_EXTRA_ARGS:
        raise RequestError(
            f"{name} must hold at most {MAX_EXTRA_ARGS} names and their values, got "
            f"{shown(value)}.",
            name,
        )
    try:
        return {string(name, each): _argument(f"{name}.{each}", v) for each, v in value.items()}
    except RequestError as error:
        raise RequestError(str(error), name) from None


def _argument(name: str, value: object) -> Any:
    if isinstance(value, Sequence) and not isinstance(value, str):
        _check_length(name, value, MAX_EXTRA_NUMBERS)
        return [_scalar(name, each) for each in value]
    return _scalar(name, value)


def _scalar(name: str, value: object) -> bool | int | float:
    if isinstance(value, bool):
        return value
    exact = number(name, value)
    if isinstance(value, Integral) and abs(exact) < 2**53:
        return int(value)
    return exact


def _string_or_strings(name: str, value: object) -> str | list[str]:
    return string(name, value) if isinstance(value, str) else _strings(name, value)


_CONVERSIONS: dict[str, Callable[[str, object], object]] = {
    "n": integer,
    "temperature": number,
    "top_p": number,
    "top_k": integer,
    "min_p": number,
    "presence_penalty": number,
    "frequency_penalty": number,
    "repetition_penalty": number,
    "seed": integer,
    "stop": _string_or_strings,
    "stop_regex": _string_or_strings,
    "stop_token_ids": _integers,
    "bad_words": _strings,
    "ignore_eos": boolean,
    "max_tokens": integer,
    "min_tokens": integer,
    "logprobs": integer,
    "logprob_token_ids": _integers,
    "prompt_logprobs": integer,
    "prompt_logprobs_start": integer,
    "logit_bias": integer_keys,
    "allowed_token_ids": _integers,
    "detokenize": boolean,
    "skip_special_tokens": boolean,
    "spaces_between_special_tokens": boolean,
    "include_stop_str_in_output": boolean,
    "structured_outputs": structured_outputs,
    "repetition_detection": repetition_detection,
    "thinking_token_budget": integer,
    "watermarking": boolean,
    "routed_experts_prompt_start": integer,
    "extra_args": _arguments,
}
_LENGTHS = {
    "stop": MAX_STOP_STRINGS,
    "stop_regex": MAX_STOP_REGEXES,
    "stop_token_ids": MAX_STOP_TOKEN_IDS,
    "bad_words": MAX_BAD_WORDS,
    "logprob_token_ids": MAX_LOGPROB_TOKEN_IDS,
    "logit_bias": MAX_LOGIT_BIAS,
    "allowed_token_ids": MAX_ALLOWED_TOKEN_IDS,
}
_OPTIONAL = {
    "seed", "stop", "stop_regex", "stop_token_ids", "bad_words", "max_tokens", "logprobs",
    "logprob_token_ids", "prompt_logprobs", "logit_bias", "allowed_token_ids", "structured_outputs",
    "repetition_detection", "thinking_token_budget", "watermarking", "extra_args",
}  # fmt: skip
_RANGES: tuple[tuple[str, float, float], ...] = (
    ("n", 1, MAX_N),
    ("temperature", 0, 100),
    ("top_p", 0, 1),
    ("top_k", -1, 2**31 - 1),
    ("min_p", 0, 1),
    ("presence_penalty", -2, 2),
    ("frequency_penalty", -2, 2),
    ("repetition_penalty", 0, 100),
    ("seed", *_SEED_RANGE),
    ("max_tokens", 1, 2**31 - 1),
    ("min_tokens", 0, 2**31 - 1),
    ("logprobs", 0, MAX_LOGPROBS),
    ("prompt_logprobs", 0, MAX_LOGPROBS),
    ("prompt_logprobs_start", 0, 2**31 - 1),
    ("thinking_token_budget", -1, 2**63 - 1),
    ("routed_experts_prompt_start", 0, 2**31 - 1),
)


def _require(condition: bool, name: str, rule: str, params: SamplingParams) -> None:
    if not condition:
        raise RequestError(f"{name} {rule}, got {shown(getattr(params, name))}.", name)


def _check_length(name: str, items: Sized, limit: int) -> None:
    if len(items) > limit:
        raise RequestError(f"{name} may hold at most {limit} entries, got {len(items)}.", name)


def _check_strings(name: str, strings: list[str], longest: int = MAX_STOP_STRING_CHARS) -> None:
    for text in strings:
        if not 0 < len(text) <= longest:
            raise RequestError(
                f"{name} must hold strings of 1 to {longest} characters, got one of {len(text)}.",
                name,
            )
