"""The front's side of the engine: requests go out, reports come in, each delta finds its stream.

    generate ──▶ OutputProcessor.add ──▶ outbox ──one frame a loop tick──▶ engine
    routes   ◀── RequestStream       ◀── OutputProcessor.process ◀─────────┘

Owns the engine's state; the streams are `flights`', what may wait is `admission`'s. It knows
neither HTTP nor prompts as text.
"""

import asyncio
import logging
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Literal

from engine.adapters.request import LoRARequest
from engine.cache.page_map import PageMap
from engine.errors import EngineDeadError, EngineError, RequestError
from engine.messages import (
    AbortRequests,
    EngineFailed,
    EngineStats,
    Freeze,
    FreezeGarbage,
    LoadAdapter,
    MemoryChange,
    ModelInfo,
    NewRequest,
    PoolRequest,
    Question,
    ResetPrefixCache,
    Speak,
    StartProfile,
    StepReport,
    StopProfile,
    Thaw,
    ToEngine,
    refusal,
)
from engine.output_processor import OutputProcessor
from engine.pooling.inputs import PoolInput
from engine.pooling_params import PoolingParams
from engine.profiling.request import ProfileRequest
from serve.admission import Admission
from serve.calls import EngineCalls
from serve.engine_process import EngineLink, StartError
from serve.errors import UnavailableError
from serve.flights import Flights
from serve.generation.prompt import Prompt as Prompt
from serve.generation.streams import RequestStream
from serve.operations.metrics import Metrics
from serve.operations.page_watch import PageWatch
from serve.operations.tracing import Traces
from serve.outbox import Outbox
from serve.pooling.in_flight import PoolsInFlight

EngineState = Literal["loading", "ready", "hung", "draining", "dead"]
_FAILED = "The engine failed while working on this request."
HUNG_SECONDS = 60.0  # without a word while there is work; hardly any step takes so long
logger = logging.getLogger("ingot.serve")


class EngineClient:
    """One engine and the requests that are in it."""

    def __init__(
        self,
        processor: OutputProcessor,
        metrics: Metrics,
        admission: Admission | None = None,
        traces: Traces | None = None,
    ) -> None:
        self.patience = HUNG_SECONDS  # longer while the engine is known to compute
        self._state: EngineState = "loading"
        self._heard = 0.0  # when the engine last said something, or was given its first work
        self._processor = processor
        self._metrics = metrics
        self._admission = admission or Admission(metrics)
        self.flights = Flights(processor, metrics, self._admission, traces)
        self._stats = EngineStats()
        self._info: ModelInfo | None = None
        self._outbox = Outbox(self._refuse)
        self._pools = PoolsInFlight(metrics)
        self._watch, self._calls = PageWatch(), EngineCalls()
        self._num_pooled = 0
        self._frozen = False
        self._num_changes = 0  # of the engine's memory, which take as long as a disk does
        self._idle = asyncio.Event()
        self._idle.set()

    @property
    def state(self) -> EngineState:
        """Whether requests can be taken, and if not, why."""
        hung = self._state == "ready" and self.silent_seconds > self.patience
        return "hung" if hung else self._state

    @property
    def silent_seconds(self) -> float:
        """How long the engine has had work and said nothing."""
        if self._num_changes or not self._awaited:
            return 0.0
        return time.monotonic() - self._heard

    @property
    def _awaited(self) -> bool:
        """Whether the engine is to say something: it answers each message, an abort too."""
        works = self.num_sequences > 0 and not self._frozen and self.resident
        return works or self._outbox.is_owed

    @property
    def resident(self) -> bool:
        """Whether the engine's weights and cache are where steps find them."""
        return self._stats.weights == self._stats.kv_cache == "resident"

    @property
    def is_frozen(self) -> bool:
        """Whether what is at work stays where it is."""
        return self._frozen or not self.resident

    @property
    def num_sequences(self) -> int:
        """That run or wait."""
        return self.flights.num_sequences + self._num_pooled

    @property
    def stats(self) -> EngineStats:
        """As of the engine's last report."""
        return self._stats

    @property
    def known(self) -> ModelInfo | None:
        """What is served, once the engine has said it."""
        return self._info

    @property
    def info(self) -> ModelInfo:
        """What is served; raises UnavailableError until the engine is ready."""
        if self._info is None:
            raise UnavailableError("The model is still loading; try again soon.")
        return self._info

    async def connect(self, link: EngineLink) -> ModelInfo:
        """Wait until the engine behind `link` can serve; raises StartError."""
        try:
            message = await link.receive()
        except EngineDeadError as error:
            raise StartError(f"The engine did not start. {error}", False) from None
        if isinstance(message, EngineFailed):
            raise StartError(message.message, message.user_error)
        if not isinstance(message, ModelInfo):
            raise StartError("The engine sent a report before it was ready.", False)
        self._outbox.link, self._info = link, message
        self._heard, self._outbox.is_owed = time.monotonic(), False
        if self._state == "loading":  # not draining, which it may have been told meanwhile
            self._state = "ready"
        self._metrics.model_ready(message)
        return message

    async def pump(self) -> str:
        """Deliver reports until the engine ends, or says what cannot be understood; returns why it
        did, for the log."""
        link = self._outbox.link
        if link is None:
            raise EngineDeadError("The engine is not connected.")
        reason = "The engine ended."
        try:
            while True:
                message = await link.receive()
                if isinstance(message, StepReport):
                    self._deliver(message)
                elif isinstance(message, EngineFailed):
                    reason = message.message
                    break
                if not link.has_more:  # what has piled up is one chunk of each stream
                    await asyncio.sleep(0)
        except EngineDeadError as error:
            reason = str(error)
        except Exception as error:  # another engine may be understood
            logger.exception("A report of the engine could not be delivered.")
            reason = f"A report of the engine could not be delivered ({type(error).__name__})."
        finally:
            self._state = "dead"
            self.flights.fail(EngineError(_FAILED))
            self._pools.fail(EngineError(_FAILED))
            self._calls.fail(EngineError(_FAILED))
        return reason

    @contextmanager
    def generate(
        self,
        request_id: str,
        prompts: Sequence[Prompt],
        priority: int = 0,
        interval: int = 1,
        shown: str | None = None,
    ) -> Iterator[RequestStream]:
        """Start `prompts`; what is unfinished when the `with` ends is aborted at once.

        `interval`: how many tokens of a choice are read together, but for its first and last.
        `shown`: the response's id, where it is not the `request_id`.

        Raises UnavailableError, EngineDeadError, OverloadedError, or RequestError of an option
        that this model cannot serve.
        """
        self._check_open()
        samples = prompts[0].params.n
        self._check_queue(samples * len(prompts), sum(each.num_tokens for each in prompts))
        names = [f"{request_id}-{position}" for position in range(len(prompts))]
        stream = RequestStream(names, samples, self._metrics.shown, interval)
        try:
            for name, prompt in zip(names, prompts, strict=True):
                self._expect_answer()
                requests = self.flights.start(name, prompt, priority, stream, shown or request_id)
                self._idle.clear()
                self._outbox.put(requests)
            yield stream
        finally:
            if aborted := self.flights.forget(names):
                self._outbox.put([AbortRequests(aborted)])
            self._rest()

    async def pool(
        self, inputs: Sequence[PoolInput], params: PoolingParams, priority: int = 0
    ) -> list[bytes]:
        """The vector of each input, float32; what is unfinished on the way out is aborted.

        Raises as `generate`, and RequestError of an input that this model cannot serve.
        """
        self._check_open()
        tokens = sum(len(each.token_ids) for each in inputs)
        self._check_queue(len(inputs), tokens)
        self._expect_answer()
        requests, waiters = self._pools.start(inputs, params, priority)
        self._num_pooled += len(requests)
        self._idle.clear()
        waiting = self._admission.enter(tokens)
        try:
            self._outbox.put(requests)
            return list(await asyncio.gather(*waiters))
        finally:
            waiting.end()
            self._num_pooled -= len(requests)
            aborted = self._pools.forget(requests)
            if aborted:
                self._outbox.put([AbortRequests(aborted)])
            self._rest()

    def reset_prefix_cache(self) -> None:
        """Have the engine find nothing again that it has computed; raises as `generate`."""
        self._check_open()
        self._tell([ResetPrefixCache()])

    def freeze_garbage(self) -> None:
        """Have the engine's process look for no garbage among what it has; raises as `generate`."""
        self._check_open()
        self._tell([FreezeGarbage()])

    async def freeze(self, *, retract: bool) -> None:
        """Have the engine start no step until `thaw`; what runs keeps its pages, or gives them
        back to `retract`. Raises as `generate`."""
        self._check_open()
        self._frozen = True
        await self._ask(Freeze(retract))

    def thaw(self) -> None:
        """Have the engine go on, if it was frozen."""
        if self._frozen:
            self._tell([Thaw()])
            self._frozen = False

    def change_memory(self, message: MemoryChange) -> asyncio.Future[None]:
        """Have the engine let go of memory or bring it back, which it does also if nobody waits;
        raises as `generate`, and later RequestError if it cannot."""
        self._check_open()
        change = asyncio.ensure_future(self._ask(message))
        self._num_changes += 1
        change.add_done_callback(self._changed)
        return change

    def _changed(self, change: asyncio.Future[None]) -> None:
        self._num_changes -= 1
        self._heard = time.monotonic()
        self._end_who_cannot()
        if not change.cancelled():
            change.exception()  # whoever asked may have gone

    async def load_adapter(self, lora: LoRARequest) -> None:
        """Have the engine read an adapter; raises as `generate`, and RequestError if it cannot."""
        self._check_open()
        await self._ask(LoadAdapter(lora))

    async def start_profile(self, request: ProfileRequest) -> None:
        """Have the engine trace its steps; raises as `generate`, and RequestError if it cannot."""
        self._check_open()
        await self._ask(StartProfile(request))

    async def stop_profile(self) -> None:
        """Have it write that trace, which takes a while; raises as `start_profile`."""
        self._check_open()
        await self._ask(StopProfile())

    async def end_profile(self) -> None:
        """Have it write a trace that nobody has ended, if there is one, also while it drains."""
        with suppress(RequestError):
            await self._ask(StopProfile())

    def look_at_pages(self) -> PageMap | None:
        """What the cache's pages held a moment ago, if that is known; asks for news of it."""
        if self.state in ("ready", "draining") and (question := self._watch.question()):
            self._tell(question)
        return self._watch.newest

    def ask_for_a_word(self) -> None:
        """Have an engine that has nothing to do say something, which one that hangs does not."""
        if self.state == "ready":
            self._tell([Speak()])

    def restart(self) -> None:
        """The engine is dead and another will be connected; nothing is left of the first."""
        self.flights.drop_all()
        if self._state == "dead":
            self._state = "loading"
        self._outbox.clear()
        self._frozen = False
        self._stats, self._watch = EngineStats(), PageWatch()
        self.flights.see_weights(self._stats.weight_version)

    def drain(self) -> None:
        """Refuse new requests from now on; those in flight go on, also where they were frozen, but
        end where the engine sleeps."""
        self.thaw()
        if self._state in ("loading", "ready"):
            self._state = "draining"
        self._end_who_cannot()

    def _end_who_cannot(self) -> None:
        """Nobody wakes an engine that drains."""
        if self._state == "draining" and not self.resident:
            self.fail_all("The server is shutting down.")

    async def wait_until_idle(self) -> None:
        """Return once no request is in flight."""
        await self._idle.wait()

    def fail_all(self, sentence: str) -> None:
        """End every request in flight with an error that says `sentence`."""
        self.flights.fail(UnavailableError(sentence))
        self._pools.fail(UnavailableError(sentence))

    def _check_open(self) -> None:
        if self._state == "dead":
            raise EngineDeadError("The engine has failed; try again soon, or another server.")
        if self.state == "hung":
            raise UnavailableError("The engine finishes no step; try again soon.")
        if self._state == "draining":
            raise UnavailableError("The server is shutting down.")
        if self._state == "loading":
            raise UnavailableError("The model is still loading; try again soon.")

    def _check_queue(self, count: int, tokens: int) -> None:
        """Refuse what would make more wait than may."""
        rows = self._stats.num_running if self._stats.num_waiting else self.info.max_num_seqs
        self._admission.check(self.num_sequences + count - rows, tokens)

    def _deliver(self, report: StepReport) -> None:
        self._stats = report.stats
        self._heard, self._outbox.is_owed = time.monotonic(), False
        self._metrics.engine_report(report)
        self.flights.see_weights(report.stats.weight_version)
        if report.pages is not None:
            self._watch.tell(report.pages)
        for begun in report.deltas:
            if begun.queue_seconds is not None:
                self._metrics.queued(begun.queue_seconds)
        self._calls.see(report.answers)
        self._share_out(report)

    def _share_out(self, report: StepReport) -> None:
        """What it adds to each request, to whoever waits for it."""
        if self._pools:
            report.deltas = [each for each in report.deltas if not self._pools.deliver(each)]
        step = self._processor.process(report)
        for delta in step.outputs:
            self.flights.hand_over(delta, report.sent_at)
        if step.aborts:
            self._outbox.put([AbortRequests(step.aborts)])

    def _refuse(self, message: ToEngine, error: Exception) -> None:
        """A message that cannot be sent ends what it was to begin."""
        if isinstance(message, NewRequest | PoolRequest):
            ends = refusal(message, f"The engine cannot be told of this request: {error}.")
            self._share_out(StepReport(deltas=ends, stats=self._stats))

    def _rest(self) -> None:
        """Say so if nothing is in flight any more."""
        if not self.flights and not self._pools:
            self._idle.set()

    async def _ask(self, question: Question) -> None:
        """Send an operator's wish, and wait until it is granted; raises RequestError if not."""
        asked, done = self._calls.start(question)
        self._tell([asked])
        await done

    def _tell(self, messages: Sequence[ToEngine]) -> None:
        """Send what is no request."""
        self._expect_answer()
        self._outbox.put(messages)

    def _expect_answer(self) -> None:
        """There is to be something to do: an engine that had no work, if only for slow clients, has
        been silent since now only."""
        if not self._awaited:
            self._heard = time.monotonic()
