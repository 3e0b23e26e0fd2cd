"""The engine's loop: schedule, launch, collect the step before, emit.

Owns the order of things; what a step's results mean for its requests is `deltas.py`'s. The device
always has the next step before the host has read the last one, so the host's work hides behind the
device's. Of rows with a grammar only the sampling waits, for masks that are made while their step
runs:

    settle masks ── sample late rows of step N ── launch N + 1 ── read N ── begin the next masks
"""

import random
from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import replace
from functools import partial
from time import perf_counter

from engine.adapters.loading import check_adapter, check_enabled, make_adapters
from engine.adapters.request import LoRARequest
from engine.adapters.slots import AdapterSlots
from engine.cache.block_pool import BlockPool
from engine.cache.host_tier import HostTier
from engine.cache.page_forks import PageForks
from engine.cache.page_map import PageMap
from engine.cache.page_residency import PageResidency
from engine.cache.state_slots import check_states, make_snapshots
from engine.compiling.compilation_cache import use_compilation_cache
from engine.compiling.fitting import Fitted, fit
from engine.compiling.lowering import LowerStep, lower_step
from engine.compiling.memory import KVLayout, claim_device_memory, make_tier
from engine.compiling.programs import Program, Programs
from engine.compiling.shapes import Shapes
from engine.config import EngineConfig
from engine.deltas import collect
from engine.encoders.alignment import Aligner
from engine.errors import EngineDeadError, EngineError, RequestError
from engine.grammar.background import ConstraintThreads
from engine.grammar.matcher import Vocabulary, load_vocabulary
from engine.grammar.steering import ConstrainedRequests
from engine.messages import AddRequest, EngineStats, MemoryChange, RequestDelta, StepReport
from engine.model_files import tokenizer_folder
from engine.model_info import info_of
from engine.model_reading import WeightReader, read_model
from engine.reasoning.thinking import Thinking, ThinkingBudget
from engine.request import make_request
from engine.residence import Residence
from engine.runner import Launched, Runner
from engine.sampling.late_rows import LateRows
from engine.sampling.logits_processors import load_processors
from engine.sampling.state import MAX_EOS_IDS
from engine.scheduling import admission
from engine.scheduling.pace import Pace
from engine.scheduling.scheduler import Scheduler
from engine.speculation.acceptance import count_drafts
from engine.speculation.requests import check_speculation, make_drafter
from engine.tokenizers.tokenizer import has_tokenizer
from engine.vectors.hidden_states import check_hidden
from engine.vectors.prompt_embeds import EmbedsAtWork
from engine.watermarking.contexts import key_words
from engine.watermarking.requests import with_watermark
from models.checkpoints.loading import LoadedModel
from models.errors import IngotError, UnsupportedError
from models.sharding import make_mesh

_IDLE_WAIT = 0.01  # seconds for an adapter, when there is nothing else to do

MakeRunner = Callable[
    [
        LoadedModel, Shapes, KVLayout, Programs, HostTier | None, Programs | None,
        PageForks | None, Aligner | None,
    ],
    Runner,
]  # fmt: skip


class EngineCore:
    """A model that is loaded, compiled and ready to continue token ids.

    `make_runner` and `lower` stand another device below the loop: one that only takes its time.

    Raises:
        ModelError: the model cannot be loaded.
        ConfigError: the settings do not fit the model or the machine.
    """

    def __init__(
        self,
        config: EngineConfig,
        make_runner: MakeRunner = Runner,
        lower: LowerStep | None = None,
    ) -> None:
        use_compilation_cache(config.compilation_cache_dir, config.compilation_cache_size)
        self.config = config
        claim_device_memory(config)
        start = perf_counter()
        mesh = make_mesh(config.tensor_parallel_size)
        model = read_model(config, mesh)
        self._adapters = make_adapters(config, model)
        reader = WeightReader(config, model, self._adapters)
        self.model = model = self._adapters.model if self._adapters else model
        loaded = perf_counter()
        check_states(config, model.config, mesh)
        check_speculation(config, model.config)
        self._processors = load_processors(config.logits_processors, model.config.vocab_size)
        lower = lower or partial(lower_step, processors=self._processors)
        # steps that are read at once have nothing to run ahead of; without words is no grammar
        late = config.async_scheduling and has_tokenizer(tokenizer_folder(config))
        fitted = fit(config, model, lower, self._processors.num_fields, late=late)
        shapes, kv = fitted.shapes, fitted.kv
        self._times = shapes.times
        tier = make_tier(config, kv)
        parts = fitted.programs, tier, fitted.encoders, fitted.forks, fitted.aligner
        self._runner = make_runner(model, shapes, kv, *parts)
        self._residency: PageResidency | None = None
        if config.kv_cache_metrics:
            self._residency = PageResidency(config.kv_cache_metrics_sample, config.seed)
        slots = self._adapters.slots if self._adapters else None
        self._scheduler = _make_scheduler(config, fitted, tier, self._residency, slots)
        self._residence = Residence(self._runner, self._scheduler, reader)
        programs, paced = self._runner.programs, config.num_scheduler_steps == "auto"
        self._pace = Pace(programs) if paced and shapes.windows else None
        self._windows = (self._pace or programs).windows if shapes.windows else None
        self._eos, self._random = _end_of_text_ids(model), random.Random(config.seed)
        self._constraints = ConstraintThreads(partial(_load_vocabulary, config, model))
        self._constrained = ConstrainedRequests(self._constraints, self._scheduler)
        self._settled: list[RequestDelta] = []  # not reported yet: an interrupt keeps them here
        self._arrivals, self._step_seconds = 0, 0.0  # the seconds of the last step that was read
        self._launched: deque[Launched] = deque()  # the oldest first; two at the most
        self._late = LateRows()
        self._sampled_late: list[Launched] = []  # and not read yet
        self._dead: str | None = None
        self._frozen = False
        self.stats = EngineStats(num_pages=kv.num_pages - 1, num_free_pages=kv.num_pages - 1)
        self._tier, self._page_bytes = tier, kv.page_bytes
        warm_up = self._runner.warm_up()
        self.info = info_of(model, fitted, tier, loaded - start, perf_counter() - loaded)
        self.info.warm_up_seconds = warm_up
        self._embeds = EmbedsAtWork(self.info)
        self.stats.num_host_pages = self.info.num_host_pages

    @property
    def has_requests(self) -> bool:
        """Whether any has not ended, if only because the engine sleeps."""
        return self._scheduler.has_requests or self._constrained.num_builds > 0

    @property
    def has_work(self) -> bool:
        building = self._constrained.num_builds > 0
        loading = self._adapters is not None and self._adapters.loading
        launched = bool(self._launched or self._sampled_late)
        waiting = self._scheduler.has_requests and not self.sleeps
        return waiting or launched or building or loading or self._residence.due

    def add(self, message: AddRequest, arrival: int | None = None) -> int:
        """Queue a request; returns its place among those of its priority.

        One that goes on with an earlier request's work takes that one's place by its `arrival`,
        and its tokens count as a prompt no second time.

        Raises:
            RequestError: it cannot be served as it is written.
        """
        self._check_alive()
        info, embeds, mark = self.info, self._embeds.of(message), self.config.watermark_config
        message = with_watermark(message, mark)
        check_hidden(message, info)
        by_priority = self.config.scheduling_policy == "priority"
        admission.check(
            message, vocab_size=info.vocab_size, max_model_len=info.max_model_len,
            by_priority=by_priority, max_encoder_len=info.max_encoder_len, mel_bins=info.mel_bins,
            embeds=embeds is not None, aligns=info.aligns,
        )  # fmt: skip
        if message.lora is not None:
            check_enabled(self._adapters)
        extra_fields = self._processors.column(message.params.extra_args)
        drafter = make_drafter(self.config.speculative_config, self.model.config, message)
        if arrival is None:
            self._arrivals = arrival = self._arrivals + 1
            heard = info.max_encoder_len if message.encoder_features else 0
            sequences = message.prompt_token_ids, message.encoder_token_ids
            self.stats.prompt_tokens += sum(map(len, sequences)) + heard
        request = make_request(
            message, arrival=arrival, seed=self._random.getrandbits(63), eos=self._eos,
            max_model_len=info.max_model_len, max_encoder_len=info.max_encoder_len, embeds=embeds,
            times=self._times,
        )  # fmt: skip
        request.extra_fields, request.drafter = extra_fields, drafter
        request.watermark_key = key_words(mark.key if mark else 0)
        if message.thinking is not None:
            request.thinking = self._thinking(message.thinking, request.num_prompt_tokens)
        if message.grammar:
            self._constrained.add(request, message.grammar)
        else:
            self._scheduler.add(request)
        return arrival

    def _thinking(self, budget: ThinkingBudget, prompt_len: int) -> Thinking:
        try:
            token_bytes = self._constraints.vocabulary.token_bytes
        except IngotError as error:
            raise RequestError(
                f"A thinking budget cannot be followed: {error}", "thinking_token_budget"
            ) from None
        return Thinking(budget, token_bytes, prompt_len)

    def check_grammar(self, source: str) -> None:
        """Compile a grammar now; raises `RequestError` saying why it cannot be."""
        self._constraints.check(source)

    def abort(self, request_ids: Iterable[int]) -> None:
        """Forget requests; their rows and pages are free for the next step."""
        ids = list(request_ids)
        self._constrained.abort(ids)
        self._scheduler.abort(ids)

    def check_adapter(self, lora: LoRARequest) -> None:
        """Read an adapter now, unless it is known; raises `RequestError` saying why it cannot
        be."""
        check_adapter(self._adapters, lora)

    def load_adapter(self, call_id: int, lora: LoRARequest) -> None:
        """Begin to read an adapter while requests go on; a step's report answers.

        Raises:
            RequestError: there is no room for any.
        """
        check_enabled(self._adapters).load(call_id, lora)

    def reset_prefix_cache(self) -> None:
        """Find nothing again that was computed until now; requests that run go on."""
        self._scheduler.reset_prefix_cache()

    def freeze(self, *, retract: bool) -> None:
        """Start no step until `thaw`; those that were started are read. Requests that run keep
        their rows and pages, or, to `retract`, give them back and begin again."""
        self._frozen = True
        if retract:
            self._scheduler.retract()

    def thaw(self) -> None:
        """Requests go on."""
        self._frozen = False

    def change_memory(self, message: MemoryChange) -> None:
        """Let go of weights and pages, bring them back, or take others, once all steps that began
        are read; the report of the step that does it answers. No other step begins before."""
        self._check_alive()
        self._residence.ask(message)

    @property
    def resident(self) -> bool:
        """Whether weights and cache are where steps find them."""
        return self._residence.complete

    @property
    def sleeps(self) -> bool:
        """Whether no step begins."""
        return self._frozen or not self._residence.complete

    def _change_memory(self) -> None:
        residence, stats = self._residence, self.stats
        residence.act()
        self._late.due()  # of requests that begin again no logits are needed
        stats.weights, stats.kv_cache = residence.weights, residence.kv_cache
        stats.weight_version = residence.version
        self.model = replace(self.model, leaves=self._runner.leaves)

    def step(self) -> StepReport:
        """Start the next step, then report what the one before it gave; without asynchronous
        scheduling, what the same one gave.

        Raises:
            EngineError: the device failed, or the host; the engine cannot go on.
        """
        self._check_alive()
        try:
            return self._step()
        except Exception as error:  # the donated state is gone, or a plan half made
            self._dead = f"The engine failed: {type(error).__name__}: {error}"
            raise EngineError(self._dead) from error

    def _step(self) -> StepReport:
        start = perf_counter()
        if self._adapters is not None:
            self._settled += self._adapters.settle(self._scheduler)
        self._settled += self._constrained.settle(self._step_seconds / 4)
        began = False
        if self._residence.due and not (self._launched or self._sampled_late):
            self._change_memory()
        if not self.sleeps:
            self._sample_late()
            began = not self._alone and self._launch()
        launched = perf_counter()
        ahead = began and self.config.async_scheduling and not self._alone
        oldest = [self._launched[0]] if len(self._launched) > ahead else []  # the newest is not due
        due = oldest + self._sampled_late
        results = [each.read() for each in due]
        read = perf_counter()
        if due:
            self._step_seconds = read - start
            if self._pace is not None and oldest:
                self._pace.has_read(oldest[0])
            for each, result in zip(due, results, strict=True):
                self._settled += collect(self._scheduler, each, result)
                count_drafts(self.stats, each.plan.drafts)
            self._sampled_late.clear()
            if oldest:
                self._launched.popleft()
            self._constrained.advance([r for each in due for r in each.plan.sampling])
        elif not began and self._adapters is not None and self._adapters.reading:
            self._settled += self._adapters.settle(self._scheduler, _IDLE_WAIT)
        elif not began:
            self._settled += self._constrained.wait()
        deltas, self._settled = self._settled, []
        self._count(deltas, start, launched, read)
        report = StepReport(deltas=deltas, stats=self.stats)
        report.answers = self._residence.take_answers()
        if self._adapters is not None:
            report.answers += self._adapters.take_answers()
        if self._residency is not None:
            report.evictions = self._residency.take()
        return report

    @property
    def programs(self) -> list[Program]:
        """The compiled steps that are ready."""
        return self._runner.programs.ready

    def pages(self) -> dict[int, list[int]]:
        """The pages that each running request owns now, by request id."""
        return {r.request_id: list(r.pages) for r in self._scheduler.running}

    def page_map(self) -> PageMap:
        """What all pages hold; nothing needs this but somebody who looks."""
        return self._scheduler.pool.map()

    def wait_for_programs(self) -> None:
        """Block until every shape has its own program; nothing needs this but measurements."""
        self._runner.programs.wait()

    def close(self) -> None:
        """Stop compiling in the background. The engine takes no requests afterwards."""
        self._dead = self._dead or "The engine was closed."
        self._constraints.close()
        self._runner.close()
        self._residence.close()
        if self._tier is not None:
            self._tier.clear()

    @property
    def _alone(self) -> bool:
        """Whether the device has a step behind which nothing is started until it was read: a long
        window, or one with drafts, of which nobody knows yet how far they go."""
        if any([each.plan.drafts for each in self._launched]):
            return True
        return self._pace is not None and self._pace.is_full(self._launched)

    def _sample_late(self) -> None:
        """Choose tokens for rows of the newest step whose masks are here."""
        for rows in self._late.due():
            self._sampled_late.append(self._runner.sample_late(rows))
            self._late.sampled(rows)

    def _launch(self) -> bool:
        """Plan and start a step; False if there is nothing to compute."""
        run_ahead = self._runner.programs.samples_late and not self._late.full
        plan = self._scheduler.schedule(self._windows, run_ahead=run_ahead)
        if not plan.num_tokens:
            return False
        try:
            if self._adapters is not None:
                self._adapters.bring(self._runner)
            launched = self._runner.launch(plan)
        except KeyboardInterrupt:  # a notebook's stop button: what was planned is planned anew
            self._scheduler.undo(plan)
            raise
        self._late.add(launched.late)
        self._launched.append(launched)
        self.stats.num_steps += 1
        later_turns = sum(plan.counts) - len(plan.counts)
        self.stats.scheduled_tokens += plan.num_tokens + later_turns
        self.stats.padded_tokens += launched.shape.tokens * plan.window
        return True

    def _count(
        self, deltas: list[RequestDelta], start: float, launched: float, read: float
    ) -> None:
        stats, scheduler, end = self.stats, self._scheduler, perf_counter()
        stats.num_running = len(scheduler.running)
        stats.num_waiting = len(scheduler.waiting)
        stats.num_deferred = self._constrained.num_builds
        stats.num_free_pages = scheduler.pool.num_free
        stats.num_preemptions = scheduler.num_preemptions
        stats.prefix_cache_queries = scheduler.prefix_queries
        stats.prefix_cache_hits = scheduler.prefix_hits
        if self._tier is not None and (copies := self._runner.copies):
            stats.external_prefix_cache_queries = scheduler.host_queries
            stats.external_prefix_cache_hits = scheduler.host_hits
            stats.num_used_host_pages = len(self._tier)
            stats.kv_offload_store_bytes = copies.stored_pages * self._page_bytes
            stats.kv_offload_load_bytes = copies.fetched_pages * self._page_bytes
        stats.num_compiles_after_warmup = self._runner.programs.num_unexpected_compiles
        stats.generation_tokens += sum([len(delta.new_token_ids) for delta in deltas])
        stats.num_corrupted += sum([delta.internal for delta in deltas])
        stats.step_seconds += end - start
        stats.host_seconds += (end - read) + (launched - start)

    def _check_alive(self) -> None:
        if self._dead:
            raise EngineDeadError(self._dead)


def _make_scheduler(
    config: EngineConfig,
    fitted: Fitted,
    tier: HostTier | None,
    residency: PageResidency | None,
    adapters: AdapterSlots | None,
) -> Scheduler:
    shapes, kv = fitted.shapes, fitted.kv
    return Scheduler(
        BlockPool(kv.num_pages, residency),
        page_size=shapes.page_size,
        max_num_seqs=shapes.max_num_seqs,
        max_num_batched_tokens=shapes.max_num_batched_tokens,
        prefix_caching=config.enable_prefix_caching,
        longest_prefix_first=config.scheduling_policy == "lpm",
        tier=tier,
        snapshots=make_snapshots(kv.states, shapes.max_num_seqs),
        adapters=adapters,
    )


def _end_of_text_ids(model: LoadedModel) -> frozenset[int]:
    ids = model.eos_token_ids
    if len(ids) > MAX_EOS_IDS:
        raise UnsupportedError(
            f"The model has {len(ids)} end-of-text ids and {MAX_EOS_IDS} are supported; shorten "
            "eos_token_id in its generation_config.json."
        )
    return ids


def _load_vocabulary(config: EngineConfig, model: LoadedModel) -> Vocabulary:
    """What grammars are followed in; read in a thread, while programs are compiled."""
    folder = tokenizer_folder(config)
    return load_vocabulary(folder, model.config.vocab_size, model.eos_token_ids)
