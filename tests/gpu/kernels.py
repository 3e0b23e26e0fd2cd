"""Every kernel on the device: is it right, how fast is it, and which tiles are fastest."""

from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from pallas_kernels.case import Case
from pallas_kernels.cases import CASES
from tests.gpu.records import Log
from tests.gpu.timing import seconds_per_call

_TRIALS = 2  # cases of a trial, which is of the script: the tests interpret all of them


def correctness(log: Log, folder: Path, quick: bool, kernel: str) -> None:
    """Each case, made small, against its reference in float64; then, whole, in float32."""
    for case in _cases(kernel)[: _TRIALS if quick else None]:
        _record_error(log, case.small(), "small", quick)
        if not quick:
            _record_error(log, case, "full", quick)


def benchmark(log: Log, folder: Path, quick: bool, kernel: str) -> None:
    """Each case's time, and the rates that follow from what it must move and multiply."""
    for case in _cases(kernel)[: _TRIALS if quick else None]:
        used = case.small() if quick else case
        try:
            time = seconds_per_call(used, quick=quick)
        except Exception as error:  # one kernel that fails is a finding, and not the last
            log.add("kernels", kernel=kernel, case=case.name, failed=_sentence(error))
            continue
        log.add(
            "kernels",
            kernel=kernel,
            case=case.name,
            us=1e6 * time,
            gb_s=used.bytes_moved / time / 1e9,
            tflop_s=used.flops / time / 1e12,
        )


def tiles(log: Log, folder: Path, quick: bool, kernel: str) -> None:
    """Each case with each of its tilings."""
    for case in _cases(kernel)[: _TRIALS if quick else None]:
        used = case.small() if quick else case
        for tiling in used.tilings()[: 1 if quick else None]:
            try:
                time = seconds_per_call(used, tiling, quick=quick)
            except Exception as error:
                log.add("tiles", kernel=kernel, case=case.name, tiling=dict(tiling),
                        failed=_sentence(error))  # fmt: skip
            else:
                log.add("tiles", kernel=kernel, case=case.name, tiling=dict(tiling), us=1e6 * time)


def _cases(kernel: str) -> list[Case]:
    return [case for case in CASES if case.kernel == kernel]


def _record_error(log: Log, case: Case, size: str, quick: bool) -> None:
    about = {"kernel": case.kernel, "case": case.name, "size": size}
    try:
        arrays = case.make(jax.random.key(0))
        got = case.run(*arrays, interpret=quick)
        error = max(
            map(_distance, jax.tree.leaves(got), jax.tree.leaves(_right(case, arrays, size)))
        )
    except Exception as raised:
        log.add("correctness", **about, failed=_sentence(raised))
        return
    right = bool(error <= case.tolerance)
    log.add("correctness", **about, error=error, tolerance=case.tolerance, right=right)


def _right(case: Case, arrays: tuple[Array, ...], size: str) -> Any:
    if size == "full":
        return case.reference(*arrays)
    with jax.enable_x64(True):
        return jax.device_get(case.reference(*map(_wide, arrays)))


def _wide(array: Array) -> Array:
    """In float64, if it is a float."""
    return array.astype(jnp.float64) if jnp.issubdtype(array.dtype, jnp.floating) else array


def _distance(got: Any, want: Any) -> float:
    """|got - want| / |want|; infinite where there is a NaN."""
    got, want = np.asarray(got, np.float64), np.asarray(want, np.float64)
    distance = float(np.linalg.norm(got - want) / max(float(np.linalg.norm(want)), 1e-30))
    return distance if np.isfinite(distance) else float("inf")


def _sentence(error: Exception) -> str:
    return f"{type(error).__name__}: {str(error)[:300]}"
