"""Which kernels serve: settled once, when the engine starts, and refused then if they cannot.

Turns `--attention-backend` and the device into a `Backend`, or into an error that says which limit
of the kernels the model breaks.
"""

import logging

from jax.sharding import Mesh
from jax.typing import DTypeLike

from engine.config import EngineConfig
from engine.errors import ConfigError
from engine.shapes import Shapes
from models.config import ModelConfig
from pallas_kernels import Backend
from pallas_kernels.attention.limits import AttentionShape, check_attention, page_head_dim
from pallas_kernels.dispatch import backend_for
from pallas_kernels.errors import KernelError
from pallas_kernels.mla.sizes import LatentShape, check_latents

logger = logging.getLogger(__name__)


def resolve_backend(
    config: EngineConfig, model: ModelConfig, shapes: Shapes, mesh: Mesh, dtype: DTypeLike
) -> Backend:
    """The backend that was asked for, or the device's own.

    Raises:
        ConfigError: the device cannot run it, or its kernels do not take this model.
    """
    device = mesh.devices.flat[0]
    try:
        backend = _choose(config.attention_backend, device.platform, device.device_kind)
        _check(model, shapes.page_size, mesh.size, dtype, backend)
    except KernelError as error:
        raise ConfigError(
            f"{error} Use --attention-backend xla, which runs anything, slowly."
        ) from None
    logger.info("attention backend: %s, on %s", backend.value, device.device_kind)
    return backend


def _check(
    model: ModelConfig, page_size: int, shards: int, dtype: DTypeLike, backend: Backend
) -> None:
    width = page_head_dim(model.head_dim, backend)
    if model.latent is None:
        check_attention(AttentionShape(width, page_size, dtype), backend)
    else:
        check_latents(LatentShape(width, model.latent.rank, page_size, dtype), backend)


def _choose(asked: str, platform: str, kind: str) -> Backend:
    if asked == "auto":
        return backend_for(platform, kind)
    if asked == "mosaic" and (platform != "gpu" or backend_for(platform, kind) is Backend.XLA):
        raise KernelError(f"The backend mosaic needs a Hopper GPU, and this is {kind}.")
    return Backend(asked)
