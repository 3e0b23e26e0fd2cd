"""Where compiled programs are kept between starts, whether they can be read, and how many stay.

JAX can bound the folder itself (`jax_compilation_cache_max_size`), but then takes a lock and reads
the whole folder for every entry, and fails at entries that are older than the bound.
"""

import logging
import os
import time
import zlib
from collections.abc import Iterator
from contextlib import suppress
from importlib import import_module
from itertools import accumulate
from pathlib import Path
from stat import S_ISREG

import jax

from engine.compiling.xla_tilings import is_whole
from engine.errors import ConfigError

logger = logging.getLogger(__name__)

_ENTRY = "-cache"  # how JAX's names of compiled programs end
_TILINGS = "xla_gpu_per_fusion_autotune_cache_dir"  # XLA's own measurements on GPUs, as text
_LAST_USE = "-atime"  # the suffix of JAX's own notes, where another program bounds the folder
_GIB = 2**30
_CHECKED = "checked"  # as old as the last start: what is older has been read before
_WRITING_NS = 10 * 10**9  # an entry takes milliseconds
_ZSTD = b"\x28\xb5\x2f\xfd"
_ZSTD_MODULES = ("compression.zstd", "zstandard")  # of which JAX takes the first that is there


def default_folder() -> Path:
    """`$XDG_CACHE_HOME/ingot/xla`, or the same under `~/.cache`."""
    root = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(root) / "ingot" / "xla"


def use_compilation_cache(folder: str | None, most_gib: float) -> None:
    """Let XLA keep every program in `folder`, of earlier starts as many as fit into `most_gib`; a
    user's own JAX setting goes first."""
    if folder is None and getattr(jax.config, "jax_compilation_cache_dir", None):
        return
    path = Path(folder) if folder else default_folder()
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        if folder is None:
            return  # a read-only home: every start compiles anew
        raise ConfigError(f"--compilation-cache-dir {folder}: {error.strerror}.") from None
    discard_damaged(path)
    trim(path, int(most_gib * _GIB))
    jax.config.update("jax_compilation_cache_dir", str(path))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0)
    jax.config.update("jax_persistent_cache_min_entry_size_bytes", -1)


def discard_damaged(folder: Path) -> None:
    """Delete what cannot be read of what was written since the last start.

    A process that is killed while JAX writes an entry leaves half of it. JAX would warn of it at
    every start and never replace it, and XLA refuses to compile for a GPU with a damaged tiling.
    An entry that is not whole and only just written may be another engine's at this moment: the
    next start looks at it again.
    """
    mark, fresh = folder / _CHECKED, time.time_ns() - _WRITING_NS
    try:
        before = mark.stat().st_mtime_ns if mark.exists() else 0
        mark.touch()
        unread = {e: at for e, at in _written_since(folder, before) if not _readable(e)}
        begun = {e: at for e, at in unread.items() if at >= fresh and e.name.endswith(_ENTRY)}
        damaged = [entry for entry in unread if entry not in begun]
        for entry in damaged:
            entry.unlink(missing_ok=True)
        if begun:
            os.utime(mark, ns=(min(begun.values()),) * 2)
    except OSError as error:
        logger.warning("the compilation cache %s cannot be checked: %s", folder, error.strerror)
        return
    if damaged:
        logger.warning(
            "%d damaged entries of the compilation cache %s were deleted, %s among them; they "
            "are compiled again", len(damaged), folder, damaged[0].name,
        )  # fmt: skip


def trim(folder: Path, most_bytes: int) -> None:
    """Delete what was used least recently, until the programs that stay take so many bytes.

    When a file was read is known to a day on most machines, and nowhere worse than when written.
    """
    try:
        found = [*_files(folder, _ENTRY)]
        found.sort(key=lambda each: -max(each[1].st_atime_ns, each[1].st_mtime_ns))
        for (name, _), total in zip(found, accumulate(s.st_size for _, s in found), strict=True):
            if total > most_bytes:
                (folder / name).unlink(missing_ok=True)
                note = name.removesuffix(_ENTRY) + _LAST_USE
                (folder / note).unlink(missing_ok=True)
    except OSError as error:
        logger.warning("the compilation cache %s cannot be trimmed: %s", folder, error.strerror)


def _files(folder: Path, ending: str) -> Iterator[tuple[str, os.stat_result]]:
    """Names that end so: of 37,000, in half of the time of `Path.glob` and `Path.stat`."""
    with os.scandir(folder) as entries:
        for entry in entries:
            if entry.name.endswith(ending):
                with suppress(FileNotFoundError):  # another process that starts now has deleted it
                    yield entry.name, entry.stat()


def _written_since(folder: Path, before: int) -> Iterator[tuple[Path, int]]:
    """Entries, and when each was written."""
    for place, ending in ((folder, _ENTRY), (folder / _TILINGS, "")):
        if place.is_dir():
            for name, found in _files(place, ending):
                if S_ISREG(found.st_mode) and found.st_mtime_ns >= before:
                    yield place / name, found.st_mtime_ns


def _readable(entry: Path) -> bool:
    """Whether it can be used; what is gone is in nobody's way."""
    try:
        content = entry.read_bytes()
    except FileNotFoundError:
        return True
    try:
        if not entry.name.endswith(_ENTRY):
            return is_whole(content.decode())
        if content.startswith(_ZSTD):
            return _unpacks(content)
        return bool(zlib.decompress(content))
    except (ValueError, zlib.error):
        return False


def _unpacks(content: bytes) -> bool:
    """Whether it is a whole frame; unknown, and so true, where nothing here can tell."""
    for name in _ZSTD_MODULES:
        try:
            module = import_module(name)
        except ImportError:
            continue
        try:
            return bool(module.decompress(content))
        except (module.ZstdError, EOFError):
            return False
    return True
