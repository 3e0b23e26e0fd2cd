"""From a shape to a lowered step, with arrays that are only described.

The runner lowers for the arrays it holds and the deviceless check for arrays that nobody holds;
both get the same program from here. Owns what the step's arguments look like, how they are
divided among devices, and what XLA is asked for. Knows no weights, plans or requests.
"""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from jaxtyping import Array

from engine.compiling.memory import KVLayout
from engine.compiling.shapes import Shapes, StepShape
from engine.packing import packed_size
from engine.sampling.late_sampling import packed_late_shape, sample_late, take
from engine.sampling.logits_processors import LogitsProcessors
from engine.sampling.sampler import Sampled
from engine.sampling.state import init_slots
from engine.step import DeviceState, new_state, step
from models.decoder import Decoder
from models.flatten import Layout, Leaf
from models.layers.attention import KVCache
from models.sharding import TENSOR, is_cpu, named_sharding

Shardings = Any  # a DeviceState whose leaves are shardings

# XLA's defaults and WHILE: without it the sampler's loops break the step's CUDA graph, and the host
# waits for the predicate of each conditional that is in none
COMMAND_BUFFERS = "FUSION,CUBLAS,CUBLASLT,CUDNN,CUSTOM_CALL,DYNAMIC_SLICE_FUSION,CONDITIONAL,WHILE"


LowerStep = Callable[[Layout[Decoder], StepShape, KVLayout, DeviceState, Mesh], jax.stages.Lowered]


def lower_step(
    layout: Layout[Decoder],
    shape: StepShape,
    kv: KVLayout,
    state: DeviceState,
    mesh: Mesh,
    processors: LogitsProcessors | None = None,
) -> jax.stages.Lowered:
    """The step of one shape, or what samples its rows later; `state` is what `abstract_state`
    returns, and is donated."""
    if shape.takes:
        return _lower_take(shape, state, mesh)
    if shape.late:
        return _lower_late(shape, kv, state, mesh, processors)

    def run(
        leaves: tuple[Array, ...], state: DeviceState, packed: Array
    ) -> tuple[DeviceState, Sampled]:
        model = layout.unflatten(leaves)
        return step(
            model, state, packed,
            shape=shape, pages_per_layer=kv.num_pages, mesh=mesh, backend=kv.backend,
            sampler=kv.sampler, processors=processors or None,
        )  # fmt: skip

    everywhere = whole(mesh)
    shardings = jax.tree.map(lambda array: array.sharding, state)
    results: Any = Sampled._make([everywhere] * len(Sampled._fields))
    results = results._replace(logits=_logits_sharding(state, mesh, 2))
    jitted = jax.jit(run, donate_argnums=1, out_shardings=(shardings, results))
    packed = jax.ShapeDtypeStruct((packed_size(shape),), np.int32, sharding=everywhere)
    return jitted.lower(abstract_leaves(layout.leaves, mesh), state, packed)


def _lower_take(shape: StepShape, state: DeviceState, mesh: Mesh) -> jax.stages.Lowered:
    logits = jax.ShapeDtypeStruct(
        (1, shape.rows, state.slots.counts.shape[1]), np.float32,
        sharding=_logits_sharding(state, mesh, 2),
    )  # fmt: skip
    places = jax.ShapeDtypeStruct((shape.tokens,), np.int32, sharding=whole(mesh))
    return jax.jit(take, out_shardings=_logits_sharding(state, mesh, 1)).lower(logits, places)


def _lower_late(
    shape: StepShape,
    kv: KVLayout,
    state: DeviceState,
    mesh: Mesh,
    processors: LogitsProcessors | None,
) -> jax.stages.Lowered:
    everywhere, vocab_size = whole(mesh), state.slots.counts.shape[1]
    run = partial(
        sample_late, mesh=mesh, sampler=kv.sampler, processors=processors or None,
        processed_logprobs=shape.processed_logprobs,
    )  # fmt: skip
    taken = _logits_sharding(state, mesh, 1)
    logits = jax.ShapeDtypeStruct((shape.rows, vocab_size), np.float32, sharding=taken)
    late_shape = packed_late_shape(shape, state.slots.allowed.shape[1])
    packed = jax.ShapeDtypeStruct(late_shape, np.int32, sharding=everywhere)
    jitted = jax.jit(run, donate_argnums=0, out_shardings=everywhere)
    return jitted.lower(state.last_token, state.slots, logits, packed)


def _logits_sharding(state: DeviceState, mesh: Mesh, axis: int) -> NamedSharding:
    """Of logits, whose last axis is `axis`, each device has the columns that it computes."""
    divided = state.slots.counts.shape[1] % mesh.size == 0
    return NamedSharding(mesh, PartitionSpec(*(None,) * axis, TENSOR if divided else None))


def compiler_options(mesh: Mesh) -> dict[str, str | bool]:
    """What XLA is asked for besides its defaults."""
    if is_cpu(mesh):
        return {}
    # XLA's rematerialization counts a cache that is updated in place three times, takes any pool
    # of production's size for too large, and computes things anew to save memory: 430 launches a
    # step for 400 (Mistral 7B, 64 rows, H200), and twice the time to compile
    return {
        "xla_gpu_enable_command_buffer": COMMAND_BUFFERS,
        "xla_disable_hlo_passes": "rematerialization",
    }


def zero_pages(kv: KVLayout) -> KVCache:
    """The pool, before anything lies in it."""
    keys = jnp.zeros(kv.shape, kv.dtype)
    cache = KVCache(keys, None if kv.latent else jnp.zeros_like(keys))
    if kv.scaled:
        scales = jnp.zeros(kv.shape[:3], jnp.float32)
        cache = cache._replace(k_scales=scales, v_scales=jnp.zeros_like(scales))
    if kv.index_dim:
        keys = jnp.zeros((*kv.shape[:3], kv.index_dim), kv.dtype)
        cache = cache._replace(index_keys=keys)
    return cache


def zero_state(kv: KVLayout, shapes: Shapes, vocab_size: int) -> DeviceState:
    """The state before the first step."""
    cache = zero_pages(kv)
    if kv.states is not None:
        cache = cache._replace(states=kv.states.zeros())
    slots = init_slots(shapes.max_num_seqs, vocab_size, shapes.watermark, shapes.times)
    given = kv.given.zeros() if kv.given is not None else None
    return new_state(
        cache, slots, given,
        num_slots=shapes.max_num_seqs, table_width=shapes.table_width,
        encoder_width=shapes.encoder_width,
    )  # fmt: skip


def state_shardings(kv: KVLayout, shapes: Shapes, vocab_size: int, mesh: Mesh) -> Shardings:
    """Pages are divided by heads; everything else is whole on every device."""
    heads = NamedSharding(mesh, PartitionSpec(None, TENSOR))
    abstract = jax.eval_shape(partial(zero_state, kv, shapes, vocab_size))
    spread: Any = jax.tree.map(lambda _: whole(mesh), abstract)
    cache: Any = jax.tree.map(lambda _: heads, abstract.cache)
    return spread._replace(cache=cache._replace(states=spread.cache.states))


def abstract_state(kv: KVLayout, shapes: Shapes, vocab_size: int, mesh: Mesh) -> Any:
    """The state as shapes, dtypes and shardings."""
    shardings = state_shardings(kv, shapes, vocab_size, mesh)
    abstract = jax.eval_shape(partial(zero_state, kv, shapes, vocab_size))
    return jax.tree.map(
        lambda array, sharding: jax.ShapeDtypeStruct(array.shape, array.dtype, sharding=sharding),
        abstract,
        shardings,
    )


def whole(mesh: Mesh) -> NamedSharding:
    """Every device has all of it."""
    return NamedSharding(mesh, PartitionSpec())


def abstract_leaves(leaves: Sequence[Leaf], mesh: Mesh) -> tuple[jax.ShapeDtypeStruct, ...]:
    """A model's leaves as shapes, dtypes and shardings."""
    return tuple(
        jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=named_sharding(mesh, leaf.axes))
        for leaf in leaves
    )
