"""Beam searches on an engine core: each step asks it for the next token of every live beam.

    AddBeams ──▶ BeamSearch ──one request of one token a beam──▶ core
                     ▲ ──────────── the likeliest tokens ◀──────────┘

Beams are requests like any other, so they share steps with their neighbours, and they share pages
as any prompts do that begin alike: the prefix cache has all of a beam's pages. The last, which is
not full, is gone on with by one beam and copied for the others, and what is computed in a step is
one token of each. Nothing is compiled for it.

Owns the searches in flight. What a search keeps and when it stops is `search`'s.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from itertools import count
from typing import Protocol

from msgspec.structs import replace

from engine.adapters.request import LoRARequest
from engine.beams.search import BeamSearch
from engine.cache.page_map import PageMap
from engine.errors import RequestError
from engine.messages import (
    AddBeams,
    AddRequest,
    MemoryChange,
    ModelInfo,
    NewRequest,
    PoolRequest,
    RequestDelta,
    StepReport,
    TokenLogprobs,
)
from engine.sampling.params import SamplingParams


class PlainCore(Protocol):
    """A core that knows single sequences: `engine.core.EngineCore`, or a scripted one in tests."""

    @property
    def info(self) -> ModelInfo: ...

    @property
    def has_work(self) -> bool: ...

    def add(self, message: AddRequest, arrival: int | None = None) -> int: ...

    def abort(self, request_ids: Iterable[int]) -> None: ...

    def reset_prefix_cache(self) -> None: ...

    def freeze(self, *, retract: bool) -> None: ...

    def thaw(self) -> None: ...

    def load_adapter(self, call_id: int, lora: LoRARequest) -> None: ...

    def change_memory(self, message: MemoryChange) -> None: ...

    def page_map(self) -> PageMap | None: ...

    def step(self) -> StepReport: ...

    def close(self) -> None: ...


@dataclass(slots=True)
class _Running:
    """A search, and what the core owes it."""

    message: AddBeams
    search: BeamSearch
    num_logprobs: int  # that the core is asked for
    arrival: int | None = None  # the place in the core's queue that all steps of the search have
    asked: dict[int, int] = field(default_factory=dict)  # id in the core: live beam
    tops: dict[int, TokenLogprobs] = field(default_factory=dict)  # live beam: its next tokens
    queue_seconds: float | None = None
    num_cached_tokens: int | None = None


class BeamCore:
    """The core `core`, which takes `AddBeams` as well."""

    def __init__(self, core: PlainCore) -> None:
        self._core = core
        self._ids = count(-1, -1)  # the front's begin at 0
        self._searches: dict[int, _Running] = {}  # by each id of `AddBeams`
        self._asked: dict[int, _Running] = {}  # by id in the core

    @property
    def info(self) -> ModelInfo:
        return self._core.info

    @property
    def has_work(self) -> bool:
        return self._core.has_work

    def add(self, message: NewRequest | PoolRequest) -> None:
        """Queue a request or a search.

        Raises:
            RequestError: it cannot be served as it is written.
        """
        if isinstance(message, PoolRequest):
            raise RequestError("This engine writes text and gives no vectors.", "input")
        if isinstance(message, AddRequest):
            self._core.add(message)
            return
        info, params = self.info, message.params
        params.check_model(info.vocab_size, len(info.eos_token_ids))
        if len(message.request_ids) > params.beam_width:
            raise RequestError("More sequences are asked for than beams are searched.", "n")
        room = max(1, info.max_model_len - len(message.prompt_token_ids))
        search = BeamSearch(
            params, set(info.eos_token_ids), min(room, params.max_tokens), message.num_logprobs or 0
        )
        most = max(search.num_candidates, message.num_logprobs or 0)
        running = _Running(message, search, most)
        self._ask(running)
        self._searches |= dict.fromkeys(message.request_ids, running)

    def abort(self, request_ids: Iterable[int]) -> None:
        """Forget requests, and searches of which nothing is wanted any longer with their beams."""
        aborted = list(request_ids)
        for request_id in list(aborted):
            running = self._searches.pop(request_id, None)
            if running and not any(i in self._searches for i in running.message.request_ids):
                aborted += running.asked
                for child in running.asked:
                    del self._asked[child]
        self._core.abort(aborted)

    def reset_prefix_cache(self) -> None:
        """As the core does."""
        self._core.reset_prefix_cache()

    def freeze(self, *, retract: bool) -> None:
        """As the core does."""
        self._core.freeze(retract=retract)

    def thaw(self) -> None:
        """As the core does."""
        self._core.thaw()

    def load_adapter(self, call_id: int, lora: LoRARequest) -> None:
        """As the core does."""
        self._core.load_adapter(call_id, lora)

    def change_memory(self, message: MemoryChange) -> None:
        """As the core does."""
        self._core.change_memory(message)

    def page_map(self) -> PageMap | None:
        """The core's."""
        return self._core.page_map()

    def step(self) -> StepReport:
        """The core's step; searches report once, when they have finished."""
        report = self._core.step()
        if not self._asked:
            return report
        deltas: list[RequestDelta] = []
        for delta in report.deltas:
            running = self._asked.pop(delta.request_id, None)
            if running is None:
                if delta.request_id >= 0:  # else of a beam whose search has just failed
                    deltas.append(delta)
            elif delta.error is not None:
                deltas += self._fail(running, delta)
            elif self._take(running, delta):
                deltas += self._advance(running)
        report.deltas = deltas
        return report

    def close(self) -> None:
        self._core.close()

    def _ask(self, running: _Running) -> None:
        """One more token of each live beam."""
        message = running.message
        params = SamplingParams(
            temperature=0, max_tokens=1, ignore_eos=True, logprobs=running.num_logprobs
        )
        for number, beam in enumerate(running.search.live):
            request = AddRequest(
                request_id=next(self._ids),
                prompt_token_ids=message.prompt_token_ids + beam.token_ids,
                params=params,
                priority=message.priority,
                cache_salt=message.cache_salt,
                encoder_token_ids=message.encoder_token_ids,
                lora=message.lora,
            )
            running.arrival = self._core.add(request, running.arrival)
            running.asked[request.request_id] = number
            self._asked[request.request_id] = running

    def _take(self, running: _Running, delta: RequestDelta) -> bool:
        """Keep what the core said about one beam; whether that was the last of the step."""
        if running.num_cached_tokens is None:
            running.num_cached_tokens = delta.num_cached_tokens
            running.queue_seconds = delta.queue_seconds
        [running.tops[running.asked.pop(delta.request_id)]] = delta.logprobs or []
        return not running.asked

    def _fail(self, running: _Running, delta: RequestDelta) -> Iterator[RequestDelta]:
        """A beam cannot go on, and so its search; the core has ended that beam."""
        for request_id in running.message.request_ids:
            if self._searches.pop(request_id, None) is not None:
                yield replace(delta, request_id=request_id)
        del running.asked[delta.request_id]
        for child in running.asked:
            del self._asked[child]
        self._core.abort(running.asked)

    def _advance(self, running: _Running) -> Iterator[RequestDelta]:
        """Go on with the search; the sequences that it found, if it has ended."""
        search, tops = running.search, running.tops
        running.tops = {}
        search.advance([tops[number] for number in range(len(search.live))])
        if not search.finished:
            self._ask(running)
            return
        for request_id, ended in zip(running.message.request_ids, search.ended, strict=False):
            if self._searches.pop(request_id, None) is not None:
                yield RequestDelta(
                    request_id=request_id,
                    new_token_ids=ended.beam.token_ids,
                    logprobs=None if running.message.num_logprobs is None else ended.beam.logprobs,
                    finish_reason=ended.finish_reason,
                    stop_token_id=ended.stop_token_id,
                    num_cached_tokens=running.num_cached_tokens or 0,
                    queue_seconds=running.queue_seconds,
                )
                running.queue_seconds = None  # it waited once
