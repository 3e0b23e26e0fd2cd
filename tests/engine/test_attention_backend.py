"""The backend is settled at the start: the device's own, or what was asked for, or an error."""

from types import SimpleNamespace

import jax.numpy as jnp
import numpy as np
import pytest

from engine.attention_backend import resolve_backend
from engine.config import EngineConfig
from engine.errors import ConfigError
from engine.memory import resolve_pages
from engine.shapes import Shapes
from models.published import PUBLISHED
from models.registry import find_architecture
from pallas_kernels import Backend

SHAPES = Shapes(64, 2048, 4096, 64)


def mesh_of(platform, kind, size=1):
    device = SimpleNamespace(platform=platform, device_kind=kind)
    return SimpleNamespace(devices=np.array([device] * size), size=size)


def published(model):
    return find_architecture(PUBLISHED[model]).config(PUBLISHED[model])


def resolve(platform, kind, *, asked="auto", dtype=jnp.bfloat16, model="llama-3.1-8b"):
    mesh, config = mesh_of(platform, kind), published(model)
    return resolve_backend(EngineConfig(attention_backend=asked), config, SHAPES, mesh, dtype)


@pytest.mark.parametrize("model", PUBLISHED)
def test_hopper_runs_its_kernels(model):
    assert resolve("gpu", "NVIDIA H200", model=model) is Backend.MOSAIC


@pytest.mark.parametrize("kind", ["NVIDIA A100-SXM4-80GB", "NVIDIA GeForce RTX 4090"])
def test_ampere_and_ada_run_theirs(kind):
    assert resolve("gpu", kind) is resolve("gpu", kind, asked="triton") is Backend.TRITON


def test_what_is_asked_for_is_taken():
    assert resolve("cpu", "cpu") is Backend.XLA
    assert resolve("gpu", "NVIDIA H200", asked="xla") is Backend.XLA
    assert resolve("gpu", "NVIDIA H200", asked="triton") is Backend.TRITON
    assert resolve("gpu", "NVIDIA A100", asked="xla", dtype=jnp.float32) is Backend.XLA


@pytest.mark.parametrize(
    "arguments, message",
    [
        ({"platform": "gpu", "kind": "NVIDIA B200"}, "no kernels for NVIDIA B200"),
        (
            {"platform": "gpu", "kind": "NVIDIA A100", "asked": "mosaic"},
            "needs a Hopper GPU, .* NVIDIA A100",
        ),
        ({"platform": "cpu", "kind": "cpu", "asked": "triton"}, "needs an Ampere, .* this is cpu"),
        (
            {"platform": "gpu", "kind": "NVIDIA A100", "dtype": jnp.float32},
            "backend triton take .* not float32",
        ),
        ({"platform": "cpu", "kind": "cpu", "asked": "mosaic"}, "needs a Hopper GPU, .* cpu"),
        ({"platform": "gpu", "kind": "NVIDIA H200", "dtype": jnp.float32}, "not float32"),
    ],
)
def test_what_cannot_run_says_what_could(arguments, message):
    with pytest.raises(ConfigError, match=f"{message}.* Use --attention-backend xla"):
        resolve(**arguments)


def test_eight_bits_are_for_ampere_too():
    for dtype in (jnp.int8, jnp.float8_e4m3fn):
        assert resolve("gpu", "NVIDIA A100-SXM4-80GB", dtype=dtype) is Backend.TRITON


def test_a_pool_that_cannot_be_addressed_is_smaller_or_refused(caplog):
    """Keys of Llama 3.1 8B in int8: 2 MiB a page of 64 tokens."""
    llama, mesh = published("llama-3.1-8b"), mesh_of("gpu", "NVIDIA GeForce RTX 4090")

    def pages(**settings):
        config = EngineConfig(kv_cache_dtype="int8_per_token_head", **settings)
        return resolve_pages(config, llama, SHAPES, mesh, jnp.bfloat16).num_pages

    assert pages(kv_cache_memory_bytes=6 * 2**30) == 1024
    assert "not 2.9 GiB" in caplog.text and "has 1024 pages instead of" in caplog.text
    assert pages(num_gpu_blocks_override=1000) == 1000
    with pytest.raises(ConfigError, match=r"more than 4 GiB, .* Use fewer or more --num-gpu"):
        pages(num_gpu_blocks_override=1025)
