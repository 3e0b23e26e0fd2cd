"""`ingot bench structured`: what rows with a grammar cost the rows beside them.

Streams without a grammar run beside as many neighbours that write freely, and beside as many that
keep to a JSON schema. The two take turns: a machine is not equally fast at all times, so that the
times between a stream's tokens are compared within a round. A neighbour that ends is followed by
another; free ones are as long as constrained ones were.
"""

import gc
import json
import statistics
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import count, islice
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING, Any

from rich.table import Table

from engine.errors import ConfigError
from engine.messages import AddRequest, RequestDelta
from engine.sampling.params import SamplingParams
from serve.bench.results import percentile
from serve.bench.target import BenchError

if TYPE_CHECKING:
    from engine import LLM
    from engine.core import EngineCore

FREE, CONSTRAINED = KINDS = ("free", "constrained")
_PROMPT = "Here is what we know about the animal, as JSON: "
_NAME = {"type": "string", "maxLength": 30}
RECORD: dict[str, Any] = {
    "type": "object",
    "properties": {
        "name": _NAME,
        "kind": {"enum": ["cat", "dog", "horse", "parrot"]},
        "age": {"type": "integer", "minimum": 0, "maximum": 99},
        "habits": {"type": "array", "items": _NAME, "minItems": 2, "maxItems": 6},
        "owner": {
            "type": "object",
            "properties": {"name": _NAME, "city": _NAME, "phone": {"type": ["string", "null"],
                           "pattern": "^[0-9]{3}-[0-9]{4}$"}},
            "required": ["name", "city", "phone"],
        },
    },
    "required": ["name", "kind", "age", "habits", "owner"],
}  # fmt: skip


@dataclass(frozen=True)
class Load:
    """Streams that are measured, rows beside them, tokens of a stream, and rounds that count."""

    streams: int = 8
    neighbours: int = 16
    tokens: int = 100
    rounds: int = 15


@dataclass
class Turn:
    """What one run of all rows gave: seconds between tokens of a stream, and in all."""

    gaps: list[float] = field(default_factory=list)
    lengths: list[int] = field(default_factory=list)  # of neighbours that ended
    neighbour_tokens: int = 0
    seconds: float = 0.0

    def as_json(self) -> dict[str, float]:
        """Milliseconds between a stream's tokens, and what its neighbours wrote a second."""
        return {
            "p50_itl_ms": 1e3 * percentile(self.gaps, 50),
            "p99_itl_ms": 1e3 * percentile(self.gaps, 99),
            "mean_itl_ms": 1e3 * statistics.fmean(self.gaps),
            "neighbours_tokens_per_s": self.neighbour_tokens / self.seconds,
        }


class _Rows:
    """The streams and their neighbours of one turn."""

    def __init__(self, core: "EngineCore", load: Load, neighbours: Iterator[AddRequest]) -> None:
        self._core = core
        self._load = load
        self._neighbours = neighbours
        self._written: dict[int, int] = {}  # tokens of neighbours that run
        self._last: dict[int, float] = {}  # when a stream that runs gave its newest token
        self._turn = Turn()

    def run(self, streams: Sequence[AddRequest]) -> Turn:
        """From the time when all neighbours write until the streams have ended."""
        for request in islice(self._neighbours, self._load.neighbours):
            self._begin(request)
        while not all(self._written.values()):
            self._step()
        self._turn.neighbour_tokens = 0
        start = perf_counter()
        for request in streams:
            self._core.add(request)
            self._last[request.request_id] = 0.0
        while self._last:
            self._step()
        self._turn.seconds = perf_counter() - start
        self._core.abort(self._written)
        while self._core.has_work:
            self._core.step()
        return self._turn

    def _begin(self, request: AddRequest) -> None:
        self._core.add(request)
        self._written[request.request_id] = 0

    def _step(self) -> None:
        deltas = self._core.step().deltas
        now = perf_counter()
        for delta in deltas:
            if delta.error is not None:
                raise BenchError(delta.error)
            if delta.request_id in self._last:
                self._heard(delta, now)
            else:
                self._beside(delta)

    def _heard(self, delta: RequestDelta, now: float) -> None:
        last = self._last[delta.request_id]
        if last:
            self._turn.gaps.append(now - last)
        self._last[delta.request_id] = now
        if delta.finish_reason is not None:
            del self._last[delta.request_id]

    def _beside(self, delta: RequestDelta) -> None:
        number = len(delta.new_token_ids)
        self._turn.neighbour_tokens += number
        self._written[delta.request_id] += number
        if delta.finish_reason is not None:
            self._turn.lengths.append(self._written.pop(delta.request_id))
            self._begin(next(self._neighbours))


def measure_structured(
    settings: dict[str, Any], load: Load, schema: dict[str, Any]
) -> dict[str, Any]:
    """Each round's numbers, and by round how many times longer a stream waits for its tokens
    beside constrained neighbours than beside free ones.

    Raises:
        RequestError: the schema cannot be compiled.
    """
    from engine import LLM

    rows = load.streams + load.neighbours
    # of bursts of tokens, which free rows would come in, the gaps say nothing
    steps = {"num_scheduler_steps": 1, **settings}
    with LLM(**steps, max_num_seqs=rows, enable_prefix_caching=False) as llm:
        llm.core.wait_for_programs()
        rounds = list(_rounds(llm, load, _source(llm, schema)))
    ratios = {
        name: [found[CONSTRAINED][name] / found[FREE][name] for found in rounds]
        for name in rounds[0][FREE]
    }
    return {
        "streams": load.streams, "neighbours": load.neighbours, "tokens": load.tokens,
        "rounds": rounds, "ratios": ratios,
    }  # fmt: skip


def table(found: dict[str, Any]) -> Table:
    """A row for each kind of neighbours, of all rounds' middles, and the ratios pair by pair."""
    title = f"{found['streams']} streams beside {found['neighbours']} rows that are"
    heads = ("p50 ms", "p99 ms", "mean ms", "those rows' tok/s")
    made = Table(title, *heads, box=None, pad_edge=False)
    names = list(found["ratios"])
    for kind in KINDS:
        runs = [each[kind] for each in found["rounds"]]
        made.add_row(kind, *(f"{statistics.median(r[name] for r in runs):.2f}" for name in names))
    for label, chosen in (("ratio", statistics.median), ("least", min), ("most", max)):
        made.add_row(label, *(f"{chosen(found['ratios'][name]):.3f}" for name in names))
    return made


def read_schema(path: Path | None) -> dict[str, Any]:
    """Of this file, or the small one; raises ConfigError."""
    if path is None:
        return RECORD
    try:
        schema = json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise ConfigError(f"--schema {path} cannot be read as JSON: {error}.") from None
    if not isinstance(schema, dict):
        raise ConfigError(f"--schema {path} holds no JSON object.")
    return schema


def _rounds(llm: "LLM", load: Load, grammar: str) -> Iterator[dict[str, dict[str, float]]]:
    """Odd rounds go backwards; the first run of each kind does not count."""
    tokenizer = llm.get_tokenizer()
    prompt = tokenizer.encode(_PROMPT) if tokenizer else []
    ids, streams = count(), _params(load.tokens, 0)
    lengths = [load.tokens]

    def turn(kind: str) -> Turn:
        gc.collect()
        source = grammar if kind == CONSTRAINED else ""
        rows = _Rows(llm.core, load, _neighbours(prompt, ids, source, lengths, load.tokens))
        return rows.run(
            [
                AddRequest(request_id=next(ids), prompt_token_ids=prompt, params=streams)
                for _ in range(load.streams)
            ]
        )

    lengths = turn(CONSTRAINED).lengths or lengths
    turn(FREE)
    for number in range(load.rounds):
        yield {kind: turn(kind).as_json() for kind in KINDS[:: -1 if number % 2 else 1]}


def _neighbours(
    prompt: list[int], ids: Iterator[int], grammar: str, lengths: Sequence[int], longest: int
) -> Iterator[AddRequest]:
    """One after the other; constrained ones end where their grammar does, or at the longest."""
    for number, request_id in enumerate(ids):
        length = longest if grammar else lengths[number % len(lengths)]
        params = _params(length, number, ignore_eos=not grammar)
        yield AddRequest(
            request_id=request_id, prompt_token_ids=prompt, params=params, grammar=grammar
        )


def _params(length: int, seed: int, *, ignore_eos: bool = True) -> SamplingParams:
    return SamplingParams(temperature=1.0, seed=seed, max_tokens=length, ignore_eos=ignore_eos)


def _source(llm: "LLM", schema: dict[str, Any]) -> str:
    from engine.grammar.params import StructuredOutputsParams
    from engine.grammar.source import grammar_source

    source = grammar_source(StructuredOutputsParams(json=schema), {})
    llm.core.check_grammar(source)
    return source
