"""The requests of one call of `LLM`, and the shared loop that all calls turn.

Several streams may be open at once: whoever turns the loop puts what it brings into the inbox
of the call it belongs to. On the way out of a call, what is unfinished is aborted.
"""

from collections import deque
from collections.abc import Iterator, Sequence
from itertools import count

from engine.beams.core import BeamCore
from engine.beams.params import BeamSearchParams
from engine.core import EngineCore
from engine.errors import RequestError
from engine.grammar.process import GrammarProcess
from engine.interrupts import held_back
from engine.output_processor import OutputProcessor
from engine.outputs import OutputDelta, RequestOutput
from engine.plain_values import integer, sequence
from engine.profiling.profiler import Profiler
from engine.prompts import Prompt
from engine.reasoning.config import ReasoningConfig, thinking_budget
from engine.sampling.params import SamplingParams
from engine.tokenizers.tokenizer import Tokenizer
from engine.vectors.prompt_embeds import GIVEN, rows_of

Inbox = deque[OutputDelta]
Priority = int | Sequence[int]  # of all prompts of a call, or of each; lower is sooner


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
        self.core, self._profiler = core, profiler
        self._grammars = grammars
        self._reasoning = reasoning
        self._beams = BeamCore(core)
        self.tokenizer = tokenizer
        self._processor = OutputProcessor(tokenizer)
        self._ids = count()
        self._inboxes: dict[str, Inbox] = {}

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

    def turn(self) -> None:
        """One step of the core; its deltas go to their inboxes, and Ctrl-C waits until they are
        there: other calls than the one that it ends go on."""
        with held_back():
            report = self._beams.step()
            self._profiler.see(report.stats.num_steps)
            processed = self._processor.process(report)
            self._beams.abort(processed.aborts)
            for delta in processed.outputs:
                self._inboxes[delta.request_id].append(delta)

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
                self._loop.turn()

    def __enter__(self) -> "Call":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Forget its requests, finished or not."""
        for request_id in self.outputs:
            self._loop.abort(request_id)


def _priorities(given: Priority, count: int) -> Sequence[int]:
    """Of each of `count` prompts; raises RequestError."""
    if not isinstance(given, list | tuple):
        return [integer("priority", given)] * count
    if len(given) != count:
        raise RequestError(f"{len(given)} priorities were given for {count} prompts.", "priority")
    return sequence("priority", given, integer)
