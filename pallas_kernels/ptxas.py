"""What ptxas says of the kernels that XLA compiles itself: those in Pallas Triton.

    XLA's dump: PTX of a kernel ─ ptxas -v ─> registers, spills
                schedule ───────────────────> shared memory of its block

XLA keeps nothing of what its own ptxas said, so ptxas is asked again with the same PTX.
"""

import importlib.util
import re
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

_CALL = re.compile(r'custom_call_target="__gpu\$xla\.gpu\.triton".* name = "([\w$]+)"')
_ENTRY = re.compile(r"\.entry ([\w$]+)\(")
_ARCHITECTURE = re.compile(r"^\.target (sm_\w+)", re.MULTILINE)
_SHARED = re.compile(r"kCustomKernel .*\] ([\w$]+) grid: .*shared_memory: (\d+) bytes")


@dataclass(frozen=True)
class Kernel:
    """What ptxas says of one kernel."""

    registers: int  # of a thread
    spilled_bytes: int  # of registers, stored and loaded


def parse_ptxas(text: str) -> Kernel:
    """From "Used 56 registers" and "8 bytes spill stores, 8 bytes spill loads"."""
    used = [int(n) for n in re.findall(r"Used (\d+) registers", text)]
    spills = [int(n) for n in re.findall(r"(\d+) bytes spill", text)]
    return Kernel(max(used, default=0), sum(spills))


def triton_kernels(folder: Path, hlo: str) -> Iterator[Kernel]:
    """Those that a program calls, from the PTX in a folder of XLA's dumps."""
    names = _calls(hlo)
    for path in sorted(folder.glob("*.ptx")):
        ptx = path.read_text()
        if any(_is_one_of(name, names) for name in _ENTRY.findall(ptx)):
            yield ask_ptxas(ptx)


def triton_shared_bytes(schedule: str, hlo: str) -> int:
    """Shared memory of a block, most of the kernels in Triton that a program calls."""
    names = _calls(hlo)
    found = (int(size) for name, size in _SHARED.findall(schedule) if _is_one_of(name, names))
    return max(found, default=0)


def _calls(hlo: str) -> set[str]:
    return set(_CALL.findall(hlo))


def _is_one_of(name: str, names: set[str]) -> bool:
    """XLA numbers kernels whose names are the same."""
    return name in names or re.sub(r"_\d+$", "", name) in names


def ask_ptxas(ptx: str) -> Kernel:
    """What it says of PTX that is compiled for its own target."""
    (architecture,) = _ARCHITECTURE.findall(ptx)
    with tempfile.NamedTemporaryFile("w", suffix=".ptx") as file:
        file.write(ptx)
        file.flush()
        command = [_find_ptxas(), "-v", f"-arch={architecture}", "-o", "/dev/null", file.name]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
    return parse_ptxas(done.stderr)


def _find_ptxas() -> str:
    """That of the wheel nvidia-cuda-nvcc, as XLA takes it, or the one on the path."""
    found = importlib.util.find_spec("nvidia")
    for place in (found and found.submodule_search_locations) or ():
        for path in sorted(Path(place).glob("*/bin/ptxas"), reverse=True):
            return str(path)
    return shutil.which("ptxas") or "ptxas"
