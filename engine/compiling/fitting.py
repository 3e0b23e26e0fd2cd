"""Fits what is compiled into the memory there is: the KV pool, and the context that it holds.

    share of a device  =  weights │ slots │ pages of keys and values │ steps' temporaries │ left

What a program needs besides its arguments is the compiler's to say, and the number of pages is a
part of every program's shapes: one of the two must come first. Temporaries do not depend on the
number of pages (demo model on a CPU: 12,785,000 bytes with 20, 200 and 2,000 pages). So pages are
sized by a guess of the temporaries, the largest programs are compiled, and only where these need
more, or so much less that pages are wasted, pages are sized anew by the measured number and the
programs compiled again. It is the same at every start, so all of it is found in XLA's cache.

Owns this search and its errors. Knows no requests, and never touches an array.
"""

import logging
import math
from dataclasses import dataclass, replace
from functools import partial

import jax
import jax.numpy as jnp
from jax.typing import DTypeLike

from engine.cache.page_forks import FORKED_PAGES, PageForks
from engine.cache.state_slots import fit_states
from engine.compiling.lowering import LowerStep, abstract_state, compiler_options, lower_step
from engine.compiling.memory import (
    GIB,
    KVLayout,
    resolve_layout,
    resolve_pages,
    resolve_shapes,
    room_for_pages,
    usable_bytes,
)
from engine.compiling.programs import Programs
from engine.compiling.shapes import Shapes
from engine.config import EngineConfig
from engine.encoders.alignment import Aligner, make_aligner
from engine.encoders.programs import encoder_programs
from engine.errors import ConfigError
from engine.sampling.state import init_slots
from models.checkpoints.loading import LoadedModel
from models.checkpoints.memory import bytes_per_device, free_bytes
from models.config.decoder import ModelConfig
from models.sharding import is_cpu

logger = logging.getLogger(__name__)

_STEPS_IN_FLIGHT = 2  # each may hold its temporaries
_BY_TOKENS = 3 / 4  # of the temporaries, at least, that a smaller step saves in proportion
_WORTH_COMPILING = 1 / 32  # of the pages, if so many more would fit than were guessed


@dataclass(frozen=True)
class Fitted:
    """Sizes that fit, and the programs that every step can run in."""

    shapes: Shapes
    kv: KVLayout
    programs: Programs
    encoders: Programs | None  # of a model that has an encoder
    aligner: Aligner | None  # of one that can say when words were said
    forks: PageForks | None  # of a model without states, which are whole at borders of pages only
    weight_bytes: int  # on each device, like all of these
    slot_bytes: int
    page_bytes: int
    temporary_bytes: int  # of all steps in flight, and of pages that are copied between them
    usable_bytes: int | None  # besides weights; None where nobody says

    @property
    def max_concurrency(self) -> float:
        """Requests of the longest context whose pages fit."""
        return (self.kv.num_pages - 1) / self.shapes.sequence_pages

    def close(self) -> None:
        """Compile nothing more, and let go of what was compiled."""
        self.programs.close()
        if self.encoders is not None:
            self.encoders.close()


def fit(
    config: EngineConfig,
    model: LoadedModel,
    lower: LowerStep = lower_step,
    extra_fields: int = 0,
    *,
    late: bool = False,
) -> Fitted:
    """Size the pool and compile the largest programs, with `extra_fields` of `StepShape`, and
    `late` of `Shapes`.

    Raises:
        ConfigError: not even one sequence fits, or what was asked for is more than there is.
    """
    search = _Search(config, model, lower, extra_fields, late)
    guess = search.guess()
    fitted = search.compile(guess)
    if not search.settled(fitted, guess):
        fitted.close()
        fitted = search.compile(fitted.temporary_bytes)
    search.check(fitted.shapes, fitted.kv, fitted.temporary_bytes)
    _log(fitted)
    return fitted


class _Search:
    """One model on one mesh, and the memory that was free when the search began."""

    def __init__(
        self,
        config: EngineConfig,
        model: LoadedModel,
        lower: LowerStep,
        extra_fields: int,
        late: bool,
    ) -> None:
        self._extra_fields = extra_fields
        self._late = late
        self._lower = lower
        self._model = model
        self._mesh = model.mesh
        self._usable = usable_bytes(config, model.mesh)
        free = free_bytes(model.mesh)
        self._free = free // model.mesh.size if free is not None and is_cpu(model.mesh) else free
        dtype = model.leaves[0].dtype
        shapes = resolve_shapes(config, model.config, model.mesh)
        room = room_for_pages(self._usable, 0, model.mesh)
        self._config = config = fit_states(config, model.config, shapes.max_num_seqs, dtype, room)
        shapes = resolve_shapes(config, model.config, model.mesh)
        self._layout = resolve_layout(config, model.config, shapes, model.mesh, dtype)
        self._guess = _STEPS_IN_FLIGHT * _guess_step(model.config, shapes, dtype)
        self._guess += _guess_forks(self._layout) // self._mesh.size
        states = self._layout.states
        given = self._layout.given
        self._state_bytes = (states.nbytes if states else 0) + (given.nbytes if given else 0)
        self._explicit = bool(config.num_gpu_blocks_override or config.kv_cache_memory_bytes)

    def guess(self) -> int:
        """Temporaries of the steps in flight, or 0 where so much would leave too little.

        Raises:
            ConfigError: a sequence would not fit with none at all.
        """
        try:
            self.sizes(self._guess)
        except ConfigError as error:
            try:
                self.sizes(0)
            except ConfigError:
                raise error from None
            return 0
        return self._guess

    def sizes(self, temporary: int) -> tuple[Shapes, KVLayout]:
        """Context and pages that fit beside `temporary` bytes; raises ConfigError."""
        shapes = resolve_shapes(self._config, self._model.config, self._mesh)
        slots = self._slot_bytes(shapes)
        room = room_for_pages(self._usable, slots + temporary, self._mesh)
        kv = resolve_pages(self._config, self._layout, shapes, self._mesh, room)
        fits = shapes.longest(kv.num_pages - 1)
        if fits < shapes.max_model_len:
            if self._config.max_model_len != "auto" or fits < 2:
                raise ConfigError(self._too_small(shapes, kv, temporary))
            shapes = resolve_shapes(self._config, self._model.config, self._mesh, fits)
        if self._explicit:
            self.check(shapes, kv, temporary)
        return shapes, kv

    def compile(self, temporary: int) -> Fitted:
        """Programs for what fits beside `temporary` bytes, and what they really need."""
        shapes, kv = self.sizes(temporary)
        shapes = replace(shapes, extra_fields=self._extra_fields, late=self._late)
        mesh, layout = self._mesh, self._model.layout
        state = abstract_state(kv, shapes, self._model.config.vocab_size, mesh)
        programs = Programs(
            shapes,
            lambda shape: self._lower(layout, shape, kv, state, mesh),
            compiler_options(mesh),
        )
        programs.compile_largest()
        ready, encoders, aligner = programs.ready, None, None
        if shapes.max_encoder_len:
            encoders = encoder_programs(self._model, shapes, kv, state)
            encoders.compile_largest()
            aligner = make_aligner(self._model, shapes, kv, state)
            ready = ready + encoders.ready + ([aligner.program] if aligner else [])
        forks = None
        if kv.states is None:
            forks = PageForks(state.cache, kv.num_layers, mesh)
            forks.warm_up()
        largest = max(program.temporary_bytes for program in ready)
        copied = forks.temporary_bytes if forks else 0
        return Fitted(
            shapes=shapes,
            kv=kv,
            programs=programs,
            encoders=encoders,
            aligner=aligner,
            forks=forks,
            weight_bytes=bytes_per_device(layout.leaves, mesh),
            slot_bytes=self._slot_bytes(shapes),
            page_bytes=kv.num_pages * kv.page_bytes // mesh.size,
            temporary_bytes=_STEPS_IN_FLIGHT * largest + copied,
            usable_bytes=self._usable,
        )

    def settled(self, fitted: Fitted, guess: int) -> bool:
        """Whether sizes by the real number would be as those by the guess, or hardly larger."""
        needed = fitted.temporary_bytes
        try:
            _, better = self.sizes(needed)
        except ConfigError:
            fitted.close()
            raise
        have = fitted.kv.num_pages
        return better.num_pages == have or (
            needed <= guess and better.num_pages <= have * (1 + _WORTH_COMPILING)
        )

    def check(self, shapes: Shapes, kv: KVLayout, temporary: int) -> None:
        """Raise ConfigError if the device has not that much."""
        pages, slots = (
            kv.num_pages * kv.page_bytes // self._mesh.size,
            self._slot_bytes(shapes),
        )
        needed = pages + slots + temporary
        if self._free is not None and needed > self._free:
            raise ConfigError(
                f"Pages, slots and steps need {needed / GIB:.2f} GiB on each device and "
                f"{self._free / GIB:.2f} GiB are free; use a smaller --max-num-seqs, "
                "--num-gpu-blocks-override, --kv-cache-memory-bytes, --max-num-batched-tokens or "
                "--max-model-len."
            )

    def _slot_bytes(self, shapes: Shapes) -> int:
        """Of all that is kept besides pages: for each request, and for the tokens of a step."""
        return _slot_bytes(shapes, self._model) + self._state_bytes

    def _too_small(self, shapes: Shapes, kv: KVLayout, temporary: int) -> str:
        """Why a sequence does not fit, and which length or batch would."""
        fits = shapes.longest(kv.num_pages - 1)
        needed = (shapes.sequence_pages + 1) * kv.page_bytes // self._mesh.size
        shorter = f"use --max-model-len {fits} or less, or auto, or " if fits >= 2 else ""
        said = (
            f"The KV cache has room for {fits} tokens and a sequence may take "
            f"{shapes.max_model_len}"
        )
        if self._explicit or self._usable is None:
            return (
                f"{said}; {shorter}make it at least {shapes.sequence_pages + 1} pages, {needed} "
                "bytes, with --num-gpu-blocks-override or --kv-cache-memory-bytes."
            )
        slots = self._slot_bytes(shapes)
        left = self._usable - needed - slots
        tokens = int(_BY_TOKENS * shapes.max_num_batched_tokens * left / max(1, temporary))
        batch = "a smaller --max-num-seqs"
        if shapes.max_num_seqs <= tokens < shapes.max_num_batched_tokens:
            batch = f"a smaller --max-num-batched-tokens, such as {tokens},"
        total = needed + slots + temporary
        return (
            f"{said}: its pages need {needed / GIB:.2f} GiB, the slots of {shapes.max_num_seqs} "
            f"requests {slots / GIB:.2f} and steps of {shapes.max_num_batched_tokens} tokens "
            f"{temporary / GIB:.2f}, together {total / GIB:.2f} GiB on each device, and "
            f"{self._usable / GIB:.2f} GiB may be used; {shorter}use {batch} or a larger "
            "--gpu-memory-utilization."
        )


def _guess_step(model: ModelConfig, shapes: Shapes, dtype: DTypeLike) -> int:
    """Bytes of temporaries of the largest step: activations of one layer, and logits.

    Compiled for an H200, Llama 3.1 8B's steps of 1,920 tokens and 64 rows need 204 MiB; this says
    259. The head's logits are whole on each device.
    """
    mlps = [kind.mlp_size or model.intermediate_size for kind in model.layer_kinds]
    mlp = max(*mlps, model.mixture.shared_size if model.mixture else 0)
    if model.mixture:
        mlp = max(mlp, model.mixture.per_token * model.mixture.intermediate_size)
    heads = map(model.kv_heads_of, model.layer_kinds)
    attention = max((model.num_heads + 2 * kv_heads) * size for kv_heads, size in heads)
    mixed = 4 * model.mixer.conv_channels if model.mixer else 0  # in and out, and in float32
    width = 2 * model.hidden_size + max(2 * mlp, attention, mixed)
    activations = shapes.max_num_batched_tokens * width * jnp.dtype(dtype).itemsize
    return activations + 4 * shapes.max_num_seqs * model.vocab_size * 4


def _guess_forks(layout: KVLayout) -> int:
    """Bytes of the pages that are copied at a time, on all devices."""
    return 0 if layout.states else FORKED_PAGES * layout.page_bytes


def _slot_bytes(shapes: Shapes, model: LoadedModel) -> int:
    """Bytes on each device of what is kept for each request besides pages: all of it on each."""
    tables = (shapes.max_num_seqs + 1) * (shapes.sequence_pages + 1) * 4
    init = partial(
        init_slots, shapes.max_num_seqs, model.config.vocab_size, shapes.watermark, shapes.times
    )
    slots = jax.eval_shape(init)
    sizes = [math.prod(array.shape) * array.dtype.itemsize for array in jax.tree.leaves(slots)]
    return tables + int(sum(sizes))


def _log(fitted: Fitted) -> None:
    """One line: who has the memory."""
    taken = fitted.slot_bytes + fitted.page_bytes + fitted.temporary_bytes
    left = f", left {(fitted.usable_bytes - taken) / GIB:.2f}" if fitted.usable_bytes else ""
    logger.info(
        "memory of each device in GiB: weights %.2f, pages %.2f, slots %.2f, temporaries %.2f%s; "
        "%s tokens of cache, maximum concurrency for %s tokens per request: %.2fx",
        fitted.weight_bytes / GIB, fitted.page_bytes / GIB, fitted.slot_bytes / GIB,
        fitted.temporary_bytes / GIB, left,
        f"{(fitted.kv.num_pages - 1) * fitted.shapes.page_size:,}",
        f"{fitted.shapes.max_model_len:,}", fitted.max_concurrency,
    )  # fmt: skip
