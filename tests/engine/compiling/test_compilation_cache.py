"""Damaged entries are deleted with one warning, and compiled and kept again."""

import os
import threading
import time
import warnings
from contextlib import contextmanager
from pathlib import Path

import jax
import pytest
from jax.experimental.compilation_cache import compilation_cache

from engine.compiling.compilation_cache import discard_damaged, trim, use_compilation_cache
from engine.compiling.programs import _THREAD_NAME
from engine.compiling.xla_tilings import is_whole


@pytest.fixture
def own_cache(tmp_path):
    """A cache folder of this test, and JAX's settings as they were afterwards.

    Engines of other tests may still compile in their threads, and would write into it.
    """
    for thread in threading.enumerate():
        if thread.name == _THREAD_NAME:
            thread.join()
    names = (
        "jax_compilation_cache_dir",
        "jax_persistent_cache_min_compile_time_secs",
        "jax_persistent_cache_min_entry_size_bytes",
    )
    before = {name: getattr(jax.config, name) for name in names}
    compilation_cache.reset_cache()
    yield tmp_path / "cache"
    for name, value in before.items():
        jax.config.update(name, value)
    compilation_cache.reset_cache()


def age(entry):
    """Written so long ago that nobody can still be at it, and yet after the last start."""
    written = time.time() - 20
    os.utime(entry, (written, written))
    if (checked := entry.parent / "checked").exists():
        os.utime(checked, (written - 1, written - 1))


def start(folder, caplog):
    """As an engine starts: use the cache, compile. Returns results and warnings."""
    caplog.clear()
    jax.clear_caches()
    use_compilation_cache(str(folder), 1.0)
    results = [int(jax.jit(lambda x, n=n: x * x + n)(3)) for n in range(4)]
    return results, [each.getMessage() for each in caplog.records if each.levelname == "WARNING"]


def test_a_start_with_garbage_in_the_cache(own_cache, caplog):
    want = ([9, 10, 11, 12], [])
    assert start(own_cache, caplog) == want
    entries = sorted(own_cache.glob("*-cache"))
    assert len(entries) >= 4
    for number, entry in enumerate(entries):
        content = entry.read_bytes()
        damaged = (b"", b"garbage", content[: len(content) // 2], b"\0" * len(content))[number % 4]
        entry.write_bytes(damaged)
        age(entry)
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # JAX's own, of entries that it cannot read
        results, [said] = start(own_cache, caplog)
    assert results == want[0]
    assert said.startswith(f"{len(entries)} damaged entries of the compilation cache {own_cache}")
    assert sorted(own_cache.glob("*-cache")) == entries  # written again, and whole:
    assert start(own_cache, caplog) == want


def test_only_what_was_written_since_the_last_start_is_read(tmp_path, caplog):
    entry, tiling = tmp_path / "jit_run-0123-cache", tmp_path / "notes.txt"
    tiling.write_text("not ours")
    entry.write_bytes(b"garbage")
    os.utime(entry, (1, 1))
    (tmp_path / "checked").touch()
    discard_damaged(tmp_path)
    assert entry.exists() and not caplog.records
    entry.write_bytes(b"more garbage")
    discard_damaged(tmp_path)
    assert entry.exists() and not caplog.records  # it may be half written
    age(entry)
    discard_damaged(tmp_path)
    assert not entry.exists() and tiling.exists() and len(caplog.records) == 1


def test_what_another_process_deletes_meanwhile_stops_nothing(tmp_path, caplog, monkeypatch):
    """Two engines that start at once check and trim one folder."""
    for name in "abcd":
        (tmp_path / f"{name}-cache").write_bytes(b"garbage")
        age(tmp_path / f"{name}-cache")
    read, scan = Path.read_bytes, os.scandir

    def deleted_first(path):
        (tmp_path / "a-cache").unlink(missing_ok=True)
        (tmp_path / "b-cache").unlink(missing_ok=True)
        return read(path)

    monkeypatch.setattr(Path, "read_bytes", deleted_first)
    discard_damaged(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["checked"]
    assert len(caplog.records) == 1 and "damaged" in caplog.records[0].getMessage()

    @contextmanager
    def deleted_after(folder):
        with scan(folder) as entries:
            found = list(entries)
        (tmp_path / "e-cache").unlink()
        monkeypatch.undo()
        yield found

    for name in "efg":
        (tmp_path / f"{name}-cache").write_bytes(bytes(10))
    monkeypatch.setattr(os, "scandir", deleted_after)
    trim(tmp_path, 15)
    assert len(list(tmp_path.glob("*-cache"))) == 1 and len(caplog.records) == 1


TILING = """run_time {
  nanos: 34816
}
other {
  name: "TRITON \\"{x}"
  config {
    [type.googleapis.com/xla.AutotuneResult.TritonGemmKey] {
      block_m: 16 is_tma_allowed: true
    }
  }
}
"""


def test_damaged_tilings_of_xla_are_deleted(tmp_path, caplog):
    folder = tmp_path / "xla_gpu_per_fusion_autotune_cache_dir"
    folder.mkdir()
    whole = {"a": TILING, "b": "version: 3\nresults { device: 'x' }".replace("'", '"'),
             "c": "scratch_bytes: 81 a_field_of_tomorrow: -1.5e3"}  # fmt: skip
    damaged = {
        "d": "", "e": "\xff\xfe\0", "f": "garbage", "g": "some words, 12 of them", "h": "foo: 1",
        "i": TILING[: len(TILING) // 2], "j": TILING + "}", "k": TILING + "\0", "l": "triton: \n",
    }  # fmt: skip
    for name, content in {**whole, **damaged}.items():
        (folder / name).write_bytes(content.encode("latin-1"))
    discard_damaged(tmp_path)
    assert sorted(path.name for path in folder.iterdir()) == ["a", "b", "c"]
    (said,) = caplog.records
    assert said.getMessage().startswith("9 damaged entries")


def test_a_tiling_that_was_cut_off_is_not_whole():
    first = TILING.index("}") + 2
    for end in range(len(TILING) - 1):
        assert not is_whole(TILING[:end]) or end in (first - 1, first)
    assert is_whole(TILING)


def test_a_folder_that_may_not_be_written_is_left_alone(tmp_path, caplog):
    discard_damaged(tmp_path / "nowhere")
    assert "cannot be checked: No such file" in caplog.records[0].getMessage()


def test_what_was_used_least_recently_goes_first(tmp_path):
    for name, read, written in (("a", 9, 1), ("b", 2, 5), ("c", 3, 4), ("d", 1, 6)):
        (tmp_path / f"{name}-cache").write_bytes(bytes(10))
        (tmp_path / f"{name}-atime").write_bytes(b"JAX")
        os.utime(tmp_path / f"{name}-cache", (read, written))
    (tmp_path / "notes.txt").write_text("not ours")
    trim(tmp_path, 40)
    assert len(list(tmp_path.iterdir())) == 9
    trim(tmp_path, 29)
    left = sorted(path.name for path in tmp_path.iterdir())
    assert left == ["a-atime", "a-cache", "d-atime", "d-cache", "notes.txt"]


def test_a_folder_that_cannot_be_trimmed_is_left_alone(tmp_path, caplog, monkeypatch):
    (tmp_path / "a-cache").write_bytes(b"a")

    def denied(*_, **__):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("pathlib.Path.unlink", denied)
    trim(tmp_path, 0)
    assert "cannot be trimmed: Permission denied" in caplog.records[0].getMessage()


def test_a_start_bounds_the_folder(own_cache, caplog):
    start(own_cache, caplog)
    assert list(own_cache.glob("*-cache"))
    use_compilation_cache(str(own_cache), 0)
    assert not list(own_cache.glob("*-cache"))
