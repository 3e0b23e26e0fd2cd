"""What parameters need and what is free."""

from pathlib import Path

import jax.numpy as jnp
import pytest

from models.checkpoints import memory
from models.errors import ModelError
from models.flatten import Leaf
from models.sharding import make_mesh

LEAVES = [
    Leaf(("kernel",), (1024, 4096), jnp.dtype("bfloat16"), ("embed", "mlp")),
    Leaf(("norm",), (1024,), jnp.dtype("float32"), ("norm",)),
]


def test_sharded_leaves_count_by_part_and_others_whole() -> None:
    assert memory.bytes_per_device(LEAVES, make_mesh(1)) == 1024 * 4096 * 2 + 4096
    assert memory.bytes_per_device(LEAVES, make_mesh(4)) == 1024 * 1024 * 2 + 4096


def test_too_little_memory_is_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    memory.check_memory(LEAVES, make_mesh(2))
    monkeypatch.setattr(memory, "free_bytes", lambda mesh: 2**20)
    with pytest.raises(ModelError, match=r"need 0.01 GiB of the host's memory and 0.00 GiB are"):
        memory.check_memory(LEAVES, make_mesh(2))


def test_a_containers_limit_counts(tmp_path: Path) -> None:
    meminfo = tmp_path / "meminfo"
    assert memory._host_free(meminfo, tmp_path) is None
    meminfo.write_text("MemTotal:       100 kB\nMemAvailable:   90 kB\nHugePages_Total: 0\n")
    assert memory._host_free(meminfo, tmp_path) == 90 * 1024
    (tmp_path / "memory.max").write_text("max\n")
    assert memory._host_free(meminfo, tmp_path) == 90 * 1024
    (tmp_path / "memory.max").write_text("50000\n")
    (tmp_path / "memory.current").write_text("30000\n")
    (tmp_path / "memory.stat").write_text("anon 25000\ninactive_file 4000\n")
    assert memory._host_free(meminfo, tmp_path) == 24000
