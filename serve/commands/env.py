"""`ingot env`: what this machine and this installation are, for people and for bug reports."""

import os
import platform
from collections.abc import Iterable
from importlib.metadata import PackageNotFoundError, distributions, version
from pathlib import Path

from rich.console import Console
from rich.markup import escape
from rich.table import Table

PACKAGES = (
    "ingot", "jax", "jaxlib", "flax", "numpy", "tokenizers", "huggingface-hub", "jinja2",
    "llguidance", "msgspec", "starlette", "uvicorn", "h11", "prometheus-client", "typer", "rich",
)  # fmt: skip
VARIABLES = ("XLA_FLAGS", "JAX_PLATFORMS", "LIBTPU_INIT_ARGS", "CUDA_VISIBLE_DEVICES")
MEMINFO = Path("/proc/meminfo")
CPUINFO = Path("/proc/cpuinfo")

Facts = dict[str, dict[str, str]]


def gather() -> Facts:
    """All facts, by section. Starts JAX's backend to see its devices."""
    return {
        "system": _system(),
        "packages": {name: _version(name) for name in PACKAGES},
        "accelerator plugins": _plugins(),
        "devices": _devices(),
        "environment": {name: os.environ.get(name, "") for name in VARIABLES},
    }


def show(facts: Facts, console: Console) -> None:
    """The facts as one table."""
    table = Table(show_header=False, box=None, padding=(0, 2, 0, 0))
    table.add_column(style="dim")
    table.add_column(overflow="fold")
    for section, rows in facts.items():
        table.add_row(f"[bold not dim]{section}[/]", "")
        for name, value in rows.items() or [("none", "-")]:
            table.add_row(f"  {name}", escape(value) or "not set")
    console.print(table)


def _system() -> dict[str, str]:
    return {
        "python": platform.python_version(),
        "os": platform.platform(),
        "cpu": _first_field(CPUINFO, "model name") or platform.machine(),
        "cores": str(len(os.sched_getaffinity(0))),
        "memory": _gibibytes(_first_field(MEMINFO, "MemTotal")),
        "memory available": _gibibytes(_first_field(MEMINFO, "MemAvailable")),
    }


def _devices() -> dict[str, str]:
    import jax

    try:
        return {str(device.id): _describe(device) for device in jax.devices()}
    except RuntimeError as error:
        return {"none": str(error).splitlines()[0]}


def _describe(device: object) -> str:
    backend, model = getattr(device, "platform", "?"), getattr(device, "device_kind", "?")
    kind = model if backend == model else f"{backend} {model}"
    stats: dict[str, int] = getattr(device, "memory_stats", dict)() or {}
    limit = stats.get("bytes_limit")
    return f"{kind}, {limit / 2**30:.1f} GiB" if limit else kind


def _plugins() -> dict[str, str]:
    found = {each.name: each.version for each in distributions() if _is_plugin(each.name)}
    return dict(sorted(found.items()))


def _is_plugin(name: str | None) -> bool:
    return name is not None and name.startswith("jax") and name.endswith(("-plugin", "-pjrt"))


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return "not installed"


def _gibibytes(field: str | None) -> str:
    """ "24684096 kB" -> "23.5 GiB"."""
    kibibytes = (field or "").removesuffix(" kB")
    return f"{int(kibibytes) / 2**20:.1f} GiB" if kibibytes.isdecimal() else "unknown"


def _first_field(path: Path, name: str) -> str | None:
    """`path` holds lines like "MemTotal:  131 kB"."""
    try:
        lines: Iterable[str] = path.read_text().splitlines()
    except OSError:
        return None
    values = (line.partition(":")[2].strip() for line in lines if line.startswith(name))
    return next(values, None)
