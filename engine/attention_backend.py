"""Which kernels serve: settled once, when the engine starts, and refused then if they cannot.

Turns `--attention-backend` and the device into a `Backend`, or into an error that says which limit
of the kernels the model breaks.
"""

import logging
from typing import Any

from jax.sharding import Mesh
from jax.typing import DTypeLike

from engine.config import EngineConfig
from engine.errors import ConfigError
from engine.shapes import Shapes
from models.config import ModelConfig
from pallas_kernels import Backend
from pallas_kernels.attention.limits import AttentionShape, check_attention, page_head_dim
from pallas_kernels.dispatch import backend_for, capability_of
from pallas_kernels.errors import KernelError
from pallas_kernels.mla.sizes import LatentShape, check_latents

logger = logging.getLogger(__name__)
_RUN_BY = {"mosaic": (Backend.MOSAIC,), "triton": (Backend.TRITON, Backend.MOSAIC)}
_NEEDS = {"mosaic": "a Hopper GPU", "triton": "an Ampere, Ada or Hopper GPU"}


def resolve_backend(
    config: EngineConfig, model: ModelConfig, shapes: Shapes, mesh: Mesh, dtype: DTypeLike
) -> Backend:
    """The backend that was asked for, or the device's own.

    Raises:
        ConfigError: the device cannot run it, or its kernels do not take this model.
    """
    device = mesh.devices.flat[0]
    try:
        backend = _choose(config.attention_backend, device)
        _check(model, shapes.page_size, dtype, backend)
    except KernelError as error:
        raise ConfigError(
            f"{error} Use --attention-backend xla, which runs anything, slowly."
        ) from None
    logger.info("attention backend: %s, on %s", backend.value, device.device_kind)
    return backend


def _check(model: ModelConfig, page_size: int, dtype: DTypeLike, backend: Backend) -> None:
    width = page_head_dim(model.head_dim, backend)
    if model.latent is None:
        check_attention(AttentionShape(width, page_size, dtype), backend)
    else:
        check_latents(LatentShape(width, model.latent.rank, page_size, dtype), backend)


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
