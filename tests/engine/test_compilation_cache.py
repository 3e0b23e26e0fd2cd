"""Damaged entries are deleted with one warning, and compiled and kept again."""

import os
import warnings

import jax
import pytest
from jax.experimental.compilation_cache import compilation_cache

from engine.compilation_cache import discard_damaged, use_compilation_cache


@pytest.fixture
def own_cache(tmp_path):
    """A cache folder of this test, and JAX's settings as they were afterwards."""
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


def start(folder, caplog):
    """As an engine starts: use the cache, compile. Returns results and warnings."""
    caplog.clear()
    jax.clear_caches()
    use_compilation_cache(str(folder))
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
    assert not entry.exists() and tiling.exists() and len(caplog.records) == 1


def test_damaged_tilings_of_xla_are_deleted(tmp_path):
    folder = tmp_path / "xla_gpu_per_fusion_autotune_cache_dir"
    folder.mkdir()
    for name, content in {"a": b'version: 3 device: "x"', "b": b"", "c": b"\xff\xfe\0"}.items():
        (folder / name).write_bytes(content)
    discard_damaged(tmp_path)
    assert [path.name for path in folder.iterdir()] == ["a"]


def test_a_folder_that_may_not_be_written_is_left_alone(tmp_path, caplog):
    discard_damaged(tmp_path / "nowhere")
    assert "cannot be checked: No such file" in caplog.records[0].getMessage()
