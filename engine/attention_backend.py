"""Which kernels serve: settled once, when the engine starts, and refused then if they cannot.

Turns `--attention-backend` and the device into a `Backend`, or into an error that says which limit
of the kernels the model breaks. Tokens are drawn by a kernel too; XLA, which draws from any
vocabulary, is its other standing version, and the log says which it is and why.
"""

import logging
from typing import Any

from jax.sharding import Mesh
from jax.typing import DTypeLike

from engine.compiling.shapes import Shapes
from engine.config import EngineConfig
from engine.errors import ConfigError
from models.config.decoder import ModelConfig
from pallas_kernels import Backend
from pallas_kernels.attention.limits import (
    AttentionShape,
    check_attention,
    check_bias,
    page_head_dim,
)
from pallas_kernels.cache.qkv_write import WriteShape, check_qkv_write
from pallas_kernels.dispatch import backend_for, capability_of
from pallas_kernels.errors import KernelError
from pallas_kernels.mla.sizes import LatentShape, check_latents
from pallas_kernels.sampling import check_vocabulary

logger = logging.getLogger(__name__)
_RUN_BY = {"mosaic": (Backend.MOSAIC,), "triton": (Backend.TRITON, Backend.MOSAIC)}
_NEEDS = {"mosaic": "a Hopper GPU", "triton": "an Ampere, Ada or Hopper GPU"}


def resolve_backend(
    config: EngineConfig,
    model: ModelConfig,
    shapes: Shapes,
    mesh: Mesh,
    pages: DTypeLike,
    dtype: DTypeLike,
) -> Backend:
    """The backend that was asked for, or the device's own, for `pages` of a model in `dtype`.

    Raises:
        ConfigError: the device cannot run it, or its kernels do not take this model.
    """
    device = mesh.devices.flat[0]
    try:
        backend = _choose(config.attention_backend, device)
        check_bias(model.relative is not None, backend)
        _check(model, shapes.page_size, pages, backend)
        _check_write(model, mesh.size, pages, dtype, backend)
    except KernelError as error:
        raise ConfigError(
            f"{error} Use --attention-backend xla, which runs anything, slowly."
        ) from None
    logger.info("attention backend: %s, on %s", backend.value, device.device_kind)
    if model.latent is not None and model.latent.index is not None:
        top = model.latent.index.top
        logger.info("index of latents: xla scores them and chooses %d for each token", top)
    return backend


def _check(model: ModelConfig, page_size: int, dtype: DTypeLike, backend: Backend) -> None:
    for head_dim in model.head_dims:
        width = page_head_dim(head_dim, backend)
        if model.latent is None:
            check_attention(AttentionShape(width, page_size, dtype), backend)
        else:
            check_latents(LatentShape(width, model.latent.rank, page_size, dtype), backend)


def _check_write(
    model: ModelConfig, shards: int, pages: DTypeLike, dtype: DTypeLike, backend: Backend
) -> None:
    for head_dim in model.head_dims if model.latent is None else ():  # latents are written by XLA
        check_qkv_write(WriteShape(model.num_heads // shards, head_dim, dtype, pages), backend)


def resolve_sampler(backend: Backend, vocab_size: int, mesh: Mesh) -> Backend:
    """Which version draws tokens: the backend's kernel where it has one that can, else XLA."""
    if backend is not Backend.MOSAIC:
        logger.info("sampler: xla; the backend %s has no kernel that draws", backend.value)
        return Backend.XLA
    try:
        check_vocabulary(vocab_size, mesh.size)
    except KernelError as error:
        logger.info("sampler: xla; %s", error)
        return Backend.XLA
    logger.info("sampler: mosaic, for %d tokens", vocab_size)
    return backend


def _choose(asked: str, device: Any) -> Backend:
    platform, kind = device.platform, device.device_kind
    if asked == "xla":
        return Backend.XLA
    own = backend_for(platform, kind, capability_of(device))
    if asked == "auto":
        return own
    if own not in _RUN_BY[asked]:
        raise KernelError(f"The backend {asked} needs {_NEEDS[asked]}, and this is {kind}.")
    return Backend(asked)
