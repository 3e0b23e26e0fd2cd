"""The backend is settled at the start: the device's own, or what was asked for, or an error."""

import re
from dataclasses import replace
from types import SimpleNamespace

import jax.numpy as jnp
import numpy as np
import pytest

from engine.attention_backend import resolve_backend, resolve_sampler
from engine.compiling.memory import resolve_layout, resolve_pages
from engine.compiling.shapes import Shapes
from engine.config import EngineConfig
from engine.errors import ConfigError
from models.config.published import PUBLISHED
from models.layers.relative_bias import RelativeBias
from models.registry import find_architecture
from pallas_kernels import Backend

SHAPES = Shapes(64, 2048, 4096, 64)


def mesh_of(platform, kind, size=1):
    device = SimpleNamespace(platform=platform, device_kind=kind)
    return SimpleNamespace(devices=np.array([device] * size), size=size)


def published(model):
    return find_architecture(PUBLISHED[model]).config(PUBLISHED[model])


def resolve(
    platform,
    kind,
    *,
    asked="auto",
    dtype=jnp.bfloat16,
    computed=None,
    model="llama-3.1-8b",
    **change,
):
    mesh, config = mesh_of(platform, kind), published(model)
    config = replace(config, **change)
    asked_for = EngineConfig(attention_backend=asked)
    return resolve_backend(asked_for, config, SHAPES, mesh, dtype, computed or dtype)


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
        (
            {"platform": "gpu", "kind": "NVIDIA A100", "model": "gemma-4-26b-a4b"},
            "backend triton take a head dim of 64, 128, 192, 256, not 512",
        ),
        ({"platform": "cpu", "kind": "cpu", "asked": "triton"}, "needs an Ampere, .* this is cpu"),
        (
            {"platform": "gpu", "kind": "NVIDIA A100", "dtype": jnp.float32},
            "backend triton take .* not float32",
        ),
        ({"platform": "cpu", "kind": "cpu", "asked": "mosaic"}, "needs a Hopper GPU, .* cpu"),
        ({"platform": "gpu", "kind": "NVIDIA H200", "dtype": jnp.float32}, "not float32"),
        (
            {"platform": "gpu", "kind": "NVIDIA H200", "head_dim": 100},
            "writes keys and values takes a head dim that 8 divides, not 100",
        ),
        (
            {"platform": "gpu", "kind": "NVIDIA H200", "num_heads": 264},
            "writes keys and values takes up to 256 query heads, not 264",
        ),
    ],
)
def test_what_cannot_run_says_what_could(arguments, message):
    with pytest.raises(ConfigError, match=f"{message}.* Use --attention-backend xla"):
        resolve(**arguments)


def test_who_chooses_latents_is_said(caplog):
    with caplog.at_level("INFO"):
        assert resolve("gpu", "NVIDIA H200", model="deepseek-v3.2") is Backend.MOSAIC
    assert "index of latents: xla scores them and chooses 2048 for each token" in caplog.text


def test_eight_bits_are_for_ampere_too():
    for dtype in (jnp.int8, jnp.float8_e4m3fn):
        found = resolve("gpu", "NVIDIA A100-SXM4-80GB", dtype=dtype, computed=jnp.bfloat16)
        assert found is Backend.TRITON


def test_a_pool_that_cannot_be_addressed_is_smaller_or_refused(caplog):
    """Keys of Llama 3.1 8B in int8: 2 MiB a page of 64 tokens."""
    llama, mesh = published("llama-3.1-8b"), mesh_of("gpu", "NVIDIA GeForce RTX 4090")

    def pages(**settings):
        config = EngineConfig(kv_cache_dtype="int8_per_token_head", **settings)
        page = resolve_layout(config, llama, SHAPES, mesh, jnp.bfloat16)
        return resolve_pages(config, page, SHAPES, mesh, None).num_pages

    assert pages(kv_cache_memory_bytes=6 * 2**30) == 1024
    assert "not 2.9 GiB" in caplog.text and "has 1024 pages instead of" in caplog.text
    assert pages(num_gpu_blocks_override=1000) == 1000
    with pytest.raises(ConfigError, match=r"more than 4 GiB, .* Use fewer or more --num-gpu"):
        pages(num_gpu_blocks_override=1025)


@pytest.mark.parametrize(
    "backend, vocabulary, size, sampler, line",
    [
        (Backend.MOSAIC, 128256, 8, Backend.MOSAIC, "sampler: mosaic, for 128256 tokens"),
        (Backend.MOSAIC, 50257, 1, Backend.XLA, "sampler: xla; .* multiple of 64, not 50257"),
        (Backend.MOSAIC, 512, 1, Backend.XLA, "sampler: xla; .* of at least 4096, not 512"),
        (Backend.MOSAIC, 128256, 7, Backend.XLA, "sampler: xla; .* 7 devices divide, not 128256"),
        (Backend.TRITON, 128256, 1, Backend.XLA, "sampler: xla; the backend triton has no kernel"),
    ],
)
def test_the_sampler_is_settled_and_logged(backend, vocabulary, size, sampler, line, caplog):
    with caplog.at_level("INFO"):
        assert resolve_sampler(backend, vocabulary, mesh_of("gpu", "a GPU", size)) is sampler
    [record] = caplog.records
    assert re.match(line, record.message)


def test_relative_positions_need_xla_and_the_error_says_so():
    relative = RelativeBias(32, 128)
    with pytest.raises(ConfigError, match=r"of T5 are.*--attention-backend xla"):
        resolve("gpu", "NVIDIA H200", relative=relative)
    assert resolve("gpu", "NVIDIA H200", asked="xla", relative=relative) is Backend.XLA
