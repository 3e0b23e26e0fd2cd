"""Compiling for a GPU that is not there: XLA's CUDA compiler on a description of the GPU.

    target file ─ topology ─ mesh of abstract devices ─ lower ─ compile ─ executable and dumps

Needs the CUDA plugin and ptxas, which the extra `deviceless` brings, and no driver or GPU. All is
as on the machine itself but what is measured there: XLA takes a default tile for its matrix
products, so those executables are for looking at. Knows no kernel and no model.
"""

import importlib
import importlib.util
import os
import re
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter
from typing import Any

import jax
from jax.experimental import topologies
from jax.experimental.compilation_cache import compilation_cache
from jax.sharding import AxisType, Mesh

from pallas_kernels.jax_triton_calls import TritonCall, triton_calls
from pallas_kernels.ptxas import (
    Kernel,
    ask_ptxas,
    parse_ptxas,
    triton_kernels,
    triton_shared_bytes,
)
from pallas_kernels.schedule import Schedule, parse_schedule

TARGETS = Path(__file__).parent / "targets"
PLUGINS = ("jax_cuda13_plugin", "jax_cuda12_plugin")


class DevicelessError(Exception):
    """This installation cannot compile for the target; the message says what is missing."""


@dataclass(frozen=True)
class Target:
    """A described GPU."""

    name: str  # of its file in targets/
    text: str  # a GpuTargetConfigProto
    bytes_per_second: float  # of its memory
    flops_per_second: float  # of its tensor cores, dense, 16-bit operands
    memory_bytes: int

    def seconds(self, bytes_moved: int, flops: int) -> float:
        """The least time for so many bytes and products: the roofline."""
        return max(bytes_moved / self.bytes_per_second, flops / self.flops_per_second)

    def mesh(self, axis: str, devices: int = 1) -> Mesh:
        """A mesh of so many of them, in a process that asks for no GPU of its own.

        Raises:
            DevicelessError: no CUDA plugin is installed.
        """
        missing = missing_plugin()
        if missing is not None:
            raise DevicelessError(missing)
        jax.config.update("jax_platforms", "cpu")  # else JAX looks for a driver, and fails loudly
        topology = topologies.get_topology_desc(
            platform="cuda", target_config=self.text, topology=f"1x1x{devices}"
        )
        found = topologies.make_mesh(topology, (devices,), (axis,)).devices
        return Mesh(found, (axis,), axis_types=(AxisType.Auto,))


def target_names() -> list[str]:
    return sorted(path.stem for path in TARGETS.glob("*.txtpb"))


def load_target(name: str) -> Target:
    """The target of that name, or in that file; raises DevicelessError if there is none."""
    path = TARGETS / f"{name}.txtpb" if name in target_names() else Path(name)
    if not path.is_file():
        known = ", ".join(target_names())
        raise DevicelessError(f"There is no target {name!r}; use a file, or one of {known}.")
    text = path.read_text()
    bandwidth, flops, memory = (
        _number(name, text, key)
        for key in ("memory_bandwidth", "# dense_flops", "device_memory_size")
    )
    return Target(name, text, bandwidth, flops, int(memory))


def _number(name: str, text: str, key: str) -> float:
    found = re.search(rf"{key}: (\d+)", text)
    if found is None:
        raise DevicelessError(f"The target {name!r} has no line {key!r}; add it to its file.")
    return float(found[1])


def missing_plugin() -> str | None:
    """What keeps this installation from compiling for a GPU, or None."""
    if any(importlib.util.find_spec(name) for name in PLUGINS):
        return None
    return (
        "No CUDA plugin is installed; `pip install 'ingot[deviceless]'` brings one, in the "
        "version of the newest jax."
    )


@dataclass(frozen=True)
class Compiled:
    """An executable, what XLA, Mosaic and ptxas wrote on the way, and the seconds that it took."""

    executable: jax.stages.Compiled
    schedule: Schedule
    kernels: tuple[Kernel, ...]  # those written in Pallas or Triton, each once
    shared_bytes: int  # of a block, most of all these kernels
    lower_seconds: float
    compile_seconds: float


def compile_for_target(
    lower: Callable[[], jax.stages.Lowered], options: Mapping[str, Any] | None = None
) -> Compiled:
    """Lower and compile for the devices in the arguments' shardings, with these options of XLA."""
    with (
        tempfile.TemporaryDirectory() as folder,
        tempfile.TemporaryDirectory() as tools,
        _environment(_dump_settings(folder, tools)),
        _without_cache(),
    ):
        settings = {"xla_gpu_autotune_level": "0", "xla_dump_to": folder, **(options or {})}
        start = perf_counter()
        lowered = lower()
        middle = perf_counter()
        executable = lowered.compile(compiler_options=settings)
        end = perf_counter()
        seconds = middle - start, end - middle
        return _read_dumps(Path(folder), executable, triton_calls(lowered), *seconds)


def _read_dumps(
    dumps: Path, executable: jax.stages.Compiled, calls: list[TritonCall], lower_seconds: float,
    compile_seconds: float,
) -> Compiled:  # fmt: skip
    schedule, hlo = _last_schedule(dumps), executable.as_text() or ""
    mosaic = [parse_ptxas(path.read_text()) for path in sorted(dumps.glob("*.ptxas"))]
    shared = [parse_resources(path.read_text()) for path in dumps.glob("*.resources.txt")]
    return Compiled(
        executable,
        parse_schedule(schedule),
        (*mosaic, *triton_kernels(dumps, hlo), *(ask_ptxas(call.ptx) for call in calls)),
        max([*shared, triton_shared_bytes(schedule, hlo), *(call.shared_bytes for call in calls)]),
        lower_seconds,
        compile_seconds,
    )


def parse_resources(text: str) -> int:
    """Bytes of shared memory, from "Resources(smem_scratch_bytes=143360, ..."."""
    return sum(int(n) for n in re.findall(r"smem_scratch_bytes=(\d+)", text))


def _dump_settings(folder: str, tools: str) -> dict[str, str]:
    """What is taken from the environment only; XLA reads its flags once, when it first compiles.

    Mosaic dumps all or nothing, and the assembler's code, which nobody reads here, would take half
    a second a kernel, or say for each that there is no disassembler: `true` is one, in `tools`.
    """
    importlib.import_module("jax.experimental.mosaic.gpu")  # which sets the root of the tools
    disassembler = Path(tools, "bin", "nvdisasm")
    disassembler.parent.mkdir()
    disassembler.symlink_to(shutil.which("true") or "/bin/true")
    flags = f"{os.environ.get('XLA_FLAGS', '')} --xla_dump_emitter_re=ptx"
    return {"MOSAIC_GPU_DUMP_TO": folder, "MOSAIC_GPU_CUDA_ROOT": tools, "XLA_FLAGS": flags}


@contextmanager
def _environment(settings: Mapping[str, str]) -> Iterator[None]:
    before = {name: os.environ.get(name) for name in settings}
    os.environ.update(settings)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


@contextmanager
def _without_cache() -> Iterator[None]:
    """JAX's cache of executables would keep those that it cannot load without a device.

    Whether there is a cache it decides once, hence the resets.
    """
    before = jax.config.values["jax_enable_compilation_cache"]
    jax.config.update("jax_enable_compilation_cache", False)
    compilation_cache.reset_cache()
    try:
        yield
    finally:
        jax.config.update("jax_enable_compilation_cache", before)
        compilation_cache.reset_cache()


def _last_schedule(dumps: Path) -> str:
    """The second file is written only where the last passes changed something."""
    for name in ("*thunk_sequence_after_thunk_passes.txt", "*thunk_sequence.txt"):
        for path in sorted(dumps.glob(name), reverse=True):
            return path.read_text()
    raise DevicelessError("XLA wrote no schedule; this version of jaxlib is not supported here.")
