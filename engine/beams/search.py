"""Beam search over one prompt: which sequences go on, which have ended, and when to stop.

    live beams ──their likeliest next tokens──▶ advance ──▶ live beams, the best that ended

The search is that of transformers' `generate(num_beams=...)`, step by step, so sequences and
scores are the same; where vLLM differs, transformers is followed. A beam that ends competes only
if it is among the `beam_width` best candidates of its step, and with `beam_width` 1 the search is
greedy. Knows no engine: whoever has a model gives it the log-probabilities.
"""

import math
from collections.abc import Sequence, Set
from dataclasses import dataclass, field
from typing import NamedTuple

from engine.beams.params import BeamSearchParams
from engine.messages import FinishReason, TokenLogprobs


@dataclass(frozen=True, slots=True)
class Beam:
    """A continuation of the prompt."""

    token_ids: list[int] = field(default_factory=list)
    logprobs: list[TokenLogprobs] = field(default_factory=list)  # one for each token
    sum_logprobs: float = 0.0


@dataclass(frozen=True, slots=True)
class Ended:
    """A continuation that is complete."""

    beam: Beam
    score: float  # sum_logprobs / length ** length_penalty
    finish_reason: FinishReason
    stop_token_id: int | None  # the end of text, if one ended it


class _Candidate(NamedTuple):
    sum_logprobs: float
    parent: Beam
    top: TokenLogprobs
    place: int  # of the token in `top`, which begins with a chosen one that means nothing here

    @property
    def token_id(self) -> int:
        return self.top.token_ids[self.place]


class BeamSearch:
    """One prompt's beams; `max_tokens` is what its context has room for, or less."""

    def __init__(
        self,
        params: BeamSearchParams,
        eos_token_ids: Set[int],
        max_tokens: int,
        num_logprobs: int = 0,
    ) -> None:
        self.live = [Beam()]
        self.ended: list[Ended] = []  # the best first, at most beam_width
        self.finished = False
        self._params = params
        self._eos = frozenset() if params.ignore_eos else eos_token_ids
        self._max_tokens = max_tokens
        self._num_tokens = 0
        self._num_logprobs = num_logprobs  # to be kept beside each token's own

    @property
    def num_candidates(self) -> int:
        """How many of a beam's likeliest next tokens must be known."""
        return self._params.beam_width + len(self._eos)

    def advance(self, tops: Sequence[TokenLogprobs]) -> None:
        """One step: `tops` has the likeliest next tokens of each live beam, in their order."""
        self._num_tokens += 1
        width, last = self._params.beam_width, self._num_tokens >= self._max_tokens
        candidates = [
            _Candidate(beam.sum_logprobs + top.logprobs[place], beam, top, place)
            for beam, top in zip(self.live, tops, strict=True)
            for place in range(1, 1 + self.num_candidates)
        ]
        candidates.sort(key=lambda each: -each.sum_logprobs)
        ended = [self._end(c) for c in candidates[:width] if last or c.token_id in self._eos]
        self.ended = sorted(self.ended + ended, key=lambda each: -each.score)[:width]
        going_on = [] if last else [c for c in candidates if c.token_id not in self._eos]
        self.live = [self._grown(candidate) for candidate in going_on[:width]]
        self.finished = last or self._settled()

    def _settled(self) -> bool:
        """Whether going on is not expected to change what has ended."""
        params = self._params
        if len(self.ended) < params.beam_width:
            return False
        if params.early_stopping is True:
            return True
        far = params.early_stopping == "never" and params.length_penalty > 0
        length = self._max_tokens if far else self._num_tokens
        return self._score(self.live[0].sum_logprobs, length) <= self.ended[-1].score

    def _score(self, sum_logprobs: float, length: int) -> float:
        return sum_logprobs / math.pow(length, self._params.length_penalty)

    def _end(self, candidate: _Candidate) -> Ended:
        stop = candidate.token_id if candidate.token_id in self._eos else None
        return Ended(
            self._grown(candidate),
            self._score(candidate.sum_logprobs, self._num_tokens),
            "length" if stop is None else "stop",
            stop,
        )

    def _grown(self, candidate: _Candidate) -> Beam:
        top, place, parent = candidate.top, candidate.place, candidate.parent
        kept = slice(1, 1 + self._num_logprobs)
        logprobs = TokenLogprobs(
            [candidate.token_id, *top.token_ids[kept]],
            [top.logprobs[place], *top.logprobs[kept]],
            place,
        )
        return Beam(
            [*parent.token_ids, candidate.token_id],
            [*parent.logprobs, logprobs],
            candidate.sum_logprobs,
        )
