"""An engine core without a model: it answers each prompt with the prompt itself, over and over.

    prompt 72 105        output 72 105 72 105 72 ...     until max_tokens or an end-of-text id

Some first tokens of a prompt are commands: REFUSE, FAIL_STEP, KILL. Run as a program, it is an
engine process: `python tests/fake_engine.py FD`.
"""

import logging
import os
import signal
import socket
import sys
import time
from dataclasses import dataclass, field
from math import log
from typing import Any

import msgspec
import numpy as np

from engine.adapters.request import LoRARequest
from engine.beams.core import BeamCore
from engine.cache.page_map import PageMap, draw
from engine.config import EngineConfig
from engine.errors import ConfigError, RequestError
from engine.messages import (
    FIRST_WEIGHTS,
    AddRequest,
    Answer,
    CacheState,
    EngineStats,
    MemoryChange,
    ModelInfo,
    ReadWeights,
    Release,
    RequestDelta,
    StepReport,
    TokenLogprobs,
    WeightsState,
)
from engine.process import serve_engine
from engine.vectors.hidden_states import check_hidden
from engine.vectors.prompt_embeds import EmbedsAtWork, PromptEmbeds
from engine.vectors.routed_rows import RoutedRows
from engine.watermarking.requests import with_watermark

logger = logging.getLogger("engine.fake")
VOCAB = 300
CONTEXT = 128
END = 257  # of a turn; the demo templates of the tests end turns with it
REFUSE, FAIL_STEP, KILL = 290, 291, 292
PAGES, PAGE_SIZE = 64, 16
WIDTH = 4  # of embeddings and hidden states
ENCODER, ENCODED = "encoder", 60  # the model of this name has one, that reads so many tokens


@dataclass
class Row:
    request: AddRequest
    output: list[int] = field(default_factory=list)
    embeds: PromptEmbeds | None = None


class FakeCore:
    """What `engine.process` and the tests drive. `step_seconds` is how long a step takes."""

    def __init__(self, config: EngineConfig, step_seconds: float = 0.0) -> None:
        if config.seed == 666:
            raise ConfigError("--seed 666 is unlucky; use another.")
        if config.seed == 667:
            raise RuntimeError("a bug\nin the engine")
        logger.debug("an engine of %d rows", config.max_num_seqs or 4)
        self.config = config
        self.step_seconds = step_seconds
        self.rows = config.max_num_seqs or 4
        self.running: dict[int, Row] = {}
        self.waiting: dict[int, Row] = {}
        self.added: list[AddRequest] = []
        self.aborted: list[int] = []
        self.answers: list[Answer] = []
        self.num_steps = self.num_prompt = self.num_generated = self.num_resets = self.num_maps = 0
        self.frozen, self.num_retracted = False, 0
        self.weights: WeightsState = "resident"
        self.kv_cache: CacheState = "resident"
        self.changes: list[MemoryChange] = []
        self.version = FIRST_WEIGHTS
        self.said_first: dict[str, Any] = {}  # with the first token of each row
        self.info = ModelInfo(
            architecture="FakeForCausalLM",
            vocab_size=VOCAB,
            max_model_len=config.max_model_len or CONTEXT,
            num_parameters=1_235_814_400,
            eos_token_ids=[END],
            max_num_seqs=self.rows,
            num_pages=PAGES,
            page_size=PAGE_SIZE,
            load_seconds=0.5,
            compile_seconds=1.5,
            max_encoder_len=ENCODED if config.model == ENCODER else 0,
            decoder_prompt=[97, 98] if config.model == ENCODER else [],
            prompt_embeds_size=WIDTH if config.enable_prompt_embeds else 0,
            hidden_size=WIDTH if config.enable_return_hidden_states else 0,
            routed=RoutedRows(2, 1, "uint8") if config.enable_return_routed_experts else None,
            processed_logprobs=config.logprobs_mode == "processed_logprobs",
            watermarks=config.watermark_config is not None,
        )
        self.embeds = EmbedsAtWork(self.info)

    @property
    def has_work(self) -> bool:
        return bool(self.running or self.waiting) and not self.sleeps

    def add(self, request: AddRequest, arrival: int | None = None) -> int:
        if request.prompt_token_ids[0] == REFUSE:
            raise RequestError("The engine does not like this prompt.", "prompt")
        if request.priority and self.config.scheduling_policy != "priority":
            raise RequestError("priority needs --scheduling-policy priority.", "priority")
        request = with_watermark(request, self.config.watermark_config)
        check_hidden(request, self.info)
        self.added.append(request)
        if arrival is None:
            self.num_prompt += len(request.prompt_token_ids)
        embeds = self.embeds.of(request)
        if embeds is not None:  # a row's first number says what is answered
            said = embeds.rows[:, 0].astype(int).tolist()
            request = msgspec.structs.replace(request, prompt_token_ids=said)
        self.waiting[request.request_id] = Row(request, embeds=embeds)
        return len(self.added) if arrival is None else arrival

    def abort(self, request_ids: list[int]) -> None:
        for request_id in request_ids:
            if self.running.pop(request_id, None) or self.waiting.pop(request_id, None):
                self.aborted.append(request_id)

    def reset_prefix_cache(self) -> None:
        self.num_resets += 1

    def freeze(self, *, retract: bool) -> None:
        self.frozen = True
        if retract:
            self.num_retracted += len(self.running)
            self.waiting, self.running = self.running | self.waiting, {}

    def thaw(self) -> None:
        self.frozen = False

    def load_adapter(self, call_id: int, lora: LoRARequest) -> None:
        error = "nowhere has no adapter_config.json." if lora.lora_path == "nowhere" else None
        self.answers.append(Answer(call_id, error, "lora_path"))

    def change_memory(self, message: MemoryChange) -> None:
        """As `engine.residence` does; of the path "nowhere" nothing can be read."""
        error = None
        if isinstance(message, ReadWeights):
            self.waiting, self.running = self.running | self.waiting, {}
            if message.path == "nowhere":
                error = "There is no model at nowhere."
            else:
                self.version, self.weights = message.version or self.version, "resident"
        elif isinstance(message, Release):
            self.waiting, self.running = self.running | self.waiting, {}
            if message.weights != "resident" and self.weights != "discarded":
                self.weights = message.weights
            if message.kv_cache != "resident":
                self.kv_cache = message.kv_cache
        else:
            self.weights = "resident" if message.weights else self.weights
            self.kv_cache = "resident" if message.kv_cache else self.kv_cache
        self.changes.append(message)
        self.answers.append(Answer(message.call_id, error))

    @property
    def sleeps(self) -> bool:
        return self.frozen or not self.weights == self.kv_cache == "resident"

    def page_map(self) -> PageMap:
        """Two pages of each row, of which all rows have one in common, and one that is idle."""
        self.num_maps += 1
        owners = [0, len(self.running), *([1] * len(self.running))]
        return draw(owners + [0] * (PAGES + 1 - len(owners)), [PAGES])

    def step(self) -> StepReport:
        time.sleep(self.step_seconds)
        while self.waiting and len(self.running) < self.rows and not self.sleeps:
            request_id = next(iter(self.waiting))
            self.running[request_id] = self.waiting.pop(request_id)
        rows = [] if self.sleeps else list(self.running.values())
        deltas = [self._advance(row) for row in rows]
        self.num_steps += bool(deltas)
        self.num_generated += len(deltas)
        answers, self.answers = self.answers, []
        return StepReport(deltas=deltas, stats=self._stats(), answers=answers)

    def close(self) -> None:
        self.running.clear()

    def _advance(self, row: Row) -> RequestDelta:
        request, prompt = row.request, row.request.prompt_token_ids
        if prompt[0] == FAIL_STEP:
            raise RuntimeError("the device is on fire")
        if prompt[0] == KILL:
            os.kill(os.getpid(), signal.SIGKILL)
        token = prompt[len(row.output) % len(prompt)]
        said = {} if row.output else self.said_first
        delta = RequestDelta(request_id=request.request_id, new_token_ids=[token], **said)
        if request.params.logprobs is not None:
            delta.logprobs = [scores(token, request.params.logprobs)]
            if named := request.params.logprob_token_ids:
                values = [log(0.5) if each == token else -float(each) for each in named]
                delta.logprobs = [TokenLogprobs([token, *named], [log(0.5), *values], 1)]
        if request.params.prompt_logprobs is not None and not row.output:
            count = request.params.prompt_logprobs
            first = max(1, request.params.prompt_logprobs_start)
            delta.prompt_logprobs = [scores(each, count) for each in prompt[first:]]
        if request.hidden_from is not None:  # that of token t is t, t, t ..
            newest = len(prompt) - 1 + len(row.output)
            first = newest if row.output else request.hidden_from
            states = [np.full(WIDTH, place, "<f4") for place in range(first, newest + 1)]
            delta.hidden_states = [state.tobytes() for state in states]
        if request.routed_from is not None:  # that of token t is t, in both layers
            newest = len(prompt) - 1 + len(row.output)
            first = newest if row.output else request.routed_from
            delta.routed_experts = np.arange(first, newest + 1).astype("u1").repeat(2).tobytes()
        row.output.append(token)
        delta.finish_reason = self._end(row, token)
        if delta.finish_reason is not None:
            del self.running[request.request_id]
        return delta

    def _end(self, row: Row, token: int) -> str | None:
        params = row.request.params
        if token == END and not params.ignore_eos:
            return "stop"
        room = self.info.max_model_len - len(row.request.prompt_token_ids)
        return "length" if len(row.output) >= min(room, params.max_tokens or room) else None

    def _stats(self) -> EngineStats:
        return EngineStats(
            num_running=len(self.running),
            num_waiting=len(self.waiting),
            num_pages=PAGES,
            num_free_pages=PAGES - len(self.running),
            num_steps=self.num_steps,
            prompt_tokens=self.num_prompt,
            generation_tokens=self.num_generated,
            scheduled_tokens=self.num_generated,
            padded_tokens=self.num_generated + 3 * self.num_steps,
            step_seconds=0.001 * self.num_steps,
            weights=self.weights,
            kv_cache=self.kv_cache,
            weight_version=self.version,
        )


def scores(token: int, count: int) -> TokenLogprobs:
    """The chosen token with probability 1/2, its successors with 1/4, 1/8, ..."""
    likeliest = [(token + offset) % VOCAB for offset in range(count)]
    values = [log(0.5 ** (1 + place)) for place in range(count)]
    return TokenLogprobs([token, *likeliest], [log(0.5), *values], 1)


if __name__ == "__main__":
    step_seconds = float(os.environ.get("FAKE_STEP_SECONDS", "0"))
    with socket.socket(fileno=int(sys.argv[1])) as peer:
        raise SystemExit(
            serve_engine(peer, lambda config: BeamCore(FakeCore(config, step_seconds)))
        )
