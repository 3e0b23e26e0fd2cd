"""From a checkpoint folder to sharded arrays on devices.

    for each leaf, for each device:  its slice ─> byte ranges of tensors ─> one host array ─> device

Owns when bytes are read, cast and placed, and whether they fit. Host memory holds a few slices at a
time, never the model (on a CPU device the model itself, once). Refuses to know the file format
(safetensors.py), which tensor is which (weights.py), and what the numbers mean (decoder.py).
"""

import logging
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from fnmatch import fnmatchcase
from functools import partial
from pathlib import Path
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding
from jaxtyping import Array

from models.checkpoints.checkpoint import (
    GENERATION_CONFIG,
    find_folder,
    open_tensors,
    read_generation_config,
)
from models.checkpoints.contradictions import (
    differing_copy,
    missing_tensor,
    surplus_tensor,
    wrong_dtype,
    wrong_shape,
)
from models.checkpoints.converted import READERS, find_made
from models.checkpoints.converted import read_leaves as read_converted
from models.checkpoints.memory import check_memory
from models.checkpoints.settings import read_settings
from models.checkpoints.slices import BLOCK_BYTES, Index, read_slice
from models.config.decoder import ModelConfig
from models.config.fields import Fields
from models.decoder import Decoder
from models.errors import UnsupportedError
from models.flatten import Layout, Leaf, Module
from models.quantised.choosing import kinds_of, online_kinds
from models.quantised.kernels import Packed
from models.quantised.methods import Method, quantisation_method
from models.quantised.packing import decoder_layout, num_parameters
from models.quantised.placing import PackedPlacer
from models.quantised.tensors import Readable
from models.registry import Architecture, find_architecture
from models.sharding import is_cpu, named_sharding
from models.weights.sources import Source, Stack, WeightMap

DTYPES: Mapping[str, np.dtype] = {
    "bfloat16": jnp.dtype(jnp.bfloat16),
    "float16": jnp.dtype(jnp.float16),
    "float32": jnp.dtype(jnp.float32),
}
Ready = Callable[[ModelConfig, Layout[Decoder]], None]
READABLE = ("bfloat16", "float16", "float32", "float64")

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class LoadedModel:
    """A model whose parameters are on the devices of its mesh."""

    folder: Path
    config: ModelConfig
    generation_config: Mapping[str, Any]
    layout: Layout[Decoder]  # layout.unflatten(leaves) inside a jit is the decoder
    leaves: tuple[Array, ...]
    mesh: Mesh
    num_parameters: int = 0  # not counting scales
    quantization: str | None = None  # "int8"
    dtype: str = "float32"  # that was settled
    weights: WeightMap = field(
        default_factory=lambda: WeightMap({})
    )  # where the parameters lie in the checkpoint

    @property
    def eos_token_ids(self) -> frozenset[int]:
        """Ids that end a text, by config.json or by generation_config.json."""
        generation = self._generation
        return frozenset(self.config.eos_token_ids + generation.token_ids("eos_token_id"))

    @property
    def decoder_prompt(self) -> list[int]:
        """Ids with which the text of a decoder begins that has an encoder; else none.

        The start token, and the one that is forced behind it: of several ids the first.
        """
        generation = self._generation
        start, forced = self.config.decoder_prompt[:1], self.config.decoder_prompt[1:]
        start = generation.token_ids("decoder_start_token_id")[:1] or start
        return [*start, *(generation.token_ids("forced_bos_token_id")[:1] or forced)]

    @property
    def alignment_heads(self) -> tuple[tuple[int, int], ...]:
        """Layers and heads that attend to where in the audio a token is said; none if nobody says,
        or if some are not there: smaller models have been published with their teacher's list."""
        pairs = self._generation.pairs("alignment_heads")
        layers, heads = self.config.num_layers, self.config.num_heads
        missing = [pair for pair in pairs if pair[0] >= layers or pair[1] >= heads]
        if missing:
            logger.warning(
                "%s names the alignment head %s of %d layers of %d heads: nobody can be told when "
                "words are said", GENERATION_CONFIG, missing[0], layers, heads,
            )  # fmt: skip
        return () if missing else pairs

    @property
    def _generation(self) -> Fields:
        return Fields(self.generation_config, str(self.folder / GENERATION_CONFIG))


def load(
    model: str | Path,
    mesh: Mesh,
    *,
    dtype: str = "auto",
    load_format: Literal["auto", "dummy"] = "auto",
    quantization: str | None = None,
    seed: int = 0,
    max_model_len: int | None = None,
    hf_overrides: Mapping[str, Any] | None = None,
    ready: Ready | None = None,
) -> LoadedModel:
    """Load the checkpoint folder `model` onto `mesh`, cut into as many shards as it has devices.

    One that was converted is read as it lies, and "auto" is what it was converted for.

    Args:
        dtype: of matrices and activations; "auto" is float32 on CPU and bfloat16 elsewhere.
        load_format: "dummy" draws random weights from `seed`, others for another size of the mesh,
            and needs config.json only.
        quantization: "int8" and "fp8" quantise the linear maps while they are read.
        max_model_len: tokens of context the model is run with, if not those it was made for.
        hf_overrides: values that go before those of config.json.
        ready: called once the checkpoint is known to be whole, and before any of it is read.

    Raises:
        CheckpointError: a file is missing or malformed, or tensors do not fit the configuration.
        UnsupportedError: the architecture, a setting, a quantisation or the mesh is not supported.
        ModelError: the parameters do not fit into the devices' free memory.
    """
    folder = find_folder(model)
    method, architecture, config = _settings_of(folder, hf_overrides, max_model_len)
    begin = partial(_begin, config, mesh, ready)
    made = find_made(folder) if load_format == "auto" else None
    if made is not None:
        dtype, quantization = made.settings(folder, dtype, quantization)
    compute = compute_dtype(dtype, mesh)
    weights = architecture.weights(config)
    online = online_kinds(quantization, method, mesh, compute, made and made.platform)
    if load_format == "dummy" or made is not None:
        plan, kernels = decoder_layout(config, compute, mesh, online)
        begin(plan)
        if made is not None:
            leaves = read_converted(folder, made, plan.leaves, weights.sources, mesh)
        else:
            leaves = random_leaves(plan.leaves, mesh, seed, config.norm_offset, kernels)
    else:
        with open_tensors(folder) as tensors:
            weights, found = _match(weights, method.read(tensors) if method else tensors, folder)
            choose = kinds_of(weights.sources, found, compute, mesh) if method else online
            plan, kernels = decoder_layout(config, compute, mesh, choose)
            _check_all_shapes(plan, weights, found, kernels, folder)
            begin(plan)
            leaves = _read(plan, weights, found, mesh, kernels)
    count = num_parameters(plan, kernels)
    generation = read_generation_config(folder)
    used = quantization or (method.name if method else None)
    return LoadedModel(
        folder, config, generation, plan, leaves, mesh, count, used, compute.name, weights
    )


def _settings_of(
    folder: Path, hf_overrides: Mapping[str, Any] | None, max_model_len: int | None
) -> tuple[Method | None, Architecture, ModelConfig]:
    _, (method, architecture, config) = read_settings(folder, hf_overrides, _read_settings)
    if max_model_len is not None:
        config = replace(config, context_length=max_model_len)
    return method, architecture, config


def _begin(config: ModelConfig, mesh: Mesh, ready: Ready | None, plan: Layout[Decoder]) -> None:
    """Nothing is wrong with the checkpoint; raises ModelError where there is no room for it."""
    if ready is not None:
        ready(config, plan)
    check_memory(plan.leaves, mesh)


def _read_settings(raw: Mapping[str, Any]) -> tuple[Method | None, Architecture, ModelConfig]:
    """All of config.json; raises as `load`."""
    method, architecture = quantisation_method(raw), find_architecture(raw)
    config = architecture.config(raw)
    check_causal(raw)
    return method, architecture, config


def check_causal(raw: Mapping[str, Any]) -> None:
    """Raise UnsupportedError if a decoder's tokens see those behind them, images' excepted."""
    fields = Fields(raw)
    both_ways = raw.get("use_bidirectional_attention") not in (None, False, "vision")
    if both_ways or not fields.flag("is_causal", True):
        raise UnsupportedError(
            f"This {fields.texts('architectures')[0]} lets tokens see those behind them "
            f"({'use_bidirectional_attention' if both_ways else 'is_causal false'}), which is not "
            "supported for decoders."
        )


def compute_dtype(dtype: str, mesh: Mesh) -> np.dtype:
    """The dtype called `dtype`; raises UnsupportedError if there is none of that name."""
    if dtype == "auto":
        # bfloat16 products on CPU are 10 to 100 times slower
        dtype = "float32" if is_cpu(mesh) else "bfloat16"
    if dtype not in DTYPES:
        names = ", ".join(("auto", *DTYPES))
        raise UnsupportedError(f"The dtype {dtype!r} does not exist; use one of {names}.")
    return DTYPES[dtype]


def random_leaves(
    leaves: tuple[Leaf, ...],
    mesh: Mesh,
    seed: int,
    norm_offset: bool,
    kernels: Mapping[str, Packed],
) -> tuple[Array, ...]:
    """Norms that do nothing, biases of 0, states that fade, others of deviation 1 / sqrt(input)."""
    constants = {"weight": 0.0 if norm_offset else 1.0, "bias": 0.0, "matrix": -1.0}

    def make(number: int, leaf: Leaf) -> Array:
        module, _, name = leaf.paths[0].rpartition(".")
        packed = kernels.get(module)
        known = packed.random_constants if packed else constants
        key = jax.random.fold_in(jax.random.key(seed), number)
        sharding = named_sharding(mesh, leaf.axes)
        if packed and name not in known and jnp.issubdtype(leaf.dtype, jnp.integer):
            bits: Array = _random_bits(key, packed.random_mask, leaf.shape, leaf.dtype, sharding)
            return bits
        drawn_of = packed.random_deviation if packed else _deviation(leaf)
        deviation = 0.0 if name in known else drawn_of
        mean = known.get(name, 0.0)
        drawn: Array = _normal(key, mean, deviation, leaf.shape, leaf.dtype, sharding)
        return drawn

    return tuple(make(number, leaf) for number, leaf in enumerate(leaves))


def _deviation(leaf: Leaf) -> float:
    axis = leaf.axes.index("embed") if {"vocab", "embed"} <= {*leaf.axes} else 0
    return float(leaf.shape[axis] ** -0.5)


@partial(jax.jit, static_argnums=(3, 4, 5))
def _normal(
    key: Array,
    mean: Array | float,
    deviation: Array | float,
    shape: tuple[int, ...],
    dtype: np.dtype,
    sharding: NamedSharding,
) -> Array:
    """Drawn on the devices, each its own part."""
    values = (mean + deviation * jax.random.normal(key, shape)).astype(dtype)
    placed: Array = jax.lax.with_sharding_constraint(values, sharding)
    return placed


@partial(jax.jit, static_argnums=(1, 2, 3, 4))
def _random_bits(
    key: Array, mask: int | None, shape: tuple[int, ...], dtype: np.dtype, sharding: NamedSharding
) -> Array:
    """Likewise; bits of `mask` only."""
    bits = jax.random.bits(key, shape, f"uint{8 * dtype.itemsize}")
    values = jax.lax.bitcast_convert_type(bits & mask if mask else bits, dtype)
    placed: Array = jax.lax.with_sharding_constraint(values, sharding)
    return placed


def read_module(
    folder: Path,
    lay_out: Callable[[], Layout[Module]],
    weights: WeightMap,
    mesh: Mesh,
    method: Method | None,
) -> tuple[Layout[Module], tuple[Array, ...]]:
    """A layout, and its leaves on their devices, none of which stays quantised; raises as `load`.

    It is made once all tensors have a place: one of 1,000 layers takes a minute.
    """
    with open_tensors(folder) as tensors:
        weights, found = _match(weights, method.read(tensors) if method else tensors, folder)
        plan = lay_out()
        _check_all_shapes(plan, weights, found, {}, folder)
        check_memory(plan.leaves, mesh)
        return plan, _read(plan, weights, found, mesh, {})


def _read(
    plan: Layout[Any],
    weights: WeightMap,
    found: Mapping[str, Readable],
    mesh: Mesh,
    kernels: Mapping[str, Packed],
) -> tuple[Array, ...]:
    plain = _plain(plan, kernels)
    with ThreadPoolExecutor(READERS) as pool:
        place = partial(_place, mesh=mesh, sources=weights.sources, tensors=found)
        placed = dict(zip(plain, pool.map(place, plain), strict=True))
        placed |= PackedPlacer(kernels, weights.sources, found, mesh).place(plan.leaves, pool)
    return tuple(placed[leaf] for leaf in plan.leaves)


def _plain(plan: Layout[Any], kernels: Mapping[str, Packed]) -> list[Leaf]:
    """Leaves that are no part of a packed matrix."""
    return [leaf for leaf in plan.leaves if _module(leaf) not in kernels]


def _module(leaf: Leaf) -> str:
    return leaf.paths[0].rpartition(".")[0]


def _match(
    weights: WeightMap, tensors: Mapping[str, Readable], folder: Path
) -> tuple[WeightMap, dict[str, Readable]]:
    """The map that suits the checkpoint, and its tensors under the sources' names.

    They are all that are needed and no others.
    """
    weights = weights.suited(tensors)
    prefix = weights.optional_prefix
    needed = weights.needed
    bare = {name.removeprefix(prefix): name for name in needed}
    found = {bare.get(name, name): tensor for name, tensor in tensors.items()}
    for name in sorted(needed - found.keys()):
        raise missing_tensor(name, found, folder)
    for name in sorted(found.keys() - needed):
        if not any(fnmatchcase(name, p) or fnmatchcase(prefix + name, p) for p in weights.ignored):
            raise surplus_tensor(name, needed, folder)
    for name, other in weights.copies.items():
        if name in found and not _equal(found[name], found[other]):
            raise differing_copy(name, other, folder)
    return weights, found


def _equal(one: Readable, other: Readable) -> bool:
    """Whether both hold the same numbers; some rows at a time are read."""
    if one.shape != other.shape:
        return False
    rows = max(1, BLOCK_BYTES // max(1, one.row_bytes))
    for start in range(0, one.shape[0], rows):
        stop = min(start + rows, one.shape[0])
        mine, its = (t.read(start, stop).astype(np.float32) for t in (one, other))
        if not np.array_equal(mine, its):
            return False
    return True


def _check_all_shapes(
    plan: Layout[Any],
    weights: WeightMap,
    found: Mapping[str, Readable],
    kernels: Mapping[str, Packed],
    folder: Path,
) -> None:
    """Raise CheckpointError for a tensor of another shape than its place has."""
    shapes: dict[str, tuple[int, ...]] = {path: kernel.shape for path, kernel in kernels.items()}
    for leaf in _plain(plan, kernels):
        shapes |= dict.fromkeys(leaf.paths, leaf.shape[1:] if leaf.stacked else leaf.shape)
    for path, shape in shapes.items():
        _check_shapes(weights.sources[path], shape, found, folder)


def _check_shapes(
    source: Source | Stack,
    shape: tuple[int, ...],
    tensors: Mapping[str, Readable],
    folder: Path,
    experts: tuple[int, ...] = (1,),
) -> None:
    if isinstance(source, Stack):
        for one in source.sources:
            _check_shapes(one, shape[1:], tensors, folder, (len(source.sources),))
        return
    for name, outputs in source.outputs().items():
        expected = (*shape[: source.axis], outputs, *shape[source.axis + 1 :])
        expected = expected[::-1] if source.transpose else expected
        expected = (expected[0], 1, *expected[1:]) if source.between else expected
        expected = expected if source.entry is None else experts + expected
        tensor = tensors[name]
        if tensor.shape != expected:
            raise wrong_shape(tensor, expected, folder)
        if tensor.dtype.name not in READABLE:
            raise UnsupportedError(wrong_dtype(tensor, READABLE, folder))


def _place(
    leaf: Leaf,
    *,
    mesh: Mesh,
    sources: Mapping[str, Source | Stack],
    tensors: Mapping[str, Readable],
) -> Array:
    """Read each device's slice of a leaf and put it there."""
    source = sources[leaf.paths[0]]
    if leaf.stacked:  # vectors, which are never stacks of their own
        source = Stack(tuple(s for s in map(sources.get, leaf.paths) if isinstance(s, Source)))

    def read(index: Index | None) -> np.ndarray:
        return read_slice(source, tensors, index or (), leaf.shape, leaf.dtype, mesh.size)

    return jax.make_array_from_callback(leaf.shape, named_sharding(mesh, leaf.axes), read)
