"""How large things are: rows and tokens of a step, the context, and the pages of the KV pool.

Turns the `None`s of `EngineConfig` into numbers, given how many bytes there are for pages; who else
needs memory is `engine.compiling.fitting`'s to find out.
"""

import logging
import math
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace

import jax
import jax.numpy as jnp
from jax.sharding import Mesh
from jax.typing import DTypeLike

from engine.attention_backend import resolve_backend, resolve_sampler
from engine.cache.host_tier import STAGED_PAGES, HostTier
from engine.cache.state_slots import StateLayout, resolve_states
from engine.compiling.shapes import Shapes, decode_windows
from engine.config import CACHE_DTYPES, EngineConfig
from engine.errors import ConfigError
from engine.sampling.speech_times import speech_times
from engine.vectors.given_rows import GivenLayout, resolve_given
from engine.vectors.routed_rows import RoutedRows
from engine.watermarking.contexts import Widths
from models.checkpoints.memory import free_bytes, host_free_bytes
from models.config.decoder import ModelConfig
from models.errors import IngotError
from models.pool import make_pool
from models.sharding import is_cpu
from pallas_kernels import Backend
from pallas_kernels.attention.limits import NARROW_ENTRIES, check_pool
from pallas_kernels.cache.quantise import is_quantised
from pallas_kernels.errors import KernelError

logger = logging.getLogger(__name__)
GIB = 2**30
_CPU_ROWS, _CPU_TOKENS = 64, 256
_GPU_ROWS, _GPU_TOKENS = 256, 8192
_CPU_WINDOWS = (4,)  # that are chosen; a GPU waits for no host that is a step ahead, and needs none
_CPU_PAGE, _GPU_PAGE = 16, 64  # a kernel's tile is 64 keys: one transfer instead of four
_CPU_POOL_BYTES = 4 * GIB  # as vLLM's CPU backend; RAM has other tenants
_XLA_FRACTION = "XLA_PYTHON_CLIENT_MEM_FRACTION"  # of a GPU's memory, which XLA takes at its start
_XLA_DEFAULT = 0.75
_XLA_HOST_GB = "XLA_PJRT_GPU_HOST_MEMORY_LIMIT_GB"  # that XLA pins; 64 unless said otherwise
_XLA_HOST_MORE = 64  # for whatever else is pinned


@dataclass(frozen=True)
class KVLayout:
    """Sizes of the arrays [L*P, K, S, H] that hold all keys and all values: `models/pool.py`."""

    num_layers: int  # rows of each page: one a layer that has keys and values, where all are alike
    num_pages: int  # of one layer, the sink included
    num_heads: int
    page_size: int
    head_dim: int  # as it lies in pages
    dtype: DTypeLike
    backend: Backend = Backend.XLA  # which reads it
    latent: bool = False  # one array of what is both key and value
    sampler: Backend = Backend.XLA  # which draws tokens
    states: StateLayout | None = None  # of layers that have them, beside the pages
    index_dim: int = 0  # of a key by which a latent is chosen, beside it; 0 where none is
    given: GivenLayout | None = None  # of embeddings that prompts bring

    @property
    def shape(self) -> tuple[int, int, int, int]:
        rows = self.num_layers * self.num_pages
        return rows, self.num_heads, self.page_size, self.head_dim

    @property
    def page_bytes(self) -> int:
        """Keys and values of one page in all layers, and their scales."""
        vector = self.head_dim * jnp.dtype(self.dtype).itemsize + (4 if self.scaled else 0)
        kinds = 1 if self.latent else 2
        index = self.index_dim * jnp.dtype(self.dtype).itemsize
        return self.num_layers * self.page_size * self.num_heads * (vector * kinds + index)

    @property
    def scaled(self) -> bool:
        """Whether each token and head has a scale besides."""
        return is_quantised(self.dtype)


def resolve_shapes(
    config: EngineConfig, model: ModelConfig, mesh: Mesh, length: int | None = None
) -> Shapes:
    """Rows, tokens and context of a step; `length` is the context that was found to fit."""
    cpu = is_cpu(mesh)
    rows = config.max_num_seqs or (_CPU_ROWS if cpu else _GPU_ROWS)
    tokens = config.max_num_batched_tokens or max(rows, _CPU_TOKENS if cpu else _GPU_TOKENS)
    length = length or config.asked_model_len or model.context_length
    if length > model.longest_context:
        raise ConfigError(
            f"--max-model-len {length} exceeds the {model.longest_context} tokens that this "
            "model's config.json allows."
        )
    useful = max(rows, rows * length)  # a step never holds more than every row's whole context
    page = config.block_size or (_CPU_PAGE if cpu else _GPU_PAGE)
    steps = config.program_steps
    windows = decode_windows(steps) if steps is not None else _CPU_WINDOWS if cpu else ()
    heard = model.encoder.context_length if model.encoder and model.encoder.mel_bins else 0
    encoder = heard or (length if model.encoder is not None else 0)
    snapshots = model.mixer is not None and config.enable_prefix_caching
    mark = config.watermark_config
    watermark = Widths(mark.context_width, mark.remembered(length)) if mark else None
    return Shapes(
        rows, min(tokens, useful), length, page, windows, loops=cpu,
        snapshots=snapshots, adapters=config.enable_lora, max_encoder_len=encoder,
        hidden=config.enable_return_hidden_states, routed=resolve_routed(config, model),
        processed_logprobs=config.logprobs_mode == "processed_logprobs",
        watermark=watermark, times=speech_times(model),
    )  # fmt: skip


def resolve_routed(config: EngineConfig, model: ModelConfig) -> RoutedRows | None:
    """None where nothing is told.

    Raises:
        ConfigError: this model has no experts.
    """
    if not config.enable_return_routed_experts:
        return None
    if model.mixture is None:
        raise ConfigError(
            f"--enable-return-routed-experts cannot serve {model.architecture}, which has no "
            "mixture of experts; leave it out."
        )
    return RoutedRows(model.num_layers, model.mixture.per_token, model.mixture.choice_dtype)


def resolve_layout(
    config: EngineConfig, model: ModelConfig, shapes: Shapes, mesh: Mesh, dtype: DTypeLike
) -> KVLayout:
    """What a page holds, and who reads it: a pool of one page."""
    computed, dtype = dtype, _cache_dtype(config, model, dtype)
    backend = resolve_backend(config, model, shapes, mesh, dtype, computed)
    sampler = resolve_sampler(backend, model.vocab_size, mesh)
    pool = make_pool(model, mesh.size, backend)
    latent = model.latent is not None
    index = model.latent.index if model.latent is not None else None
    states = resolve_states(config, model, shapes.max_num_seqs, computed)
    return KVLayout(
        pool.rows, 1, pool.heads, shapes.page_size, pool.head_dim, dtype, backend, latent, sampler,
        states, index.dim if index is not None else 0,
        resolve_given(config, model, shapes, computed),
    )  # fmt: skip


def resolve_pages(
    config: EngineConfig, layout: KVLayout, shapes: Shapes, mesh: Mesh, room: int | None
) -> KVLayout:
    """The KV pool: what was asked for, or what fits into `room`, at most what rows can use.

    Args:
        room: bytes that each device has for pages; None where nobody knows.
    """
    pages = config.num_gpu_blocks_override
    if pages is None:
        pages = shapes.max_num_seqs * shapes.sequence_pages + 1
        each = layout.page_bytes // mesh.size
        if not each:  # no layer has keys and values: pages are numbers only
            return replace(layout, num_pages=pages)
        if config.kv_cache_memory_bytes:
            pages = min(pages, config.kv_cache_memory_bytes // each)
        elif room is not None:
            staged = STAGED_PAGES if config.kv_offloading_size else 0
            pages = min(pages, _steady(max(0, room // each - staged)))
    pages = _reachable(pages, layout, mesh, asked=config.num_gpu_blocks_override is not None)
    return replace(layout, num_pages=pages)


def claim_device_memory(config: EngineConfig) -> None:
    """Let XLA take the share of a GPU that was asked for, where it has not started yet.

    It takes 75 % otherwise, and no pool can be larger. A user's own setting goes first.
    """
    os.environ.setdefault(_XLA_FRACTION, str(config.gpu_memory_utilization))
    if config.kv_offloading_size is not None:
        os.environ.setdefault(
            _XLA_HOST_GB, str(math.ceil(config.kv_offloading_size) + _XLA_HOST_MORE)
        )


def usable_bytes(config: EngineConfig, mesh: Mesh) -> int | None:
    """Bytes of a device that the engine may still take, or None where nobody says.

    Of a GPU `gpu_memory_utilization` counts the whole memory, what is in use included. The host's
    has other tenants: there it is a share of what is free, divided among the devices.
    """
    free = free_bytes(mesh)
    if free is None:
        return None
    if is_cpu(mesh):
        return int(free * config.gpu_memory_utilization) // mesh.size
    limit: int = min(device.memory_stats()["bytes_limit"] for device in mesh.local_devices)
    whole = limit / float(os.environ.get(_XLA_FRACTION, _XLA_DEFAULT))
    return free - max(0, limit - int(whole * config.gpu_memory_utilization))


@contextmanager
def raising_without_room(error: IngotError) -> Iterator[None]:
    """Raise `error` where the devices have no room for what is put there meanwhile."""
    try:
        yield
    except jax.errors.JaxRuntimeError as failed:
        if "RESOURCE_EXHAUSTED" not in str(failed):
            raise
        raise error from None


def make_tier(config: EngineConfig, kv: KVLayout) -> HostTier | None:
    """Room in the host for pages of this layout, if any was asked for."""
    if config.kv_offloading_size is None:
        return None
    size, free = int(config.kv_offloading_size * GIB), host_free_bytes()
    if size < kv.page_bytes:
        raise ConfigError(
            f"--kv-offloading-size {config.kv_offloading_size} holds no page of {kv.page_bytes} "
            f"bytes; use at least {math.ceil(kv.page_bytes / GIB * 1e4) / 1e4:.4f} GiB."
        )
    if free is not None and size > free:
        raise ConfigError(
            f"--kv-offloading-size {config.kv_offloading_size} GiB is more than the "
            f"{free / GIB:.2f} GiB of host memory that are free; use less."
        )
    return HostTier(size // kv.page_bytes)


def room_for_pages(usable: int | None, reserved: int, mesh: Mesh) -> int | None:
    """Bytes of a device that pages may take when `reserved` are for others."""
    if usable is None:
        return None
    return min(usable - reserved, _CPU_POOL_BYTES) if is_cpu(mesh) else usable - reserved


def _steady(pages: int) -> int:
    """A little less: 64 counts between two powers of two.

    What is free differs by a little from start to start, and another number of pages is another
    program: this way compiled programs are found again.
    """
    return pages >> max(0, pages.bit_length() - 7) << max(0, pages.bit_length() - 7)


def _reachable(pages: int, one: KVLayout, mesh: Mesh, *, asked: bool) -> int:
    """As many of these pages as the kernels can address; those `asked` for, or an error."""
    entries = math.prod(one.shape)
    try:
        check_pool(pages * entries // mesh.size, one.dtype, one.backend)
    except KernelError as error:
        if asked:
            raise ConfigError(f"{error} Use fewer or more --num-gpu-blocks-override.") from None
        fewer = NARROW_ENTRIES * mesh.size // entries
        logger.warning("%s The pool has %d pages instead of %d.", error, fewer, pages)
        return fewer
    return pages


def _cache_dtype(config: EngineConfig, model: ModelConfig, dtype: DTypeLike) -> DTypeLike:
    """What lies in pages, of a model that computes in `dtype`."""
    asked = CACHE_DTYPES[config.kv_cache_dtype]
    if asked is not None and model.latent is not None:
        raise ConfigError(
            f"--kv-cache-dtype {config.kv_cache_dtype} is for keys and values, and this model "
            "caches latents; use auto."
        )
    return dtype if asked is None else jnp.dtype(asked)
