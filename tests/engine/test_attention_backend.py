"""The backend is settled at the start: the device's own, or what was asked for, or an error."""

from types import SimpleNamespace

import jax.numpy as jnp
import numpy as np
import pytest

from engine.attention_backend import resolve_backend
from engine.config import EngineConfig
from engine.errors import ConfigError
from engine.shapes import Shapes
from models.published import PUBLISHED
from models.registry import find_architecture
from pallas_kernels import Backend

SHAPES = Shapes(64, 2048, 4096, 64)


def resolve(platform, kind, *, asked="auto", dtype=jnp.bfloat16, model="llama-3.1-8b"):
    device = SimpleNamespace(platform=platform, device_kind=kind)
    mesh = SimpleNamespace(devices=np.array([device]), size=1)
    raw = PUBLISHED[model]
    config = find_architecture(raw).config(raw)
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
