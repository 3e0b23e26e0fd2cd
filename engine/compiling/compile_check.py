"""Compiles the engine's steps for a GPU that is not there, and fails where they would be slow.

    python -m engine.compiling.compile_check --target h200

A decode step and a mixed step of a published model's shape, without its weights. Fails if a step
writes a copy of weights or of the cache, if a step on one GPU is more than one CUDA graph, or if
the weights do not fit. Knows how steps are made; times nothing.
"""

import argparse
import json
import math
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import Mesh

from engine.compiling.lowering import abstract_state, compiler_options, lower_step
from engine.compiling.memory import GIB, KVLayout, resolve_layout, resolve_pages
from engine.compiling.shapes import Shapes, StepShape
from engine.config import CACHE_DTYPES, make_config
from models.checkpoints.memory import bytes_per_device
from models.config.decoder import ModelConfig
from models.config.published import PUBLISHED
from models.decoder import Decoder
from models.flatten import Layout
from models.quantised.choosing import by_column
from models.quantised.experts import ExpertsKernel
from models.quantised.kernels import GroupKernel, Packed
from models.quantised.packing import Choose, Kind, decoder_layout, num_parameters
from models.registry import find_architecture
from models.sharding import TENSOR
from pallas_kernels.deviceless import (
    DevicelessError,
    Target,
    compile_for_target,
    load_target,
    target_names,
)
from pallas_kernels.schedule import Written, find_copies

# rows, tokens, context, page size. No size of a weight equals the tokens: an array of activations
# would look like a copy of it
SHAPES = Shapes(64, 1920, 4096, 16, late=True)
_DTYPE = jnp.bfloat16  # of weights and activations
_QUANTIZATIONS = ("int8", "fp8", "gptq", "awq", "mxfp4")  # in groups of 128, or 32
_WORDS = {"int32": "s32", "uint16": "u16"}  # that hold several numbers: dtype, and XLA's name
_UNPACKED_TOKENS = 512  # from which weights of 4 bits are made 16 bits wide first
_SMALLEST_MATRIX = 2**20  # entries; vectors are stacked, and taken out of the stack in each step


@dataclass(frozen=True)
class Report:
    """One step, compiled."""

    model: str
    step: str
    devices: int
    command_buffers: int  # CUDA graphs that the host launches one after another
    outside: dict[str, int]  # what it launches besides, by kind
    loops: int  # whose turns follow each other on the device
    launches: int  # kernels, products and copies that run in every step
    in_branches: int  # the same, within loops and conditionals
    copies: dict[str, int]  # of weights or of the cache
    aliased_gib: float  # of the state, updated in place
    temporary_mib: float
    weights_gib: float  # on each device, like what follows
    room_gib: float  # left of what the engine may use; negative where that is too little
    room_for_tokens: int  # whose keys and values fit beside weights and temporaries
    spilled_bytes: int  # by Pallas kernels
    gib_moved: float  # weights, and keys and values of full contexts
    roofline_ms: float  # the least time for that
    lower_seconds: float
    compile_seconds: float

    @property
    def faults(self) -> list[str]:
        """What is wrong with it, in sentences."""
        found = [f"writes {n} x {what}" for what, n in self.copies.items()]
        if self.spilled_bytes:
            found.append(f"kernels spill {self.spilled_bytes} bytes of registers")
        if self.room_gib <= 0:
            taken = self.weights_gib + self.temporary_mib / 1024
            found.append(
                f"weights and temporaries take {taken:.1f} of the {taken + self.room_gib:.1f} GiB "
                "of a device; more --devices or a --quantization would make them fit"
            )
        whole = self.command_buffers == 1 and not self.outside and not self.loops
        if self.devices == 1 and not whole:
            found.append(
                f"{self.command_buffers} CUDA graphs, {self.loops} loops and "
                f"{self.outside or 'nothing'} outside; it must be one graph without loops"
            )
        return [f"{self.model}, {self.step}: {fault}" for fault in found]


@dataclass(frozen=True)
class Failure:
    """A step that does not compile."""

    model: str
    step: str
    error: str

    @property
    def faults(self) -> list[str]:
        """The same, as a sentence."""
        return [f"{self.model}, {self.step}: does not compile: {self.error}"]


def check_step(
    name: str,
    config: ModelConfig,
    shape: StepShape,
    target: Target,
    mesh: Mesh,
    cache_dtype: str = "auto",
    quantization: str | None = None,
) -> Report:
    """Lower and compile one step of a model for the devices of `mesh`, all of the same kind."""
    kv = _cache(config, mesh, cache_dtype)
    model, kernels = decoder_layout(config, _DTYPE, mesh, _choose(quantization))
    state = abstract_state(kv, SHAPES, config.vocab_size, mesh)
    compiled = compile_for_target(
        lambda: lower_step(model, shape, kv, state, mesh), compiler_options(mesh)
    )
    memory: Any = compiled.executable.memory_analysis()
    schedule = compiled.schedule
    copies = _copies(compiled.executable.as_text() or "", model, kernels, kv, shape, mesh.size)
    weights = bytes_per_device(model.leaves, mesh)
    moved = shape.window * (weights + kv.num_pages * kv.page_bytes // mesh.size)
    room = (
        make_config().gpu_memory_utilization * target.memory_bytes
        - weights
        - memory.temp_size_in_bytes
    )
    return Report(
        model=name,
        step=str(shape),
        devices=mesh.size,
        command_buffers=schedule.command_buffers,
        outside=schedule.outside,
        loops=schedule.loops,
        launches=schedule.launches,
        in_branches=schedule.in_branches,
        copies={str(what): count for what, count in copies.items()},
        aliased_gib=memory.alias_size_in_bytes / GIB,
        temporary_mib=memory.temp_size_in_bytes / 2**20,
        weights_gib=weights / GIB,
        room_gib=room / GIB,
        room_for_tokens=_tokens_in(room * mesh.size, kv),
        spilled_bytes=sum(kernel.spilled_bytes for kernel in compiled.kernels),
        gib_moved=moved / GIB,
        roofline_ms=1e3
        * target.seconds(moved, _flops(model, kernels, shape.tokens * shape.window, mesh.size)),
        lower_seconds=compiled.lower_seconds,
        compile_seconds=compiled.compile_seconds,
    )


def _tokens_in(room: float, kv: KVLayout) -> int:
    """Whose keys and values fit into so many bytes; 0 where no layer has any."""
    return max(0, int(room / kv.page_bytes)) * SHAPES.page_size if kv.page_bytes else 0


def _choose(quantization: str | None) -> Choose | None:
    """Weights as --quantization makes them, or as checkpoints of a kind have them."""
    if quantization is None:
        return None
    if quantization in ("int8", "fp8"):
        return by_column(quantization)
    groups = partial(GroupKernel, bits=4, group=128, zeros=quantization == "awq", dtype=_DTYPE)
    experts = partial(ExpertsKernel, kind="int4", group=128)
    if quantization == "mxfp4":
        experts = partial(ExpertsKernel, kind="mxfp4", group=32)

    def choose(path: str, shape: tuple[int, ...]) -> Kind | None:
        if len(shape) == 3:
            return experts
        return None if quantization == "mxfp4" or path == "head.kernel" else groups

    return choose


def _copies(
    hlo: str,
    model: Layout[Decoder],
    kernels: Mapping[str, Packed],
    kv: KVLayout,
    shape: StepShape,
    shards: int,
) -> dict[Written, int]:
    """What writes weights, packed or not, the cache or one layer's of it."""
    matrices = [leaf for leaf in model.leaves if math.prod(leaf.shape) >= _SMALLEST_MATRIX]
    words = [leaf.shape for leaf in matrices if leaf.dtype.name in _WORDS]
    plain = [leaf.shape for leaf in matrices if leaf.dtype.name not in _WORDS]
    plain += [
        kernel.shape
        for kernel in kernels.values()
        if shape.tokens < _UNPACKED_TOKENS or not isinstance(kernel, GroupKernel)
    ]
    widths = (kv.head_dim, kv.index_dim) if kv.index_dim else (kv.head_dim,)
    rows = (kv.shape[0], kv.num_pages) if kv.num_layers else ()
    pages = [(count, *kv.shape[1:3], width) for count in rows for width in widths]
    found = find_copies(hlo, _divided([*plain, *pages], shards) + _states(kv))
    # words are few enough that activations may have their shape
    packed = find_copies(hlo, _divided(words, shards))
    return found | {what: n for what, n in packed.items() if what.dtype in _WORDS.values()}


def _states(kv: KVLayout) -> list[tuple[int, ...]]:
    """Those of all layers and of one."""
    if kv.states is None:
        return []
    pools = jax.tree.leaves(jax.eval_shape(kv.states.zeros))
    return [
        (slots, *pool.shape[1:]) for pool in pools for slots in (pool.shape[0], kv.states.num_slots)
    ]


def _divided(shapes: Sequence[tuple[int, ...]], shards: int) -> list[tuple[int, ...]]:
    """The shapes, and those of a shard's part, of one axis, where that is a matrix still: a router
    of 2048 x 512, of which nothing is divided, would have parts as large as activations."""
    parts = [
        (*shape[:axis], shape[axis] // shards, *shape[axis + 1 :])
        for shape in shapes
        for axis in range(len(shape) if shards > 1 else 0)
    ]
    return [*shapes, *(part for part in parts if math.prod(part) >= _SMALLEST_MATRIX)]


def _flops(model: Layout[Decoder], kernels: Mapping[str, Packed], tokens: int, shards: int) -> int:
    """Of the products with weights."""
    return 2 * tokens * num_parameters(model, kernels) // shards


def _cache(config: ModelConfig, mesh: Mesh, dtype: str) -> KVLayout:
    """Room for as many full contexts as there are rows, as the engine would lay it out."""
    pages = SHAPES.max_num_seqs * SHAPES.table_width + 1
    settings = make_config(num_gpu_blocks_override=pages, kv_cache_dtype=dtype)
    page = resolve_layout(settings, config, SHAPES, mesh, _DTYPE)
    return resolve_pages(settings, page, SHAPES, mesh, None)


def published_config(name: str, layers: int | None = None) -> ModelConfig:
    """A published model, or its first `layers` layers."""
    raw = {**PUBLISHED[name]}
    raw["num_hidden_layers"] = layers or raw["num_hidden_layers"]
    return find_architecture(raw).config(raw)


def check_model(
    name: str,
    layers: int | None,
    target: Target,
    mesh: Mesh,
    cache_dtype: str = "auto",
    quantization: str | None = None,
) -> Iterator[Report | Failure]:
    """The largest decode step and the largest mixed step."""
    config = published_config(name, layers)
    shapes = replace(SHAPES, snapshots=config.mixer is not None)
    for shape in (shapes.decode()[-1], shapes.mixed()[-1]):
        try:
            yield check_step(name, config, shape, target, mesh, cache_dtype, quantization)
        except Exception as error:  # whatever a compiler raises is the finding
            yield Failure(name, str(shape), f"{type(error).__name__}: {error}")


def _print(reports: list[Report | Failure]) -> None:
    for report in reports:
        print(f"{report.model}, {report.step}")
        for name, value in asdict(report).items():
            if name not in ("model", "step"):
                shown = f"{value:.2f}" if isinstance(value, float) else value or "none"
                print(f"    {name.replace('_', ' '):18} {shown}")


def main(arguments: list[str] | None = None) -> int:
    """The command; returns 1 where a step has a fault."""
    parser = argparse.ArgumentParser(
        prog="python -m engine.compiling.compile_check", description=__doc__
    )
    known = ", ".join(target_names())
    parser.add_argument("--target", default="h200", help=f"{known}, or a GpuTargetConfigProto")
    parser.add_argument("--model", choices=[*PUBLISHED, "all"], default="llama-3.1-8b")
    parser.add_argument("--devices", type=int, default=1, help="tensor-parallel size")
    parser.add_argument("--layers", type=int, help="fewer than the model has, to be quicker")
    parser.add_argument("--kv-cache-dtype", choices=CACHE_DTYPES, default="auto")
    parser.add_argument("--quantization", choices=_QUANTIZATIONS)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args(arguments)
    try:
        target = load_target(options.target)
        mesh = target.mesh(TENSOR, options.devices)
    except DevicelessError as error:
        print(error, file=sys.stderr)
        return 2
    names = PUBLISHED if options.model == "all" else (options.model,)
    reports = [
        report
        for name in names
        for report in check_model(
            name, options.layers, target, mesh, options.kv_cache_dtype, options.quantization
        )
    ]
    if options.json:
        print(json.dumps([asdict(report) for report in reports], indent=2))
    else:
        _print(reports)
    faults = [fault for report in reports for fault in report.faults]
    for fault in faults:
        print(fault, file=sys.stderr)
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
