"""Constraints built and moved on in threads, while the device computes.

    build    ── source ──> compile, first mask      ──┐
    advance  ── sampled tokens ──> consume, next mask ├──> collect: what has finished, and how
                                                    ──┘
A row whose next mask is not here yet may be computed and is not sampled; rows without a grammar
never wait.
llguidance lets other threads run while it works. A row that was slow is moved on by itself, so
that it keeps no other waiting.

Owns threads, the vocabulary and the compiled grammars; knows `Request`, and nothing of slots.
"""

import logging
import os
import threading
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextlib import contextmanager
from dataclasses import dataclass, field
from time import perf_counter

from llguidance import LLMatcher

from engine.grammar.matcher import Constraint, Vocabulary, compile_grammar
from engine.request import Request
from models.errors import IngotError

logger = logging.getLogger(__name__)

_BUILDERS = 2
_WORKERS = min(4, os.cpu_count() or 1)
_SLOW_SECONDS = 1e-3
_CACHE_BYTES = 4 * 2**20  # of sources; what is compiled of them is some times as large


Working = set["Future[list[Outcome]]"]


@dataclass(slots=True)
class Outcome:
    """What became of a request's constraint: the tokens that must come next, or why it failed."""

    request: Request
    forced: list[int] = field(default_factory=list)
    error: str | None = None
    built: bool = False  # it is its first


class ConstraintThreads:
    """All constraints of one engine. `load` reads the vocabulary, once, in a thread."""

    def __init__(self, load: Callable[[], Vocabulary]) -> None:
        self._builders = ThreadPoolExecutor(_BUILDERS, "ingot-grammar-build")
        self._movers = ThreadPoolExecutor(_WORKERS, "ingot-grammar")
        self._vocabulary = self._builders.submit(load)
        self._compiled = CompiledGrammars()
        self._building: Working = set()
        self._moving: Working = set()
        self._builds: dict[int, Request] = {}

    @property
    def num_builds(self) -> int:
        """Requests that wait for their first mask."""
        return len(self._builds)

    @property
    def vocabulary(self) -> Vocabulary:
        """What grammars are followed in; blocks until it is read, and raises why it cannot be."""
        return self._vocabulary.result()

    def check(self, source: str) -> None:
        """Raise `RequestError` if `source` cannot be compiled; blocks."""
        self._vocabulary.result()
        self._builders.submit(self._new, source, jump=True, stops=()).result()

    def build(self, request: Request, source: str) -> None:
        """Begin a request's constraint; `collect` says when it may run."""
        self._builds[request.request_id] = request
        self._building.add(self._builders.submit(self._begin, request, source))

    def forget(self, request_ids: Iterable[int]) -> None:
        """Requests that are gone before their first mask was here."""
        for request_id in request_ids:
            self._builds.pop(request_id, None)

    def advance(self, requests: list[Request]) -> None:
        """Their newest tokens were read; masks for the next are wanted."""
        for request in requests:
            _constraint(request).ready = False
        alone = [[request] for request in requests if _constraint(request).slow]
        quick = [request for request in requests if not _constraint(request).slow]
        groups = [quick[start::_WORKERS] for start in range(_WORKERS)]
        for group in filter(None, [*alone, *groups]):
            self._moving.add(self._movers.submit(_advance_all, group))

    def collect_moved(self, seconds: float) -> list[Outcome]:
        """What is here, after waiting so long at most for all that `advance` began."""
        if not self._moving and not self._building:
            return []
        moved, self._moving = wait(self._moving, timeout=seconds)
        built, self._building = wait(self._building, timeout=0)
        return _outcomes(moved | built)

    def collect_any(self, seconds: float) -> list[Outcome]:
        """What is here, after waiting so long at most for the first of anything."""
        wait(self._moving | self._building, timeout=seconds, return_when=FIRST_COMPLETED)
        return self.collect_moved(0)

    def started(self, request: Request) -> bool:
        """Whether a collected request was waiting for its first mask, and now is not."""
        return self._builds.pop(request.request_id, None) is not None

    def close(self) -> None:
        for threads in (self._builders, self._movers):
            threads.shutdown(wait=True, cancel_futures=True)

    def _begin(self, request: Request, source: str) -> list[Outcome]:
        params = request.params
        jump = params.logprobs is None and params.prompt_logprobs is None
        outcome = Outcome(request, built=True)
        with _errors_to(outcome):
            request.constraint, outcome.forced = self._new(
                source, jump=jump, stops=params.stop_token_ids or ()
            )
        return [outcome]

    def _new(
        self, source: str, *, jump: bool, stops: Iterable[int]
    ) -> tuple[Constraint, list[int]]:
        vocabulary = self._vocabulary.result()
        matcher = self._compiled.get(vocabulary, source)
        constraint = Constraint(vocabulary, matcher, jump=jump, stop_token_ids=stops)
        return constraint, constraint.begin()


class CompiledGrammars:
    """Matchers at their beginning by source; the ones asked for last, up to a limit of bytes."""

    def __init__(self, max_bytes: int = _CACHE_BYTES) -> None:
        self._max_bytes = max_bytes
        self._bytes = 0
        self._matchers: OrderedDict[str, LLMatcher] = OrderedDict()
        self._lock = threading.Lock()

    def __len__(self) -> int:
        return len(self._matchers)

    def get(self, vocabulary: Vocabulary, source: str) -> LLMatcher:
        """A matcher of its own for the caller; raises `RequestError`."""
        with self._lock:
            known = self._matchers.get(source)
            if known is not None:
                self._matchers.move_to_end(source)
                return known.deep_copy()
        matcher = compile_grammar(vocabulary, source)  # others need not wait for it
        with self._lock:
            self._keep(source, matcher)
            return matcher.deep_copy()

    def _keep(self, source: str, matcher: LLMatcher) -> None:
        if source not in self._matchers:
            self._bytes += len(source)
        self._matchers[source] = matcher
        while self._bytes > self._max_bytes:
            oldest, _ = self._matchers.popitem(last=False)
            self._bytes -= len(oldest)


def _constraint(request: Request) -> Constraint:
    if request.constraint is None:
        raise RuntimeError("a request without a grammar was to be constrained")
    return request.constraint


def _advance_all(requests: list[Request]) -> list[Outcome]:
    return [_advance(request) for request in requests]


def _advance(request: Request) -> Outcome:
    constraint = _constraint(request)
    start = perf_counter()
    outcome = Outcome(request)
    with _errors_to(outcome):
        outcome.forced = constraint.advance(request.token_ids[-1])
    constraint.slow = perf_counter() - start > _SLOW_SECONDS
    return outcome


def _outcomes(futures: Iterable[Future[list[Outcome]]]) -> list[Outcome]:
    return [outcome for future in futures for outcome in future.result()]


@contextmanager
def _errors_to(outcome: Outcome) -> Iterator[None]:
    """One request's failure, whatever it is, is that request's alone."""
    try:
        yield
    except IngotError as error:
        outcome.error = str(error)
    except BaseException as error:  # a panic in Rust is no Exception
        logger.exception("a grammar failed")
        outcome.error = f"it failed with {type(error).__name__}"
