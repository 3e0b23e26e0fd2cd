"""The parts of a run, and the process that does one of them.

python -m tests.gpu.parts '<name>' <log> <folder> [--quick]
"""

import importlib.util
import sys
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from tests.gpu.records import Log
from tests.gpu.report import WORKLOADS

Do = Callable[[Log, Path, bool], None]


@dataclass(frozen=True)
class Part:
    """Something to do on the GPU."""

    name: str
    limit_s: int  # it is stopped after so many seconds
    do: Callable[[], Do]  # imports what it needs
    needs: tuple[str, ...] = ()  # modules without which it is skipped


def parts() -> list[Part]:
    """All of them, the most valuable first."""
    from pallas_kernels.cases import CASES

    kernels = list(dict.fromkeys(case.kernel for case in CASES))
    return [
        Part("facts", 60, _ceilings),
        *(Part(f"correctness {name}", 120, partial(_kernel, "correctness", name))
          for name in kernels),
        *(Part(f"kernels {name}", 60, partial(_kernel, "benchmark", name)) for name in kernels),
        Part("engine 1", 120, partial(_engine, 1, True)),
        Part("engine 64", 120, partial(_engine, 64, True)),
        Part("peers", 60, _peers, ("torch",)),
        Part("cuDNN", 40, _cudnn),
        Part("transformers 1", 60, partial(_transformers, 1), ("transformers",)),
        Part("profile 64", 120, partial(_profile, 64)),
        Part("engine 256", 120, partial(_engine, 256, True)),
        *(Part(name, 150, partial(_workload, name), ("starlette", "uvicorn", "llguidance"))
          for name in WORKLOADS),
        Part("engine 1 without graphs", 120, partial(_engine, 1, False)),
        Part("engine 64 without graphs", 120, partial(_engine, 64, False)),
        Part("transformers 64", 60, partial(_transformers, 64), ("transformers",)),
        *(Part(f"tiles {name}", 60, partial(_kernel, "tiles", name)) for name in kernels),
    ]  # fmt: skip


def _ceilings() -> Do:
    from tests.gpu import ceilings

    return ceilings.measure


def _kernel(what: str, name: str) -> Do:
    from tests.gpu import kernels

    return partial(getattr(kernels, what), kernel=name)


def _engine(rows: int, graphs: bool) -> Do:
    from tests.gpu import whole_engine

    return partial(whole_engine.throughput, rows=rows, graphs=graphs)


def _workload(name: str) -> Do:
    from tests.gpu import workloads

    return getattr(workloads, name.replace(" ", "_"))  # type: ignore[no-any-return]


def _profile(rows: int) -> Do:
    from tests.gpu import kernel_profile

    return partial(kernel_profile.profile, rows=rows)


def _peers() -> Do:
    from tests.gpu import torch_peers

    return torch_peers.kernels


def _cudnn() -> Do:
    from tests.gpu import cudnn_peers

    return cudnn_peers.prompts


def _transformers(rows: int) -> Do:
    from tests.gpu import torch_peers

    return partial(torch_peers.generate, rows=rows)


def main() -> None:
    """Do the part that the command line names."""
    name, path, folder, *quick = sys.argv[1:]
    part, log = next(part for part in parts() if part.name == name), Log(Path(path))
    missing = [module for module in part.needs if importlib.util.find_spec(module) is None]
    if missing:
        log.add("skipped", name=name, why=f"{', '.join(missing)} is not installed")
    else:
        part.do()(log, Path(folder), bool(quick))


if __name__ == "__main__":
    main()
