"""The loop of an engine that gives vectors: batch, launch, read the batch before, report.

Owns the queue and the ends of requests, and drives either runner. As in `engine.core` the device
has its next batch before the host has read the last.
"""

from bisect import bisect_right
from collections import deque
from collections.abc import Iterable
from time import monotonic, perf_counter

import numpy as np

from engine.adapters.request import LoRARequest
from engine.compiling.compilation_cache import use_compilation_cache
from engine.compiling.memory import claim_device_memory
from engine.config import EngineConfig, PoolerConfig
from engine.errors import ConfigError, EngineDeadError, EngineError, RequestError
from engine.messages import (
    EngineStats,
    MemoryChange,
    ModelInfo,
    NewRequest,
    PoolRequest,
    RequestDelta,
    StepReport,
    end_without_number,
)
from engine.pooling.batch import LaunchedBatch, PoolingRunner, Waiting
from engine.pooling.decoder_runner import DecoderRunner
from engine.pooling.encoder_runner import EncoderRunner
from engine.pooling.finish import check, finish
from engine.pooling.shapes import decoder_shapes, encoder_shapes, limits
from models.config.decoder import ModelConfig
from models.pooling_loading import LoadedPooler, load_pooler
from models.registry import supported
from models.sharding import is_cpu, make_mesh

_CPU_PAGE, _GPU_PAGE = 16, 64


class PoolingCore:
    """A pooling model that is loaded, compiled and ready.

    Raises:
        ModelError: the model cannot be loaded.
        ConfigError: the settings do not fit the model or the machine.
    """

    def __init__(self, config: EngineConfig) -> None:
        if config.quantization is not None:
            raise ConfigError("--quantization is for models that write text; leave it out.")
        use_compilation_cache(config.compilation_cache_dir, config.compilation_cache_size)
        claim_device_memory(config)
        self.config = config
        start = perf_counter()
        mesh = make_mesh(config.tensor_parallel_size)
        pooler = config.pooler_config or PoolerConfig()
        model = load_pooler(
            config.model, mesh, dtype=config.dtype, load_format=config.load_format,
            seed=config.seed, max_model_len=config.asked_model_len, convert=config.convert,
            pooling=pooler.pooling_type, use_activation=pooler.use_activation,
            step_tag_id=pooler.step_tag_id,
            returned_token_ids=tuple(pooler.returned_token_ids or ()),
            hf_overrides=config.hf_overrides,
        )  # fmt: skip
        loaded = perf_counter()
        self.model, self._spec = model, model.spec
        self._runner = _make_runner(config, model)
        self._runner.programs.compile_largest()
        self._runner.programs.compile_rest()
        self._waiting: deque[Waiting] = deque()
        self._alive: set[int] = set()
        self._launched: deque[LaunchedBatch] = deque()
        self._dead: str | None = None
        self._frozen = False
        self.stats = EngineStats()
        self.info = _info(model, self._runner, loaded - start, perf_counter() - loaded)

    @property
    def has_work(self) -> bool:
        return bool(self._launched or (self._waiting and not self._frozen))

    def add(self, message: NewRequest | PoolRequest) -> None:
        """Queue a request.

        Raises:
            RequestError: it cannot be served as it is written.
        """
        self._check_alive()
        if not isinstance(message, PoolRequest):
            raise RequestError("This engine gives vectors and writes no text.", "prompt")
        config = self.model.config
        if message.priority and self.config.scheduling_policy != "priority":
            raise RequestError(
                "priority needs the setting --scheduling-policy priority.", "priority"
            )
        check(
            message, self._spec, width=self.info.embedding_size, vocab_size=config.vocab_size,
            max_model_len=config.context_length, token_types=_token_types(self.model),
        )  # fmt: skip
        self.stats.prompt_tokens += len(message.prompt_token_ids)
        self._alive.add(message.request_id)
        place = bisect_right(self._waiting, message.priority, key=_priority)
        self._waiting.insert(place, Waiting(message))

    def abort(self, request_ids: Iterable[int]) -> None:
        """Forget requests; what is on the device is dropped when it comes."""
        self._alive -= set(request_ids)
        self._waiting = deque(w for w in self._waiting if w.request.request_id in self._alive)

    def load_adapter(self, call_id: int, lora: LoRARequest) -> None:
        """Raises RequestError: adapters are for models that write text."""
        raise RequestError("This engine gives vectors and has no adapters.", "lora_name")

    def change_memory(self, message: MemoryChange) -> None:
        """Raises RequestError: so far engines that write text sleep, and no others."""
        raise RequestError(
            "This engine gives vectors, and its weights stay as they are; start another of others."
        )

    def reset_prefix_cache(self) -> None:
        """Nothing: vectors are not cached, nor what they are made of."""

    def freeze(self, *, retract: bool) -> None:
        """Start no batch until `thaw`; between two there is nothing that could be given back."""
        self._frozen = True

    def thaw(self) -> None:
        """Requests go on."""
        self._frozen = False

    def page_map(self) -> None:
        """There is no cache."""

    def step(self) -> StepReport:
        """Start the next batch, then report what the one before it gave.

        Raises:
            EngineError: the device failed; the engine cannot go on.
        """
        self._check_alive()
        start = perf_counter()
        try:
            began = self._launch()
            launched = perf_counter()
            oldest = self._launched[0] if len(self._launched) > began else None
            vectors = oldest.read() if oldest else None
        except Exception as error:
            self._dead = f"The engine failed: {type(error).__name__}: {error}"
            raise EngineError(self._dead) from error
        read = perf_counter()
        deltas = []
        if oldest and vectors is not None:
            self._launched.popleft()
            deltas = self._collect(oldest, vectors)
        self._count(start, launched, read)
        return StepReport(deltas=deltas, stats=self.stats)

    def wait_for_programs(self) -> None:
        """Block until every shape has its own program; nothing needs this but measurements."""
        self._runner.programs.wait()

    def close(self) -> None:
        """Stop compiling in the background. The engine takes no requests afterwards."""
        self._dead = self._dead or "The engine was closed."
        self._runner.close()

    def _launch(self) -> bool:
        if self._frozen or not self._waiting:
            return False
        requests, now = self._runner.take(self._waiting), monotonic()
        for each in requests:
            each.queue_seconds = now - each.arrival_time
        batch = self._runner.launch(requests)
        self._launched.append(batch)
        self.stats.num_steps += 1
        self.stats.scheduled_tokens += batch.num_tokens
        self.stats.padded_tokens += batch.shape.tokens
        return True

    def _collect(self, batch: LaunchedBatch, vectors: list[np.ndarray]) -> list[RequestDelta]:
        deltas = []
        for each, vector in zip(batch.requests, vectors, strict=True):
            request = each.request
            if request.request_id not in self._alive:
                continue
            self._alive.discard(request.request_id)
            finished = finish(vector, self._spec, request.params, request.prompt_token_ids)
            delta = RequestDelta(
                request_id=request.request_id,
                finish_reason="stop",
                queue_seconds=each.queue_seconds,
            )
            if np.isnan(finished).any():
                end_without_number(delta)
                self.stats.num_corrupted += 1
            else:
                delta.vector = finished.astype("<f4").tobytes()
            deltas.append(delta)
        return deltas

    def _count(self, start: float, launched: float, read: float) -> None:
        stats, end = self.stats, perf_counter()
        stats.num_running = sum(len(batch.requests) for batch in self._launched)
        stats.num_waiting = len(self._waiting)
        stats.num_compiles_after_warmup = self._runner.programs.num_unexpected_compiles
        stats.step_seconds += end - start
        stats.host_seconds += (end - read) + (launched - start)

    def _check_alive(self) -> None:
        if self._dead:
            raise EngineDeadError(self._dead)


def _make_runner(config: EngineConfig, model: LoadedPooler) -> PoolingRunner:
    cpu, longest = is_cpu(model.mesh), model.config.context_length
    rows, tokens = limits(config, longest, cpu=cpu)
    if isinstance(model.config, ModelConfig):
        page = config.block_size or (_CPU_PAGE if cpu else _GPU_PAGE)
        shapes = decoder_shapes(rows, tokens, longest, page)
        return DecoderRunner(config, model, model.config, shapes)
    return EncoderRunner(model, encoder_shapes(rows, tokens, longest))


def _priority(waiting: Waiting) -> int:
    return waiting.request.priority


def _token_types(model: LoadedPooler) -> int:
    return 0 if isinstance(model.config, ModelConfig) else model.config.token_types


def _info(
    model: LoadedPooler, runner: PoolingRunner, load_seconds: float, compile_seconds: float
) -> ModelInfo:
    config, spec, leaves = model.config, model.spec, model.leaves
    backend = runner.attention_backend if isinstance(runner, DecoderRunner) else "xla"
    return ModelInfo(
        architecture=model.architecture,
        vocab_size=config.vocab_size,
        max_model_len=config.context_length,
        num_parameters=sum(leaf.size for leaf in leaves),
        eos_token_ids=[],
        max_num_seqs=runner.programs.shapes.max_num_seqs,
        num_pages=0,
        page_size=1,
        load_seconds=load_seconds,
        compile_seconds=compile_seconds,
        dtype=str(leaves[0].dtype),
        device=model.mesh.devices.flat[0].device_kind,
        num_devices=model.mesh.devices.size,
        attention_backend=backend,
        parameter_bytes=sum(leaf.nbytes for leaf in leaves),
        task=spec.task,
        per_token=spec.per_token,
        embedding_size=len(spec.labels) or config.hidden_size,
        labels=list(spec.labels),
        lower_case=spec.lower_case,
        takes_token_types=_token_types(model) > 1,
        can_generate=model.architecture in supported(),
    )
