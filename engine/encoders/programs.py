"""The compiled encoders: a request's input goes through one when the request gets its slot.

    source ─ encoder ─ keys and values of every layer ─> the request's encoder pages
    packed ─ slot, length, pages ─> the device's table, which steps read

One input at a time, in the smallest program that takes it: 16, 32, 64 .. tokens, or the one of
audio, whose windows are all of one length. They run between
steps, on the same donated state. Owns their packed input and the tables; knows no schedule.
"""

from dataclasses import replace
from functools import partial
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh
from jaxtyping import Array, Float32, Int32

from engine.compiling.lowering import abstract_leaves, compiler_options, whole
from engine.compiling.memory import KVLayout
from engine.compiling.programs import Programs
from engine.compiling.shapes import Shapes, StepShape
from engine.encoders.pages import EncoderInput
from engine.pooling.shapes import encoder_shapes
from engine.step import DeviceState
from models.checkpoints.loading import LoadedModel
from models.decoder import Decoder
from models.encoder_decoder import EncoderDecoder
from models.flatten import Layout
from models.layers.attention import EncodedRows

_HEAD = 2  # entries of the packed input before the pages: slot, length


class Encoders:
    """Programs of one engine, and which of them a request needs."""

    def __init__(self, programs: Programs, shapes: Shapes) -> None:
        self._programs = programs
        self._width = shapes.encoder_width
        self._place: Any = jax.jit(_place, donate_argnums=0)

    def warm_up(self, state: Any, mesh: Mesh) -> None:
        """Compile what names pages that are written already; smaller programs follow."""
        packed = jax.ShapeDtypeStruct((_HEAD + self._width,), np.int32, sharding=whole(mesh))
        shardings = jax.tree.map(lambda array: array.sharding, state)
        place = jax.jit(_place, donate_argnums=0, out_shardings=shardings)
        self._place = place.lower(state, packed).compile()
        self._programs.compile_rest()

    def run(
        self, leaves: tuple[Array, ...], state: DeviceState, slot: int, encoder: EncoderInput
    ) -> DeviceState:
        """`state` in which the tokens of `slot` see the input; `state` is donated."""
        length = encoder.length
        row = np.zeros(_HEAD + self._width, np.int32)
        row[:_HEAD] = slot, length
        row[_HEAD : _HEAD + len(encoder.pages)] = encoder.pages
        if encoder.found:
            placed: DeviceState = self._place(state, row)
            return placed
        program = self._programs.find(length, decode=False)
        source = encoder.source
        if source.ndim == 1:
            source = np.pad(source, (0, program.shape.tokens - length))
        written: DeviceState = program.run(leaves, state, row, source)
        return written

    def close(self) -> None:
        """Compile nothing more."""
        self._programs.close()


def encoder_programs(model: LoadedModel, shapes: Shapes, kv: KVLayout, state: Any) -> Programs:
    """The programs of a model that has an encoder; none is compiled yet."""
    longest, encoder = shapes.max_encoder_len, model.config.encoder
    mels = encoder.mel_bins if encoder else 0
    sizes = encoder_shapes(1, longest, longest)
    if mels:
        whole_window = sizes.steps[-1:]
        sizes = replace(sizes, steps=whole_window, first=whole_window)
    lower = partial(
        lower_encoder, model.layout, width=shapes.encoder_width, mels=mels, kv=kv, state=state,
        mesh=model.mesh,
    )  # fmt: skip
    return Programs(sizes, lower, compiler_options(model.mesh))


def lower_encoder(
    layout: Layout[Decoder],
    shape: StepShape,
    *,
    width: int,
    mels: int,
    kv: KVLayout,
    state: Any,
    mesh: Mesh,
) -> jax.stages.Lowered:
    """The encoder of inputs up to `shape.tokens`; `state` as `abstract_state` returns it."""

    def run(
        leaves: tuple[Array, ...], state: DeviceState, packed: Array, source: Array
    ) -> DeviceState:
        model: Any = layout.unflatten(leaves)
        return encode(model, state, packed, source, pages_per_layer=kv.num_pages)

    everywhere = whole(mesh)
    shardings = jax.tree.map(lambda array: array.sharding, state)
    packed = jax.ShapeDtypeStruct((_HEAD + width,), np.int32, sharding=everywhere)
    form, kind = ((2 * shape.tokens, mels), np.float32) if mels else ((shape.tokens,), np.int32)
    source = jax.ShapeDtypeStruct(form, kind, sharding=everywhere)
    jitted = jax.jit(run, donate_argnums=1, out_shardings=shardings)
    return jitted.lower(abstract_leaves(layout.leaves, mesh), state, packed, source)


def encode(
    model: EncoderDecoder,
    state: DeviceState,
    packed: Int32[Array, " X"],
    source: Int32[Array, " S"] | Float32[Array, "frames mels"],
    *,
    pages_per_layer: int,
) -> DeviceState:
    """Read one input, of which the decoder's keys and values are written into its pages."""
    one = EncodedRows(packed[None, _HEAD:], packed[1:_HEAD])
    cache = model.encode(source, one, state.cache, pages_per_layer=pages_per_layer)
    return _place(state._replace(cache=cache), packed)


def _place(state: DeviceState, packed: Int32[Array, " X"]) -> DeviceState:
    """Write the row of the slot `packed[0]`."""
    encoded = state.encoded
    if encoded is None:
        raise TypeError("the state has no encoded rows")
    slot = packed[0]
    rows = EncodedRows(
        encoded.page_table.at[slot].set(packed[_HEAD:]), encoded.lengths.at[slot].set(packed[1])
    )
    return state._replace(encoded=rows)
