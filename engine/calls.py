"""The requests of one call of `LLM`, and the shared loop that all calls turn.

Several streams may be open at once, of several threads, too: whoever turns the loop puts what it
brings into the inbox of the call it belongs to. On the way out of a call, what is unfinished is
aborted.
"""

from collections import deque
from collections.abc import Callable, Collection, Iterator, Sequence
from functools import wraps
from itertools import count
from threading import RLock
from typing import Concatenate, ParamSpec, TypeVar

from msgspec import structs

from engine.beams.core import BeamCore
from engine.beams.params import BeamSearchParams
from engine.core import EngineCore
from engine.errors import RequestError
from engine.grammar.process import GrammarProcess
from engine.interrupts import held_back
from engine.messages import Answer, MemoryChange, ReadWeights
from engine.output_processor import OutputProcessor
from engine.outputs import OutputDelta, RequestOutput
from engine.plain_values import integer, sequence, string
from engine.profiling.profiler import Profiler
from engine.progress import Progress
from engine.prompts import Prompt
from engine.reasoning.config import ReasoningConfig, thinking_budget
from engine.sampling.params import SamplingParams
from engine.sleeping import (
    WAKING_TAGS,
    check_can_end,
    check_enabled,
    check_level,
    check_method,
    check_mode,
    check_scheduling,
    check_tags,
    read_weights,
    release_of_level,
    release_of_tags,
    restore_of_tags,
)
from engine.tokenizers.tokenizer import Tokenizer
from engine.vectors.prompt_embeds import GIVEN, rows_of

Inbox = deque[OutputDelta]
Params = SamplingParams | Sequence[SamplingParams] | None
Priority = int | Sequence[int]  # of all prompts of a call, or of each; lower is sooner
P = ParamSpec("P")
R = TypeVar("R")


def _alone(
    method: Callable[Concatenate["Loop", P], R],
) -> Callable[Concatenate["Loop", P], R]:
    """One thread at a time; who waits finds what the other has left in its inbox."""

    @wraps(method)
    def locked(loop: "Loop", /, *args: P.args, **kwargs: P.kwargs) -> R:
        with loop.lock:
            return method(loop, *args, **kwargs)

    return locked


class Loop:
    """The core and the output processor, turned by whichever call waits."""

    def __init__(
        self,
        core: EngineCore,
        tokenizer: Tokenizer | None,
        grammars: GrammarProcess,
        profiler: Profiler,
        reasoning: ReasoningConfig | None = None,
    ) -> None:
        self.lock = RLock()
        self.core, self._profiler = core, profiler
        self._grammars = grammars
        self._reasoning = reasoning
        self._beams = BeamCore(core)
        self.tokenizer = tokenizer
        self._processor = OutputProcessor(tokenizer)
        self._ids, self._changes = count(), count(1)
        self._inboxes: dict[str, Inbox] = {}

    @_alone
    def add(
        self,
        prompt: Prompt,
        params: SamplingParams,
        priority: int,
        inbox: Inbox,
        beams: BeamSearchParams | None = None,
    ) -> RequestOutput:
        """Start a request whose deltas go to `inbox`; returns its output, still empty.

        Raises `RequestError`.
        """
        request_id = str(next(self._ids))
        info = self.core.info
        if prompt.lora is not None:
            self.core.check_adapter(prompt.lora)
        read: list[int] = []
        token_ids: list[int] = []
        embeds = None if prompt.embeds is None else rows_of(prompt.embeds, info)
        if embeds is None:
            read, token_ids = prompt.for_model(self.tokenizer, info.decoder_prompt)
        thinking = thinking_budget(
            params.thinking_token_budget, self._reasoning, token_ids, self.tokenizer,
            info.max_model_len,
        )  # fmt: skip
        messages = self._processor.add(
            request_id,
            token_ids if embeds is None else [GIVEN] * len(embeds),
            params,
            priority=priority,
            cache_salt=prompt.cache_salt,
            grammar=self._grammar(params),
            beams=beams,
            thinking=thinking,
            encoder_token_ids=read,
            prompt_embeds=b"" if embeds is None else embeds.tobytes(),
            routed=None if beams else info.routed,
            lora=prompt.lora,
        )
        self._inboxes[request_id] = inbox
        try:
            for message in messages:
                self._beams.add(message)
        except Exception:
            self.abort(request_id)
            raise
        if read:
            own = prompt.decoder.text if prompt.decoder else None
            output = RequestOutput.begin(request_id, own, token_ids, params.n)
            output.encoder_prompt, output.encoder_prompt_token_ids = prompt.text, read
            return output
        return RequestOutput.begin(request_id, prompt.text, token_ids, params.n)

    def _grammar(self, params: SamplingParams) -> str:
        """What the output must satisfy, compiled once so that what is wrong is said here."""
        wanted = params.structured_outputs
        if wanted is None:
            return ""
        try:
            return self._grammars.compile(wanted)
        except RequestError as error:
            raise RequestError(
                f"structured_outputs.{wanted.constraint}: {error}.", "structured_outputs"
            ) from None

    def check_awake(self) -> None:
        """Raise RequestError where no step brings anything."""
        if self.core.sleeps and not self.core.has_work:
            raise RequestError("The engine sleeps; call wake_up() first.")

    @_alone
    def turn(self, inbox: Collection[OutputDelta] = ()) -> list[Answer]:
        """One step of the core, and what it answers, unless another thread has filled `inbox`; its
        deltas go to their inboxes, and Ctrl-C waits until they are there: other calls than the one
        that it ends go on. Raises RequestError."""
        if inbox:
            return []
        self.check_awake()
        with held_back():
            report = self._beams.step()
            self._profiler.see(report.stats.num_steps)
            processed = self._processor.process(report)
            self._beams.abort(processed.aborts)
            for delta in processed.outputs:
                self._inboxes[delta.request_id].append(delta)
        return report.answers

    @_alone
    def sleep(self, level: int, mode: str) -> None:
        """As `LLM.sleep`."""
        level = integer("level", level)
        check_level(level, enabled=self.core.config.enable_sleep_mode)
        check_mode(string("mode", mode))
        before = self.core.sleeps
        if mode == "wait":
            check_can_end(at_work=self.core.has_requests, resident=self.core.resident)
            self.core.thaw()  # what an earlier pause has frozen would never end
            while self.core.has_work:
                self.turn()
        if mode == "abort":
            engine_ids, ends = self._processor.abort_all()
            self._beams.abort(engine_ids)
            for delta in ends:
                self._inboxes[delta.request_id].append(delta)
        self.core.freeze(retract=False)
        try:
            self.change_memory(release_of_level(level))
        except RequestError:
            if not before:
                self.core.thaw()
            raise

    @_alone
    def reset_prefix_cache(self) -> None:
        """As `LLM.reset_prefix_cache`."""
        self.core.reset_prefix_cache()

    def release_kv_cache_memory(self) -> None:
        """As `LLM.release_kv_cache_memory`."""
        check_enabled(self.core.config.enable_sleep_mode)
        self.change_memory(release_of_tags(["kv_cache"]))

    @_alone
    def wake_up(self, tags: Sequence[str] | None) -> None:
        """As `LLM.wake_up`."""
        named = sequence("tags", tags, string) if tags else WAKING_TAGS
        check_tags(named, WAKING_TAGS)
        self.change_memory(restore_of_tags(named))
        if self.core.resident:
            self.core.thaw()
        else:
            check_scheduling(named)

    def update_weights(self, path: str, load_format: str, version: str | None) -> None:
        """As `LLM.update_weights_from_disk`."""
        self.change_memory(read_weights(self.core.config, path, load_format, version))

    def collective_rpc(self, method: str, args: Collection[object]) -> None:
        """As `LLM.collective_rpc`."""
        check_method(method, args)
        self.change_memory(ReadWeights())

    @_alone
    def change_memory(self, message: MemoryChange) -> None:
        """Have the core do this now; raises RequestError saying why it cannot."""
        asked = structs.replace(message, call_id=next(self._changes))
        self.core.change_memory(asked)
        answers: list[Answer] = []
        while not answers:  # one that Ctrl-C left behind may be told first
            answers = [each for each in self.turn() if each.call_id == asked.call_id]
        if answers[0].error is not None:
            raise RequestError(answers[0].error, answers[0].param)

    @_alone
    def abort(self, request_id: str) -> None:
        """Forget a request, finished or not."""
        self._beams.abort(self._processor.abort(request_id))
        del self._inboxes[request_id]


class Call:
    """A context in which requests run."""

    def __init__(self, loop: Loop) -> None:
        self._loop = loop
        self._inbox: Inbox = deque()
        self.outputs: dict[str, RequestOutput] = {}

    def add(
        self,
        prompt: Prompt,
        params: SamplingParams,
        priority: int = 0,
        beams: BeamSearchParams | None = None,
    ) -> None:
        output = self._loop.add(prompt, params, priority, self._inbox, beams)
        self.outputs[output.request_id] = output

    def add_all(
        self,
        prompts: Sequence[Prompt],
        params: Sequence[SamplingParams],
        priority: Priority = 0,
        beams: BeamSearchParams | None = None,
    ) -> None:
        """One request for each prompt; raises RequestError."""
        orders = _priorities(priority, len(prompts))
        for prompt, own, order in zip(prompts, params, orders, strict=True):
            self.add(prompt, own, order, beams)

    def deltas(self) -> Iterator[OutputDelta]:
        """Everything that the call's requests say, until all have ended; `outputs` grows along."""
        running = sum(len(output.outputs) for output in self.outputs.values())
        while running:
            while self._inbox:
                delta = self._inbox.popleft()
                self.outputs[delta.request_id].accumulate(delta)
                running -= delta.finish_reason is not None
                yield delta
            if running:
                self._loop.turn(self._inbox)

    def check_awake(self) -> None:
        """Raise RequestError where what has not ended yet cannot."""
        ended = sum(delta.finish_reason is not None for delta in self._inbox)
        if ended < sum(len(output.outputs) for output in self.outputs.values()):
            self._loop.check_awake()

    def __enter__(self) -> "Call":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Forget its requests, finished or not."""
        for request_id in self.outputs:
            self._loop.abort(request_id)


def finished(calls: Sequence[Call], use_tqdm: bool) -> list[RequestOutput]:
    """Run the requests of these calls to their end."""
    outputs = [output for call in calls for output in call.outputs.values()]
    total = sum(len(output.outputs) for output in outputs)
    with Progress(total, enabled=use_tqdm) as progress:
        for call in calls:
            for delta in call.deltas():
                progress.advance(len(delta.token_ids), delta.finish_reason is not None)
    return outputs


def params_of(given: Params, count: int, defaults: SamplingParams) -> Sequence[SamplingParams]:
    """Of each of `count` prompts; raises RequestError."""
    if given is None or isinstance(given, SamplingParams):
        return [given or defaults] * count
    if not isinstance(given, Sequence) or not all(
        isinstance(each, SamplingParams) for each in given
    ):
        raise RequestError(
            "sampling_params must be SamplingParams, or a list of them.", "sampling_params"
        )
    if len(given) != count:
        raise RequestError(
            f"{len(given)} sampling_params were given for {count} prompts.", "sampling_params"
        )
    return given


def _priorities(given: Priority, count: int) -> Sequence[int]:
    """Of each of `count` prompts; raises RequestError."""
    if not isinstance(given, list | tuple):
        return [integer("priority", given)] * count
    if len(given) != count:
        raise RequestError(f"{len(given)} priorities were given for {count} prompts.", "priority")
    return sequence("priority", given, integer)
