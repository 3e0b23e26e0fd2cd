"""Prompts that are in the engine to be continued, and who reads each.

Owns their streams, and what is counted and traced of them from beginning to end. Knows neither the
engine nor its state: what is to be sent there it returns.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from engine.messages import FIRST_WEIGHTS, FinishReason, NewRequest
from engine.output_processor import OutputProcessor
from engine.outputs import OutputDelta
from models.errors import IngotError
from serve.admission import Admission, Waiting
from serve.errors import AbortedError
from serve.generation.prompt import Prompt
from serve.generation.streams import RequestStream
from serve.operations.metrics import Metrics, Timeline
from serve.operations.tracing import Trace, Traces

_ENDED = "The server's operator ended this request."


@dataclass(slots=True)
class _Flight:
    """A prompt in the engine: who reads it, and the choices that have not finished."""

    stream: RequestStream
    timelines: dict[int, Timeline]
    waiting: Waiting
    trace: Trace | None = None
    longest: int = 0  # tokens of a choice that has
    shown: str = ""  # the id of the response
    adapter: str | None = None  # its name


class Flights:
    """All of one engine."""

    def __init__(
        self,
        processor: OutputProcessor,
        metrics: Metrics,
        admission: Admission,
        traces: Traces | None = None,
    ) -> None:
        self.num_sequences = 0  # that run or wait
        self._processor = processor
        self._metrics = metrics
        self._admission = admission
        self._traces = traces
        self._flights: dict[str, _Flight] = {}
        self._weights = FIRST_WEIGHTS

    def __len__(self) -> int:
        return len(self._flights)

    def start(
        self, name: str, prompt: Prompt, priority: int, stream: RequestStream, shown: str
    ) -> Sequence[NewRequest]:
        """The messages that begin it; `shown` is the response's id."""
        requests = self._processor.add(
            name, prompt.token_ids, prompt.params,
            priority=priority, cache_salt=prompt.cache_salt, grammar=prompt.grammar,
            beams=prompt.beams, thinking=prompt.thinking, lora=prompt.lora,
            encoder_token_ids=list(prompt.encoder_token_ids),
            encoder_features=prompt.encoder_features, align=prompt.align,
            times_from=prompt.times_from,
            prompt_embeds=prompt.embeds, hidden=prompt.hidden, routed=prompt.routed,
            prediction_token_ids=prompt.prediction_token_ids,
        )  # fmt: skip
        mark = self._metrics.watermark_of(prompt.params, beams=prompt.beams is not None)
        timelines = {
            index: Timeline(prompt.num_tokens, watermark=mark) for index in range(prompt.params.n)
        }
        stream.timelines += timelines.values()
        trace = self._traces.begin(name, prompt.num_tokens, prompt.params) if self._traces else None
        adapter = prompt.lora.lora_name if prompt.lora else None
        waiting = self._admission.enter(prompt.num_tokens)
        self._flights[name] = _Flight(stream, timelines, waiting, trace, 0, shown, adapter)
        self.num_sequences += len(timelines)
        self._metrics.started(prompt.params)
        return requests

    def hand_over(self, delta: OutputDelta, sent_at: float) -> None:
        """Give a prompt's reader what the engine said, and count it."""
        flight = self._flights.get(delta.request_id)
        if flight is None or delta.index not in flight.timelines:
            return
        timeline = flight.timelines[delta.index]
        if delta.queue_seconds is not None:
            timeline.queue_seconds = delta.queue_seconds
            timeline.cached_tokens = delta.num_cached_tokens
            self._metrics.prompt_known(timeline, delta.num_external_tokens)
        self._metrics.tokens(timeline, len(delta.token_ids))
        if delta.token_ids:
            flight.waiting.end()
        timeline.preemptions = delta.num_preemptions or timeline.preemptions
        if delta.finish_reason is not None:
            timeline.weights = self._weights
            del flight.timelines[delta.index]
            self._end(flight, timeline, delta.finish_reason)
            self.num_sequences -= 1
        flight.stream.put(delta, sent_at)

    def see_weights(self, version: str) -> None:
        """From now on these are the weights that write."""
        if version == self._weights:
            return
        for flight in self._flights.values():
            for timeline in flight.timelines.values():
                timeline.earlier_weights += ((timeline.tokens, self._weights),)
        self._weights = version

    def forget(self, names: Sequence[str]) -> list[int]:
        """Drop these prompts; returns the ids of what is unfinished, which is to leave the engine,
        too."""
        aborted: list[int] = []
        for name in names:
            if (flight := self._flights.pop(name, None)) is not None:
                aborted += self._drop(name, flight)
        return aborted

    def drop_all(self) -> None:
        """The engine is gone; what slow clients have not read yet is no work of the next."""
        for name, flight in self._flights.items():
            self._drop(name, flight)

    def fail(self, error: IngotError) -> None:
        """End everything with `error`."""
        for flight in self._flights.values():
            flight.stream.fail(error)

    def in_flight(self) -> Iterator[tuple[str, int, list[Timeline]]]:
        """Each prompt at work: its name, its tokens, and its choices that have not finished."""
        for name, flight in self._flights.items():
            timelines = list(flight.timelines.values())
            if timelines:
                yield name, timelines[0].prompt_tokens, timelines

    def adapters_at_work(self) -> tuple[set[str], set[str]]:
        """Names of those that write, and of those whose first token somebody waits for; may be
        called from any thread."""
        running: set[str] = set()
        waiting: set[str] = set()
        for flight in list(self._flights.values()):
            if flight.adapter is not None:
                for timeline in list(flight.timelines.values()):
                    (waiting if timeline.first_token is None else running).add(flight.adapter)
        return running, waiting

    def end(self, name: str) -> bool:
        """End a prompt at the operator's wish; whether there is one of that name."""
        if flight := self._flights.get(name):
            flight.stream.fail(AbortedError(_ENDED))
        return flight is not None

    def end_responses(self, response_id: str | None) -> int:
        """The same for the responses of this id, or all; how many prompts that were."""
        found = [
            flight
            for flight in self._flights.values()
            if flight.timelines and response_id in (None, flight.shown)
        ]
        for flight in found:
            flight.stream.fail(AbortedError(_ENDED))
        return len(found)

    def _drop(self, name: str, flight: _Flight) -> list[int]:
        """End the choices that have not finished; returns by which ids the engine knows them."""
        if not flight.timelines:
            return []
        self.num_sequences -= len(flight.timelines)
        for index, timeline in list(flight.timelines.items()):
            del flight.timelines[index]
            self._end(flight, timeline, "abort")
        return self._processor.abort(name)

    def _end(self, flight: _Flight, timeline: Timeline, reason: FinishReason) -> None:
        """A choice of `flight`, which is no longer among its timelines, has ended."""
        self._metrics.finished(timeline, reason)
        flight.longest = max(flight.longest, timeline.tokens)
        if flight.trace is not None:
            flight.trace.choice_ended(timeline, reason)
        if flight.timelines:
            return
        flight.waiting.end()
        self._metrics.all_finished(flight.longest)
        if flight.trace is not None:
            flight.trace.end()
