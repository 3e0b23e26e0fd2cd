"""Runs plans on the device: owns the model's leaves, the device state and the compiled steps.

`launch` hands a step to the device and returns at once; `Launched.read` waits for what it
sampled. Knows plans, slots and arrays; knows nothing of queues, stop conditions or texts.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cached_property, partial
from time import perf_counter
from typing import Any

import jax
import numpy as np
from jaxtyping import Array

from engine.cache.host_tier import HostTier
from engine.cache.page_copies import PageCopies
from engine.cache.page_forks import PageForks
from engine.compiling.lowering import (
    Shardings,
    abstract_state,
    state_shardings,
    whole,
    zero_state,
)
from engine.compiling.memory import KVLayout, raising_without_room
from engine.compiling.programs import Programs
from engine.compiling.shapes import Shapes, StepShape
from engine.encoders.alignment import Aligner
from engine.encoders.programs import Encoders
from engine.errors import ConfigError
from engine.grammar.masks import MaskSender
from engine.messages import TokenLogprobs
from engine.packing import Ints, SlotColumns, pack
from engine.request import Request
from engine.sampling.late_rows import LateRow
from engine.sampling.late_sampling import pack_late, pack_taken
from engine.sampling.options import Field, Flag, sampling_row
from engine.sampling.row_masks import row_masks
from engine.sampling.sampler import Sampled
from engine.sampling.state import admit, pack_options, packed_options_size
from engine.scheduling.plan import Chunk, Plan
from engine.step import DeviceState
from engine.to_host import send_to_host
from engine.vectors.given_rows import GivenRows
from models.checkpoints.loading import LoadedModel


@dataclass
class Launched:
    """A step on the device, and the plan it computes."""

    plan: Plan
    shape: StepShape
    sampled: Sampled
    late: list[LateRow] = field(default_factory=list, kw_only=True)
    started: float = field(default_factory=perf_counter, kw_only=True)

    @cached_property
    def wanted(self) -> tuple[Array, ...]:
        """The sampled tokens, and log-probabilities if a row asks for them."""
        sampled = self.sampled
        if not self.plan.wants_logprobs:
            return (sampled.tokens,)
        logprobs = sampled.tokens, sampled.logprob_ids, sampled.logprobs, sampled.ranks
        return (*logprobs, sampled.scored) if self.plan.wants_scored else logprobs

    def read(self) -> "Results":
        """Wait for the step; raises what the device raised."""
        results = Results(*map(np.asarray, self.wanted))
        if self.sampled.hidden is not None:
            results.hidden = np.asarray(self.sampled.hidden)
        if self.sampled.routed is not None:
            results.routed = np.asarray(self.sampled.routed)
        return results


@dataclass
class Results:
    """What the rows of logits gave in each turn, on the host."""

    tokens: Ints  # [W, B]
    logprob_ids: Ints | None = None  # [W, B, C]: the chosen token, then the likeliest
    logprobs: np.ndarray | None = None
    ranks: Ints | None = None
    scored: np.ndarray | None = None  # [W, B, S]: of the tokens that the request names
    hidden: np.ndarray | None = None  # [W, T, D]: of all tokens, if somebody asks
    routed: np.ndarray | None = None  # [W, T, L, k]: their experts, likewise

    @cached_property
    def token_ids(self) -> list[list[int]]:
        """The tokens of each row, as Python's numbers."""
        ids: list[list[int]] = self.tokens.T.tolist()
        return ids

    def top(self, row: int, count: int, turn: int = 0) -> TokenLogprobs:
        """The chosen token and the `count` likeliest of one row."""
        if self.logprob_ids is None or self.logprobs is None or self.ranks is None:
            raise RuntimeError("log-probabilities were not read")
        width = 1 + count
        logprobs = self.logprobs[turn, row, :width].tolist()
        while logprobs[-1] == -math.inf and len(logprobs) > 1:  # a vocabulary of fewer tokens
            logprobs.pop()
        ids = self.logprob_ids[turn, row, : len(logprobs)].tolist()
        return TokenLogprobs(ids, logprobs, int(self.ranks[turn, row]))

    def named(self, row: int, ids: list[int], turn: int = 0) -> TokenLogprobs:
        """The chosen token of one row and those of `ids`, which its request named."""
        if self.scored is None:
            raise RuntimeError("log-probabilities of named tokens were not read")
        chosen = self.top(row, 0, turn)
        values = self.scored[turn, row, : len(ids)].tolist()
        return TokenLogprobs([*chosen.token_ids, *ids], [*chosen.logprobs, *values], chosen.rank)


class Runner:
    """One model on one mesh."""

    def __init__(
        self,
        model: LoadedModel,
        shapes: Shapes,
        kv: KVLayout,
        programs: Programs,
        tier: HostTier | None = None,
        encoders: Programs | None = None,
        forks: PageForks | None = None,
        aligner: Aligner | None = None,
    ) -> None:
        self.programs = programs
        self.leaves = model.leaves  # those of adapters change between steps
        self._mesh = model.mesh
        self._kv = kv
        self._vocab_size = model.config.vocab_size
        self._abstract = abstract_state(kv, shapes, self._vocab_size, model.mesh)
        shardings = state_shardings(kv, shapes, self._vocab_size, model.mesh)
        self._columns = SlotColumns(shapes.max_num_seqs, shapes.extra_fields)
        self._new_state = _state_maker(kv, shapes, self._vocab_size, shardings)
        scattered = ConfigError(
            f"The device has no room in one piece for {kv.num_pages} pages, though as much is "
            "free; use a smaller --gpu-memory-utilization or --kv-cache-memory-bytes."
        )
        self._state: DeviceState
        with raising_without_room(scattered):
            self.make_state()
        self._admit: Any = jax.jit(_admit, donate_argnums=0, out_shardings=shardings)
        self._set_pages: Any = jax.jit(_set_pages, donate_argnums=0, out_shardings=shardings)
        self._table_width = shapes.table_width
        self.copies: PageCopies | None = None
        if tier is not None:
            self.copies = PageCopies(tier, self._abstract.cache, kv.num_layers, model.mesh)
        self._forks = forks
        self._encoders = Encoders(encoders, shapes) if encoders is not None else None
        self._aligner = aligner
        self._given = GivenRows(kv.given) if kv.given is not None else None
        self._num_words = self._abstract.slots.allowed.shape[1]
        self._masks = MaskSender(self._num_words, self._columns.sink)

    def warm_up(self) -> float:
        """Compile what goes between steps; the smaller steps follow in the background.

        Returns the seconds it took.
        """
        start = perf_counter()
        width = packed_options_size(self._vocab_size)
        options = jax.ShapeDtypeStruct((width,), np.int32, sharding=whole(self._mesh))
        self._admit = self._admit.lower(self._abstract, options).compile()
        pages = jax.ShapeDtypeStruct((1 + self._table_width,), np.int32, sharding=whole(self._mesh))
        self._set_pages = self._set_pages.lower(self._abstract, pages).compile()
        if self.copies is not None:
            self.copies.warm_up()
        self._masks.warm_up(self._abstract.slots.allowed, whole(self._mesh))
        if self._encoders is not None:
            self._encoders.warm_up(self._abstract, self._mesh)
        if self._given is not None:
            self._given.warm_up(self._abstract.given, whole(self._mesh))
        seconds = perf_counter() - start
        self.programs.compile_rest()
        return seconds

    def admit(self, request: Request) -> None:
        """Set up the slot that a request has just taken."""
        if request.slot is None:
            raise RuntimeError("a request without a slot was admitted")
        params = request.params
        options = sampling_row(params, seed=request.seed, prompt_len=request.num_prompt_tokens)
        if request.timed:
            options[Field.FLAGS] |= Flag.TIMES
        if request.extra_fields is not None:
            options = np.concatenate([options, request.extra_fields])
        self._columns.admit(
            request.slot, options, observed=request.observed, prompt_len=request.num_prompt_tokens,
            adapter=request.adapter_slot,
        )  # fmt: skip
        if request.observed:
            prompt = request.token_ids[: request.num_prompt_tokens]
            packed = pack_options(
                request.slot,
                params,
                prompt_token_ids=() if request.embeds is not None else prompt,
                stop_token_ids=request.banned_token_ids,
                bad_word_ids=request.bad_word_ids,
                vocab_size=self._vocab_size,
                watermark_key=request.watermark_key,
            )
            self._state = self._admit(self._state, packed)

    def _send_found_pages(self, chunk: Chunk) -> None:
        """Pages found in the prefix cache, for the device's table; a step could not hold many."""
        request = chunk.request
        found = -(-chunk.start // self._kv.page_size)
        if found:
            row = np.zeros(1 + self._table_width, np.int32)
            row[0] = chunk.slot
            row[1 : 1 + found] = request.pages[:found]
            self._state = self._set_pages(self._state, row)
            request.num_pages_sent = found

    def _encode(self, request: Request) -> None:
        """What its decoder attends to, unless that lies in its pages already."""
        if self._encoders is not None and request.encoder is not None and request.slot is not None:
            leaves, slot = self.leaves, request.slot
            self._state = self._encoders.run(leaves, self._state, slot, request.encoder)

    def _align(self, request: Request) -> None:
        """When the tokens of its prompt were said, if somebody asks."""
        if self._aligner is not None and request.align is not None and request.slot is not None:
            slot, ids = request.slot, request.token_ids[: request.num_prompt_tokens]
            request.aligned = self._aligner.run(self.leaves, self._state, slot, ids, request.align)

    def _send_masks(self, plan: Plan) -> None:
        masks = row_masks(plan, self._columns, self._vocab_size)
        slots = self._state.slots
        allowed = self._masks.send(slots.allowed, masks)
        self._state = self._state._replace(slots=slots._replace(allowed=allowed))

    def launch(self, plan: Plan) -> Launched:
        """Start a step; its results are on their way to the host when this returns."""
        program = self.programs.find(plan.num_tokens, plan.decode, plan.window)
        with self.programs.serving():
            self._copy_pages(plan)
            for chunk in plan.chunks:
                if chunk.admitted:
                    self.admit(chunk.request)
                    self._send_found_pages(chunk)
                    self._encode(chunk.request)
                    self._align(chunk.request)
            self._send_masks(plan)
            if self._given is not None and self._state.given is not None:
                given = self._given.send(self._state.given, plan)
                self._state = self._state._replace(given=given)
            packed = pack(plan, program.shape, self._columns)
            self._state, sampled = program.run(self.leaves, self._state, packed)
            late = self._take(plan.late, program.shape, sampled.logits)
        # what nobody asks for is free again when the step is done
        hidden = sampled.hidden if program.shape.keeps_hidden and plan.wants_hidden else None
        routed = sampled.routed if program.shape.keeps_routed and plan.wants_routed else None
        sampled = sampled._replace(logits=None, hidden=hidden, routed=routed)
        return self._on_its_way(Launched(plan, program.shape, sampled, late=late))

    def _take(
        self, rows: list[tuple[Request, int]], shape: StepShape, logits: Array | None
    ) -> list[LateRow]:
        """Keep the logits of rows that are sampled later."""
        found: list[LateRow] = []
        if not rows:
            return found
        take = self.programs.taking(shape.rows)
        most = take.shape.tokens
        for first in range(0, len(rows), most):
            part = rows[first : first + most]
            taken = take.run(logits, pack_taken([row for _, row in part], take.shape))
            found += [LateRow(request, taken, place) for place, (request, _) in enumerate(part)]
        return found

    def sample_late(self, rows: Sequence[LateRow]) -> Launched:
        """Start to choose tokens for rows that were taken together; results are as a step's."""
        program = self.programs.late(len(rows))
        plan = Plan([each.request for each in rows], [1] * len(rows), num_tokens=len(rows))
        with self.programs.serving():
            packed = pack_late(rows, program.shape, self._columns, self._num_words)
            state, taken = self._state, rows[0].taken
            last_token, sampled = program.run(state.last_token, state.slots, taken, packed)
            self._state = state._replace(last_token=last_token)
        return self._on_its_way(Launched(plan, program.shape, sampled))

    def _copy_pages(self, plan: Plan) -> None:
        """What the pages to be written hold goes to the host, and what it has comes back; then
        pages are filled with what others begin with."""
        if self.copies is not None and self.copies.due:
            self.copies.drop_excess()
        while self.copies is not None and self.copies.due:
            self._state = self._state._replace(cache=self.copies.make_first(self._state.cache))
        if self._forks is not None and plan.forks:
            cache = self._forks.make(self._state.cache, plan.forks)
            self._state = self._state._replace(cache=cache)

    def _on_its_way(self, launched: Launched) -> Launched:
        told = launched.sampled.hidden, launched.sampled.routed
        send_to_host((*launched.wanted, *(a for a in told if a is not None)), self._mesh)
        return launched

    def drop_state(self) -> None:
        """Give the memory of all pages back, and all else but the leaves; nothing runs, and nobody
        has a slot. Pages that were on their way to the host go there first."""
        self._copy_pages(Plan())
        for array in jax.tree.leaves(self._state):
            array.delete()

    def make_state(self) -> None:
        """Have it, as before the first step."""
        self._state = jax.block_until_ready(self._new_state())

    def close(self) -> None:
        """Compile nothing more, and give the device's memory back."""
        self.programs.close()
        if self._encoders is not None:
            self._encoders.close()
        if self.copies is not None:
            self.copies.close()
        for array in (*self.leaves, *jax.tree.leaves(self._state)):
            array.delete()


def _admit(state: DeviceState, packed: Array) -> DeviceState:
    return state._replace(slots=admit(state.slots, packed))


def _set_pages(state: DeviceState, packed: Array) -> DeviceState:
    """Write the table's row of the slot `packed[0]`."""
    return state._replace(page_table=state.page_table.at[packed[0]].set(packed[1:]))


def _state_maker(
    kv: KVLayout, shapes: Shapes, vocab_size: int, shardings: Shardings
) -> Callable[[], Any]:
    """Compiled, so that a state can be had again while requests wait."""
    make = jax.jit(partial(zero_state, kv, shapes, vocab_size), out_shardings=shardings)
    compiled: Callable[[], Any] = make.lower().compile()
    return compiled
