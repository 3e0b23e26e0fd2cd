"""Compiles the engine's steps for a GPU that is not there, and fails where they would be slow.

    python -m engine.compile_check --target h200

A decode step and a mixed step of a model of Llama 3.1 8B's shape, without its weights. Fails if a
step writes a copy of weights or of the cache, or if the decode step is more than one CUDA graph.
Knows how steps are made; times nothing.
"""

import argparse
import json
import math
import sys
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import jax.numpy as jnp
from flax import nnx
from jax.sharding import Mesh

from engine.lowering import abstract_state, compiler_options, lower_step
from engine.memory import GIB, KVLayout
from engine.shapes import Shapes, StepShape
from models.attention import HEAD_AXIS
from models.config import ModelConfig
from models.decoder import Decoder
from models.flatten import Layout, layout
from models.registry import find_architecture
from pallas_kernels.deviceless import DevicelessError, compile_for_target, load_target, target_names
from pallas_kernels.schedule import find_copies

LLAMA_3_1_8B: Mapping[str, Any] = {
    "architectures": ["LlamaForCausalLM"],
    "vocab_size": 128256,
    "hidden_size": 4096,
    "intermediate_size": 14336,
    "num_hidden_layers": 32,
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
    "hidden_act": "silu",
    "max_position_embeddings": 131072,
    "rms_norm_eps": 1e-5,
    "rope_theta": 500000.0,
    "rope_scaling": {
        "rope_type": "llama3",
        "factor": 8.0,
        "low_freq_factor": 1.0,
        "high_freq_factor": 4.0,
        "original_max_position_embeddings": 8192,
    },
    "tie_word_embeddings": False,
}
# rows, tokens, context, page size. No size of a weight equals the tokens: an array of activations
# would look like a copy of it
SHAPES = Shapes(64, 2048, 4096, 16)
_SMALLEST_MATRIX = 2**20  # entries; vectors are stacked, and taken out of the stack in each step


@dataclass(frozen=True)
class Report:
    """One step, compiled."""

    step: str
    command_buffers: int  # CUDA graphs that the host launches one after another
    outside: dict[str, int]  # what it launches besides, by kind
    loops: int  # whose turns follow each other on the device
    launches: int  # kernels, products and copies that run in every step
    in_branches: int  # the same, within loops and conditionals
    copies: dict[str, int]  # of weights or of the cache
    aliased_gib: float  # of the state, updated in place
    temporary_mib: float
    spilled_bytes: int  # by Pallas kernels
    lower_seconds: float
    compile_seconds: float

    @property
    def faults(self) -> list[str]:
        """What is wrong with it, in sentences."""
        found = [f"{self.step}: writes {n} x {what}" for what, n in self.copies.items()]
        if self.spilled_bytes:
            found.append(f"{self.step}: kernels spill {self.spilled_bytes} bytes of registers")
        whole = self.command_buffers == 1 and not self.outside and not self.loops
        if self.step.startswith("decode") and not whole:
            found.append(
                f"{self.step}: {self.command_buffers} CUDA graphs, {self.loops} loops and "
                f"{self.outside or 'nothing'} outside; it must be one graph without loops"
            )
        return found


def check_step(
    config: ModelConfig, shapes: Shapes, shape: StepShape, kv: KVLayout, mesh: Mesh
) -> Report:
    """Lower and compile one step for the devices of `mesh`."""
    model = layout(nnx.eval_shape(lambda: Decoder(config, dtype=kv.dtype, shards=mesh.size)))
    state = abstract_state(kv, shapes, config.vocab_size, mesh)
    compiled = compile_for_target(
        lambda: lower_step(model, shape, kv, state, mesh), compiler_options(mesh)
    )
    memory: Any = compiled.executable.memory_analysis()
    schedule = compiled.schedule
    copies = find_copies(compiled.executable.as_text() or "", _kept(model, kv, mesh.size))
    return Report(
        step=str(shape),
        command_buffers=schedule.command_buffers,
        outside=schedule.outside,
        loops=schedule.loops,
        launches=schedule.launches,
        in_branches=schedule.in_branches,
        copies={str(what): count for what, count in copies.items()},
        aliased_gib=memory.alias_size_in_bytes / GIB,
        temporary_mib=memory.temp_size_in_bytes / 2**20,
        spilled_bytes=sum(kernel.spilled_bytes for kernel in compiled.kernels),
        lower_seconds=compiled.lower_seconds,
        compile_seconds=compiled.compile_seconds,
    )


def _kept(model: Layout[Decoder], kv: KVLayout, shards: int) -> list[tuple[int, ...]]:
    """Shapes of what must stay where it is: matrices, the cache, the cache of one layer."""
    shapes = [leaf.shape for leaf in model.leaves if math.prod(leaf.shape) >= _SMALLEST_MATRIX]
    layer = (kv.num_pages, *kv.shape[1:])
    whole = [*shapes, kv.shape, layer]
    # a shard has a part of one axis
    return whole + [
        (*shape[:axis], shape[axis] // shards, *shape[axis + 1 :])
        for shape in whole
        for axis in range(len(shape) if shards > 1 else 0)
    ]


def llama_config(layers: int | None = None) -> ModelConfig:
    """Llama 3.1 8B, or its first `layers` layers."""
    raw = {**LLAMA_3_1_8B, "num_hidden_layers": layers or LLAMA_3_1_8B["num_hidden_layers"]}
    return find_architecture(raw).config(raw)


def check_all(mesh: Mesh, layers: int | None = None) -> list[Report]:
    """The largest decode step and the largest mixed step."""
    config = llama_config(layers)
    pages = SHAPES.max_num_seqs * SHAPES.table_width + 1
    heads = config.cache_kv_heads(mesh.size)
    kv = KVLayout(
        config.num_layers, pages, heads, SHAPES.page_size, config.head_dim, jnp.dtype(jnp.bfloat16)
    )
    return [
        check_step(config, SHAPES, shape, kv, mesh)
        for shape in (SHAPES.decode()[-1], SHAPES.mixed()[-1])
    ]


def _print(reports: list[Report]) -> None:
    for report in reports:
        print(report.step)
        for name, value in asdict(report).items():
            if name != "step":
                shown = f"{value:.2f}" if isinstance(value, float) else value or "none"
                print(f"    {name.replace('_', ' '):18} {shown}")


def main(arguments: list[str] | None = None) -> int:
    """The command; returns 1 where a step has a fault."""
    parser = argparse.ArgumentParser(prog="python -m engine.compile_check", description=__doc__)
    parser.add_argument("--target", choices=target_names(), default="h200")
    parser.add_argument("--devices", type=int, default=1, help="tensor-parallel size")
    parser.add_argument("--layers", type=int, help="fewer than the model has, to be quicker")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args(arguments)
    try:
        mesh = load_target(options.target).mesh(HEAD_AXIS, options.devices)
    except DevicelessError as error:
        print(error, file=sys.stderr)
        return 2
    reports = check_all(mesh, options.layers)
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
