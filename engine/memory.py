"""How large things are: rows and tokens of a step, the context, and the pages of the KV pool.

Turns the `None`s of `EngineConfig` into numbers, or into an error that says what would fit.
"""

import logging
import math
from dataclasses import dataclass, replace

import jax.numpy as jnp
from jax.sharding import Mesh
from jax.typing import DTypeLike

from engine.attention_backend import resolve_backend, resolve_sampler
from engine.config import CACHE_DTYPES, EngineConfig
from engine.errors import ConfigError
from engine.shapes import Shapes
from models.config import ModelConfig
from models.memory import free_bytes
from pallas_kernels import Backend
from pallas_kernels.attention.limits import NARROW_ENTRIES, check_pool, page_head_dim
from pallas_kernels.cache.quantise import is_quantised
from pallas_kernels.errors import KernelError

logger = logging.getLogger(__name__)
GIB = 2**30
_CPU_ROWS, _CPU_TOKENS = 64, 256
_GPU_ROWS, _GPU_TOKENS = 256, 8192
_CPU_PAGE, _GPU_PAGE = 16, 64  # a kernel's tile is 64 keys: one transfer instead of four
_CPU_POOL_BYTES = 4 * GIB  # as vLLM's CPU backend; RAM has other tenants


@dataclass(frozen=True)
class KVLayout:
    """Sizes of the arrays [L*P, K, S, H] that hold all keys and all values."""

    num_layers: int
    num_pages: int  # of one layer, the sink included
    num_heads: int
    page_size: int
    head_dim: int  # as it lies in pages
    dtype: DTypeLike
    backend: Backend = Backend.XLA  # which reads it
    latent: bool = False  # one array of what is both key and value
    sampler: Backend = Backend.XLA  # which draws tokens

    @property
    def shape(self) -> tuple[int, int, int, int]:
        rows = self.num_layers * self.num_pages
        return rows, self.num_heads, self.page_size, self.head_dim

    @property
    def page_bytes(self) -> int:
        """Keys and values of one page in all layers, and their scales."""
        vector = self.head_dim * jnp.dtype(self.dtype).itemsize + (4 if self.scaled else 0)
        kinds = 1 if self.latent else 2
        return self.num_layers * self.page_size * self.num_heads * vector * kinds

    @property
    def scaled(self) -> bool:
        """Whether each token and head has a scale besides."""
        return is_quantised(self.dtype)


def resolve_shapes(config: EngineConfig, model: ModelConfig, mesh: Mesh) -> Shapes:
    """Rows, tokens and context of a step."""
    cpu = mesh.devices.flat[0].platform == "cpu"
    rows = config.max_num_seqs or (_CPU_ROWS if cpu else _GPU_ROWS)
    tokens = config.max_num_batched_tokens or max(rows, _CPU_TOKENS if cpu else _GPU_TOKENS)
    length = config.max_model_len or model.context_length
    if length > model.longest_context:
        raise ConfigError(
            f"--max-model-len {length} exceeds the {model.longest_context} tokens that this "
            "model's config.json allows."
        )
    useful = max(rows, rows * length)  # a step never holds more than every row's whole context
    page = config.block_size or (_CPU_PAGE if cpu else _GPU_PAGE)
    return Shapes(rows, min(tokens, useful), length, page)


def resolve_pages(
    config: EngineConfig, model: ModelConfig, shapes: Shapes, mesh: Mesh, dtype: DTypeLike
) -> KVLayout:
    """The KV pool: what was asked for, or a share of the free memory, at most what rows can use."""
    computed, dtype = dtype, _cache_dtype(config, model, dtype)
    backend = resolve_backend(config, model, shapes, mesh, dtype, computed)
    sampler = resolve_sampler(backend, model.vocab_size, mesh)
    heads, width = model.cache_kv_heads(mesh.size), page_head_dim(model.head_dim, backend)
    latent = model.latent is not None
    one = KVLayout(
        model.num_layers, 1, heads, shapes.page_size, width, dtype, backend, latent, sampler
    )
    pages = config.num_gpu_blocks_override
    if pages is None:
        budget = config.kv_cache_memory_bytes or _free_for_pages(config, mesh)
        useful = shapes.max_num_seqs * shapes.table_width + 1
        pages = useful if budget is None else min(useful, budget * mesh.size // one.page_bytes)
    pages = _reachable(pages, one, mesh, asked=config.num_gpu_blocks_override is not None)
    _check_one_sequence_fits(pages, one.page_bytes // mesh.size, shapes)
    return replace(one, num_pages=pages)


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


def _free_for_pages(config: EngineConfig, mesh: Mesh) -> int | None:
    """Bytes a device can give to pages, or None where nobody says what is free."""
    free = free_bytes(mesh)
    if free is None:
        return None
    share = int(free * config.gpu_memory_utilization)
    if mesh.devices.flat[0].platform == "cpu":
        return min(share // mesh.size, _CPU_POOL_BYTES)
    return share


def check_state_fits(needed: int, mesh: Mesh) -> None:
    """Raise `ConfigError` if a device has not this many bytes for pages and slots."""
    free = free_bytes(mesh)
    if free is not None and mesh.devices.flat[0].platform == "cpu":
        free //= mesh.size
    if free is not None and needed > free:
        raise ConfigError(
            f"Pages and slots need {needed / GIB:.2f} GiB on each device and {free / GIB:.2f} GiB "
            "are free; use a smaller --max-num-seqs, --num-gpu-blocks-override, "
            "--kv-cache-memory-bytes or --max-model-len."
        )


def _check_one_sequence_fits(pages: int, page_bytes: int, shapes: Shapes) -> None:
    if pages - 1 >= shapes.table_width:
        return
    fits, needed = max(0, pages - 1) * shapes.page_size, shapes.table_width + 1
    shorter = f"use --max-model-len {fits} or less, or " if fits else ""
    raise ConfigError(
        f"The KV cache has room for {fits} tokens and a sequence may take "
        f"{shapes.max_model_len}; {shorter}make it at least {needed} pages, "
        f"{needed * page_bytes} bytes, with --num-gpu-blocks-override or --kv-cache-memory-bytes."
    )
