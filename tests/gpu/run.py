"""Does everything worth doing on a GPU, and keeps what it saw: `python -m tests.gpu.run`.

Writes results/<gpu>-<date>.json after every part, the tuned tiles to pallas_kernels/tuning/, and
prints a table last. `--dry-run` proves the script without a GPU: small shapes, interpreted
kernels, each thing once, nothing kept.
"""

import argparse
import datetime
import os
import signal
import subprocess
import sys
import tempfile
from contextlib import suppress
from importlib import metadata
from pathlib import Path
from time import perf_counter

from pallas_kernels.tuning import file_name
from tests.gpu.parts import Part, parts
from tests.gpu.records import RESULTS, Log, Record, write_result
from tests.gpu.report import summary
from tests.gpu.tuning import write_tuning

_LAST_WORDS = 400  # characters of what a part that failed said last


def main(arguments: list[str] | None = None) -> int:
    """The command; 1 where a part failed or a kernel is wrong."""
    parser = argparse.ArgumentParser(prog="python -m tests.gpu.run", description=__doc__)
    parser.add_argument("--dry-run", action="store_true", help="on the CPU; keeps nothing")
    parser.add_argument("--only", default="", help="parts whose names contain one of these: a,b")
    parser.add_argument("--budget", type=float, default=540, help="seconds for all of it")
    parser.add_argument("--out", type=Path, help="another folder for the results")
    options = parser.parse_args(arguments)
    if options.dry_run and metadata.version("jax") < "0.11":
        print("A dry run interprets the kernels, which takes JAX 0.11.", file=sys.stderr)
        return 2
    wanted = options.only.split(",")
    chosen = [part for part in parts() if any(word in part.name for word in wanted)]
    with tempfile.TemporaryDirectory() as scratch:
        keep = None if options.dry_run else options.out or RESULTS
        records = _run(chosen, Path(scratch), keep, options)
    if options.dry_run:
        print("A dry run: these are times of a CPU and an interpreter, good for nothing.")
    print(summary(records))
    failed = [record for record in records if "failed" in record or record.get("right") is False]
    for record in failed:
        print("failed:", record, file=sys.stderr)
    return 1 if failed else 0


def _run(
    chosen: list[Part], scratch: Path, keep: Path | None, options: argparse.Namespace
) -> list[Record]:
    """Do each part that there is time for; what is known is saved after each."""
    log, start = Log(scratch / "log"), perf_counter()
    folder = keep or scratch
    folder.mkdir(parents=True, exist_ok=True)
    for part in chosen:
        left = options.budget - (perf_counter() - start)
        if left < 15:
            log.add("skipped", name=part.name, why="the time of this run was up")
            continue
        _do(part, log, folder, min(left, part.limit_s), options.dry_run)
        if keep is not None:
            _save(keep, list(log.records()))
    return list(log.records())


def _do(part: Part, log: Log, folder: Path, limit: float, dry_run: bool) -> None:
    command = [sys.executable, "-m", "tests.gpu.parts", part.name, str(log.path), str(folder)]
    environment = {
        **os.environ,
        **({"JAX_PLATFORMS": "cpu"} if dry_run else {}),
        # PyTorch and JAX take turns, each needs no more than it uses
        "XLA_PYTHON_CLIENT_PREALLOCATE": "false",
    }
    began = perf_counter()
    try:
        status, said = ended(command + (["--quick"] if dry_run else []), environment, limit)
    except subprocess.TimeoutExpired:
        said, status = f"stopped after {limit:.0f} s", -9
        if limit < part.limit_s:  # the run's time was up, and not the part's
            log.add("skipped", name=part.name, why="the time of this run was up within it")
            return
    took = perf_counter() - began
    print(f"{part.name:40} {took:6.1f} s   {'ok' if status == 0 else said[-80:].strip()}")
    if status != 0:
        log.add("process", name=part.name, status=status, failed=said[-_LAST_WORDS:])


def ended(command: list[str], environment: dict[str, str], limit: float) -> tuple[int, str]:
    """A process's status and what it said of errors; raises TimeoutExpired. What it started and
    left, as a server, is ended too: it would have its share of the GPU while others are timed."""
    with subprocess.Popen(
        command, env=environment, start_new_session=True,
        stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True,
    ) as process:  # fmt: skip
        try:
            _, said = process.communicate(timeout=limit)
            return process.returncode, said
        finally:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)


def _save(folder: Path, records: list[Record]) -> None:
    device = next((r["device"] for r in records if r["part"] == "facts"), "unknown")
    name = file_name(device)
    date = datetime.date.today().isoformat()
    write_result(folder / f"{name}-{date}.json", records)
    if folder == RESULTS:
        write_tuning(name, records)


if __name__ == "__main__":
    sys.exit(main())
