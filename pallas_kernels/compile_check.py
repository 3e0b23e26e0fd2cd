"""Compiles a GPU's kernels at every named shape for one that is not there.

    python -m pallas_kernels.compile_check --target h200

Prints registers, spills, shared memory and seconds, and the least time in which the GPU could move
the bytes and do the products. Fails if a kernel does not compile or spills. Times nothing.
"""

import argparse
import importlib
import json
import sys
from dataclasses import asdict, dataclass
from typing import Any

import jax
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from pallas_kernels.case import Case
from pallas_kernels.cases import find_cases
from pallas_kernels.deviceless import (
    Compiled,
    DevicelessError,
    Target,
    compile_for_target,
    load_target,
    target_names,
)
from pallas_kernels.dispatch import backend_for
from pallas_kernels.errors import KernelError


@dataclass(frozen=True)
class Report:
    """One kernel at one shape, compiled."""

    kernel: str
    case: str
    registers: int  # of a thread, most of its kernels
    spilled_bytes: int
    shared_kib: float  # of a block
    launches: int  # kernels and copies that the host or a graph starts
    lower_seconds: float
    compile_seconds: float
    mib_moved: float
    roofline_us: float
    error: str | None = None

    @property
    def failed(self) -> bool:
        return self.error is not None or self.spilled_bytes > 0


def check(case: Case, target: Target, mesh: Mesh) -> Report:
    """Compile a case for the device of `mesh`; what goes wrong is in the report."""
    measured: dict[str, Any] = {}
    try:
        measured = _measure(compile_case(case, mesh))
        error = None if measured["registers"] else "no kernel in Pallas or Triton was compiled"
    except Exception as raised:  # whatever a compiler raises is the finding
        error = f"{type(raised).__name__}: {raised}"
    return Report(
        kernel=case.kernel,
        case=case.name,
        **{**_NOTHING, **measured},
        mib_moved=case.bytes_moved / 2**20,
        roofline_us=1e6 * target.seconds(case.bytes_moved, case.flops),
        error=error,
    )


def compile_case(case: Case, mesh: Mesh) -> Compiled:
    """Compile `case.run` as it would be within a step on the device of `mesh`."""
    everywhere = NamedSharding(mesh, PartitionSpec())
    arguments = [
        jax.ShapeDtypeStruct(shape.shape, shape.dtype, sharding=everywhere)
        for shape in case.shapes()
    ]
    here = jax.shard_map(
        lambda *arrays: case.run(*arrays),
        mesh=mesh, in_specs=PartitionSpec(), out_specs=PartitionSpec(), check_vma=False,
    )  # fmt: skip
    jitted = jax.jit(here, donate_argnums=tuple(case.updated))
    return compile_for_target(lambda: jitted.lower(*arguments))


_NOTHING = {
    "registers": 0, "spilled_bytes": 0, "shared_kib": 0.0, "launches": 0, "lower_seconds": 0.0,
    "compile_seconds": 0.0,
}  # fmt: skip


def _measure(compiled: Compiled) -> dict[str, Any]:
    values = (
        max((kernel.registers for kernel in compiled.kernels), default=0),
        sum(kernel.spilled_bytes for kernel in compiled.kernels),
        compiled.shared_bytes / 1024,
        compiled.schedule.launches,
        compiled.lower_seconds,
        compiled.compile_seconds,
    )
    return dict(zip(_NOTHING, values, strict=True))


def _cases_for(mesh: Mesh, pattern: str, module: str) -> list[Case]:
    """Those whose kernel has a version for the device of `mesh`."""
    device: Any = mesh.devices.flat[0]
    backend = backend_for(device.platform, device.device_kind)
    found = find_cases(pattern, importlib.import_module(module).CASES)
    return [case for case in found if backend in case.versions]


def _print(reports: list[Report]) -> None:
    names = [name for name in asdict(reports[0]) if name not in ("kernel", "case", "error")]
    print(f"{'kernel':18}{'case':32}", *(f"{name:>15}" for name in names))
    for report in reports:
        row = asdict(report)
        cells = (
            f"{row[name]:15.2f}" if isinstance(row[name], float) else f"{row[name]:15}"
            for name in names
        )
        print(f"{report.kernel:18}{report.case:32}", *cells, report.error or "")


def main(arguments: list[str] | None = None) -> int:
    """The command; 1 where a kernel fails, 2 where this installation cannot compile for a GPU."""
    parser = argparse.ArgumentParser(
        prog="python -m pallas_kernels.compile_check", description=__doc__
    )
    known = ", ".join(target_names())
    parser.add_argument("--target", default="h200", help=f"{known}, or a GpuTargetConfigProto")
    parser.add_argument("--only", default="", help="cases whose kernel or name contains this")
    parser.add_argument(
        "--cases", default="pallas_kernels.cases", help="a module of kernels of your own: its CASES"
    )
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args(arguments)
    try:
        target = load_target(options.target)
        mesh = target.mesh("x")
        cases = _cases_for(mesh, options.only, options.cases)
    except (DevicelessError, KernelError) as error:
        print(error, file=sys.stderr)
        return 2
    if not cases:
        name = f"No kernel for {options.target} and no case"
        print(f"{name} has {options.only!r} in its name.", file=sys.stderr)
        return 2
    reports = [check(case, target, mesh) for case in cases]
    if options.json:
        print(json.dumps([asdict(report) for report in reports], indent=2))
    else:
        _print(reports)
    return 1 if any(report.failed for report in reports) else 0


if __name__ == "__main__":
    sys.exit(main())
