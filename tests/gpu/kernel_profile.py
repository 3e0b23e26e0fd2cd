"""Where the time of a decode step goes, by class of kernel, from XLA's profile."""

import re
import tempfile
from collections import Counter
from pathlib import Path

import jax

from tests.gpu.records import Log
from tests.gpu.whole_engine import make_engine, trace

_CLASSES = (  # the first that matches a kernel's name
    ("attention", r"decode|attention|ragged"),
    ("matrix product", r"gemm|nvjet|cutlass|xmma|cublas|dot"),
    ("cache write", r"kv_write|scatter"),
    ("sampling", r"sample|topk|sort|reduce.*argmax"),
    ("copy", r"memcpy|copy"),
    ("norms, activations and the rest", r""),
)
_STEPS = 8


def profile(log: Log, folder: Path, quick: bool, rows: int) -> None:
    """Record microseconds a step of each class, and of the ten kernels that take the most."""
    core = make_engine(rows, quick)
    with tempfile.TemporaryDirectory() as traces:
        trace(core, rows, 8 if quick else 128, _STEPS, Path(traces))
        kernels = _kernel_us(Path(traces), "/host:CPU" if quick else "/device:GPU")
    core.close()
    classes: Counter[str] = Counter()
    for name, us in kernels.items():
        classes[_class_of(name)] += us
    for name, us in classes.most_common():
        log.add("profile", rows=rows, kernels=name, us_per_step=us / _STEPS)
    for name, us in kernels.most_common(10):
        log.add("profile", rows=rows, kernel=name[:120], us_per_step=us / _STEPS)


def _kernel_us(folder: Path, device: str) -> Counter[str]:
    """Microseconds on a device of all kernels of a profile, by name."""
    found: Counter[str] = Counter()
    for path in folder.rglob("*.xplane.pb"):
        for plane in jax.profiler.ProfileData.from_file(str(path)).planes:
            for line in plane.lines if plane.name.startswith(device) else ():
                # a GPU has other lines that hold the same time again, by module and by operation
                if line.name.startswith("Stream") or not device.startswith("/device"):
                    for event in line.events:
                        found[event.name] += event.duration_ns / 1e3
    return found


def _class_of(name: str) -> str:
    return next(label for label, pattern in _CLASSES if re.search(pattern, name, re.IGNORECASE))
