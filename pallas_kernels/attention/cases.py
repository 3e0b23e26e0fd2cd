"""Shapes of attention that people run."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int32, Num, UInt32

from pallas_kernels.attention.paged_decode import VERSIONS, paged_decode
from pallas_kernels.attention.paged_verify import paged_verify
from pallas_kernels.attention.query_blocks import query_blocks
from pallas_kernels.attention.ragged_attention import ragged_attention
from pallas_kernels.attention.reference import attention_reference
from pallas_kernels.attention.splits import SPLITS
from pallas_kernels.cache.quantise import is_quantised, quantise
from pallas_kernels.case import Case, Tiling
from pallas_kernels.dispatch import Backend, resolve


@dataclass(frozen=True)
class DecodeCase(Case):
    """A decode step's attention in one layer: B rows, each with `keys` keys in its pages."""

    kernel: ClassVar[str] = "paged_decode"
    versions: ClassVar[tuple[Backend, ...]] = VERSIONS
    tolerance: ClassVar[float] = 0.01  # bfloat16 weights of the softmax

    B: int
    N: int
    K: int
    H: int
    S: int
    keys: int
    window: int | None = None
    softcap: float | None = None
    sinks: bool = False
    cache: str = "bfloat16"
    slopes: bool = False

    def make(self, key: Array) -> tuple[Array, ...]:
        keys = jax.random.split(key, 4)
        width = -(-self.keys // self.S)
        pages = (self.B * width + 1, self.K, self.S, self.H)
        normal = partial(jax.random.normal, dtype=jnp.bfloat16)
        table = 1 + jax.random.permutation(keys[3], self.B * width).reshape(self.B, width)
        k, v, extras = _cache(keys, pages, self)
        return (
            normal(keys[0], (self.B, self.N, self.H)), k, v, table.astype(jnp.int32),
            jnp.full(self.B, self.keys - 1, jnp.int32), *extras,
        )  # fmt: skip

    def run(
        self,
        q: Float[Array, "B N H"],
        k_pages: Num[Array, "P K S H"],
        v_pages: Num[Array, "P K S H"],
        page_table: Int32[Array, "B MP"],
        positions: Int32[Array, " B"],
        *extras: Float[Array, "..."],
        tiling: Tiling | None = None,
        interpret: bool = False,
    ) -> Float[Array, "B N H"]:
        kernel: Callable[..., Array] = paged_decode
        if tiling is not None or interpret:
            kernel = partial(_decode_kernel(), **(tiling or {"splits": 2}), interpret=interpret)
        return kernel(q, k_pages, v_pages, page_table, positions, **_options(self, extras))

    def reference(
        self,
        q: Float[Array, "B N H"],
        k_pages: Num[Array, "P K S H"],
        v_pages: Num[Array, "P K S H"],
        page_table: Int32[Array, "B MP"],
        positions: Int32[Array, " B"],
        *extras: Float[Array, "..."],
    ) -> Float[Array, "B N H"]:
        rows = jnp.arange(self.B, dtype=jnp.int32)
        return attention_reference(
            q, k_pages, v_pages, page_table, rows, positions, **_options(self, extras)
        )

    def small(self) -> "DecodeCase":
        keys = min(self.keys, 2 * self.S + 3)
        return replace(self, B=2, K=1, N=self.N // self.K, keys=keys)

    @property
    def seen(self) -> int:
        """Keys that a row's query sees."""
        return min(self.keys, self.window or self.keys)

    @property
    def bytes_moved(self) -> int:
        """Keys and values that are seen, with their scales; queries and results in 16 bits."""
        cached = 2 * self.B * self.K * self.seen * _vector_bytes(self.cache, self.H)
        return cached + 4 * self.B * self.N * self.H

    @property
    def flops(self) -> int:
        return 4 * self.B * self.N * self.seen * self.H

    def facts(self) -> dict[str, int]:
        from pallas_kernels.attention.mosaic_decode import columns

        G, keys = self.N // self.K, -(-self.keys // self.S) * self.S  # as long as the table
        blocks = self.B * self.K * -(-G // columns(G, self.H))
        return {"blocks": blocks, "keys": keys, "H": self.H, "S": self.S}

    def tilings(self) -> tuple[Tiling, ...]:
        return tuple({"splits": n} for n in SPLITS if n <= -(-self.keys // _TILE))


@dataclass(frozen=True)
class VerifyCase(DecodeCase):
    """The same rows with Q drafted tokens each, the last of their `keys` keys."""

    kernel: ClassVar[str] = "paged_verify"
    versions: ClassVar[tuple[Backend, ...]] = (Backend.MOSAIC,)

    Q: int = 8
    tree: bool = False

    def make(self, key: Array) -> tuple[Array, ...]:
        q, *rest = super().make(key)
        shape = (self.B, self.Q, self.N, self.H)
        return jax.random.normal(jax.random.fold_in(key, 1), shape, q.dtype), *rest

    def run(
        self,
        q: Float[Array, "B Q N H"],
        k_pages: Num[Array, "P K S H"],
        v_pages: Num[Array, "P K S H"],
        page_table: Int32[Array, "B MP"],
        positions: Int32[Array, " B"],
        *extras: Float[Array, "..."],
        tiling: Tiling | None = None,
        interpret: bool = False,
    ) -> Float[Array, "B Q N H"]:
        kernel: Callable[..., Array] = paged_verify
        if tiling is not None or interpret:
            from pallas_kernels.attention.mosaic_verify import mosaic_verify

            chosen: Mapping[str, Any] = tiling or {"splits": 2}
            kernel = partial(mosaic_verify, **chosen, interpret=interpret)
        return kernel(
            q, k_pages, v_pages, page_table, positions - (self.Q - 1),
            jnp.full(self.B, self.Q, jnp.int32), tree_mask=self._mask(), **_options(self, extras)
        )  # fmt: skip

    def reference(
        self,
        q: Float[Array, "B Q N H"],
        k_pages: Num[Array, "P K S H"],
        v_pages: Num[Array, "P K S H"],
        page_table: Int32[Array, "B MP"],
        positions: Int32[Array, " B"],
        *extras: Float[Array, "..."],
    ) -> Float[Array, "B Q N H"]:
        """A token at a time: the specification gathers every key for every token."""
        rows, mask = jnp.arange(self.B, dtype=jnp.int32), self._mask()
        first = positions - (self.Q - 1)
        attend: Callable[..., Array] = partial(attention_reference, **_options(self, extras))
        tokens = [
            attend(
                q[:, i], k_pages, v_pages, page_table, rows, first + (0 if self.tree else i),
                tree_mask=None if mask is None else mask[:, i],
            )
            for i in range(self.Q)
        ]  # fmt: skip
        return jnp.stack(tokens, axis=1)

    def _mask(self) -> UInt32[Array, "B Q"] | None:
        """A binary tree: token i follows token (i - 1) // 2."""
        if not self.tree:
            return None
        masks = [1]
        for i in range(1, self.Q):
            masks.append(masks[(i - 1) // 2] | 1 << i)
        return jnp.tile(jnp.array(masks, jnp.uint32), (self.B, 1))

    @property
    def bytes_moved(self) -> int:
        """As for one token, but for queries and results."""
        return super().bytes_moved + 4 * self.B * self.N * self.H * (self.Q - 1)

    @property
    def flops(self) -> int:
        return super().flops * self.Q

    def facts(self) -> dict[str, int]:
        from pallas_kernels.attention.mosaic_decode import columns

        C = self.N // self.K * self.Q
        blocks = self.B * self.K * -(-C // columns(C, self.H))
        return {**super().facts(), "blocks": blocks}


@dataclass(frozen=True)
class HopperDecodeCase(DecodeCase):
    """The same, of heads as only Hopper's kernel takes them."""

    versions: ClassVar[tuple[Backend, ...]] = (Backend.MOSAIC,)


@dataclass(frozen=True)
class RaggedCase(Case):
    """A mixed step's attention in one layer: `rows` are (tokens, tokens before them) of each."""

    kernel: ClassVar[str] = "ragged_attention"
    versions: ClassVar[tuple[Backend, ...]] = VERSIONS
    tolerance: ClassVar[float] = 0.01

    rows: tuple[tuple[int, int], ...]
    N: int
    K: int
    H: int
    S: int
    window: int | None = None
    softcap: float | None = None
    sinks: bool = False
    cache: str = "bfloat16"
    slopes: bool = False

    def make(self, key: Array) -> tuple[Array, ...]:
        keys = jax.random.split(key, 4)
        width = max(-(-(count + before) // self.S) for count, before in self.rows)
        B, T = len(self.rows), sum(count for count, _ in self.rows)
        pages = (B * width + 1, self.K, self.S, self.H)
        normal = partial(jax.random.normal, dtype=jnp.bfloat16)
        table = 1 + jax.random.permutation(keys[3], B * width).reshape(B, width)
        k, v, extras = _cache(keys, pages, self)
        return normal(keys[0], (T, self.N, self.H)), k, v, table.astype(jnp.int32), *extras

    def run(
        self,
        q: Float[Array, "T N H"],
        k_pages: Num[Array, "P K S H"],
        v_pages: Num[Array, "P K S H"],
        page_table: Int32[Array, "B MP"],
        *extras: Float[Array, "..."],
        tiling: Tiling | None = None,
        interpret: bool = False,
    ) -> Float[Array, "T N H"]:
        start, count, _, positions = self._places()
        options = _options(self, extras)
        if interpret:
            from pallas_kernels.attention.mosaic_ragged import mosaic_ragged

            return mosaic_ragged(
                q,
                k_pages,
                v_pages,
                page_table,
                positions,
                start,
                count,
                least=1,
                interpret=True,
                **options,
            )
        blocks = query_blocks(start, count, q.shape[0])
        return ragged_attention(
            q, k_pages, v_pages, page_table, positions, blocks=blocks, **options
        )

    def reference(
        self,
        q: Float[Array, "T N H"],
        k_pages: Num[Array, "P K S H"],
        v_pages: Num[Array, "P K S H"],
        page_table: Int32[Array, "B MP"],
        *extras: Float[Array, "..."],
    ) -> Float[Array, "T N H"]:
        """In pieces: the specification gathers every key for every token."""
        _, _, row, positions = self._places()
        attend: Callable[..., Array] = partial(attention_reference, **_options(self, extras))
        pieces = [slice(i, i + _PIECE) for i in range(0, q.shape[0], _PIECE)]
        return jnp.concatenate(
            [attend(q[p], k_pages, v_pages, page_table, row[p], positions[p]) for p in pieces]
        )

    def small(self) -> "RaggedCase":
        rows = tuple((min(c, 140), min(b, 70)) for c, b in self.rows if c > 1)[:2]
        return replace(self, rows=rows, N=2, K=1)

    @property
    def bytes_moved(self) -> int:
        """Queries and results in 16 bits, and each row's keys and values once."""
        tokens = sum(count for count, _ in self.rows)
        keys = sum(count + min(before, self.window or before) for count, before in self.rows)
        cached = 2 * keys * self.K * _vector_bytes(self.cache, self.H)
        return cached + 4 * tokens * self.N * self.H

    @property
    def flops(self) -> int:
        """Of the pairs that see each other."""
        pairs = 0
        for count, before in self.rows:
            seen = range(before + 1, before + count + 1)
            pairs += sum(min(n, self.window or n) for n in seen)
        return 4 * pairs * self.N * self.H

    def _places(self) -> tuple[Array, ...]:
        """First token and number of tokens of each row; row and position of each token."""
        counts = np.array([count for count, _ in self.rows])
        before = np.array([before for _, before in self.rows])
        start = np.cumsum(counts) - counts
        row = np.repeat(np.arange(len(counts)), counts)
        positions = before[row] + np.arange(len(row)) - start[row]
        return tuple(jnp.asarray(x, jnp.int32) for x in (start, counts, row, positions))


@dataclass(frozen=True)
class HopperRaggedCase(RaggedCase):
    """The same, of heads as only Hopper's kernel takes them."""

    versions: ClassVar[tuple[Backend, ...]] = (Backend.MOSAIC,)


def _cache(
    keys: Array, shape: tuple[int, ...], case: "DecodeCase | RaggedCase"
) -> tuple[Array, Array, tuple[Array, ...]]:
    """Pages of keys and of values, and what `_options` reads: sinks, slopes, scales."""
    k, v = (jax.random.normal(key, shape, jnp.bfloat16) for key in keys[1:3])
    sinks = (jax.random.normal(keys[0], (case.N,)),) * case.sinks
    slopes = (jnp.exp2(-8.0 * jnp.arange(1, case.N + 1) / case.N),) * case.slopes
    if not is_quantised(case.cache):
        return k, v, (*sinks, *slopes)
    (k, k_scales), (v, v_scales) = quantise(k, case.cache), quantise(v, case.cache)
    return k, v, (*sinks, *slopes, k_scales, v_scales)


def _options(case: DecodeCase | RaggedCase, extras: tuple[Array, ...]) -> dict[str, Any]:
    """Keyword arguments of the kernels and the specification."""
    names = ["sinks"] * case.sinks + ["slopes"] * case.slopes
    names += ["k_scales", "v_scales"] * is_quantised(case.cache)
    return {
        "scale": case.H**-0.5,
        "window": case.window,
        "softcap": case.softcap,
        **dict(zip(names, extras, strict=True)),
    }


def _vector_bytes(cache: str, H: int) -> int:
    """Of a token's key or value in one head."""
    return H * jnp.dtype(cache).itemsize + 4 * is_quantised(cache)


def _decode_kernel() -> Callable[..., Array]:
    """The kernel for the device that is traced for; without a GPU Hopper's, to be interpreted."""
    if resolve(None, VERSIONS) is Backend.TRITON:
        from pallas_kernels.attention.triton_decode import triton_decode

        return triton_decode
    from pallas_kernels.attention.mosaic_decode import mosaic_decode

    return mosaic_decode


_PIECE = 64  # tokens
_TILE = 64  # keys of a block, at least
_FP8 = "float8_e4m3fn"
_MIXED = ((1, 4000),) * 56 + ((1992, 0),)

CASES: tuple[Case, ...] = (
    DecodeCase("llama-3.1-8b", 64, 32, 8, 128, 16, 4096),
    DecodeCase("llama-3.1-8b page 32", 64, 32, 8, 128, 32, 4096),
    DecodeCase("llama-3.1-8b page 64", 64, 32, 8, 128, 64, 4096),
    DecodeCase("llama-3.1-8b page 128", 64, 32, 8, 128, 128, 4096),
    DecodeCase("llama-3.1-8b one row, 1k", 1, 32, 8, 128, 64, 1024),
    DecodeCase("llama-3.1-8b one row, 128k", 1, 32, 8, 128, 64, 131072),
    DecodeCase("llama-3.2-1b", 64, 32, 8, 64, 64, 4096),
    DecodeCase("gpt2", 64, 12, 12, 64, 64, 1024),
    DecodeCase("gemma-2-9b", 64, 16, 8, 256, 64, 8192, 4096, 50.0),
    DecodeCase("gemma-3-1b", 64, 4, 1, 256, 64, 8192, 512),
    HopperDecodeCase("gemma-4-31b, no window", 64, 32, 4, 512, 64, 8192),
    DecodeCase("multi-query, 16 heads", 64, 16, 1, 128, 64, 4096),
    DecodeCase("gpt-oss-20b", 64, 64, 8, 64, 64, 8192, None, None, True),
    DecodeCase("gpt-oss-20b, window", 64, 64, 8, 64, 64, 8192, 128, None, True),
    DecodeCase("llama-3.1-8b, int8 cache", 64, 32, 8, 128, 64, 4096, cache="int8"),
    DecodeCase("llama-3.1-8b, fp8 cache", 64, 32, 8, 128, 64, 4096, cache=_FP8),
    DecodeCase("llama-3.1-8b, fp8, page 16", 64, 32, 8, 128, 16, 4096, cache=_FP8),
    DecodeCase(
        "llama-3.1-8b, fp8, one row, 128k", 1, 32, 8, 128, 64, 131072, cache="float8_e4m3fn"
    ),
    DecodeCase("mpt-7b", 64, 32, 32, 128, 64, 2048, slopes=True),
    DecodeCase("falcon-rw-1b, fp8", 64, 32, 32, 64, 64, 2048, cache=_FP8, slopes=True),
    DecodeCase("gpt-oss-20b, int8", 64, 64, 8, 64, 64, 8192, None, None, True, "int8"),
    VerifyCase("llama-3.1-8b, 4 drafts", 64, 32, 8, 128, 64, 4096, Q=4),
    VerifyCase("llama-3.1-8b, 8 drafts", 64, 32, 8, 128, 64, 4096),
    VerifyCase("llama-3.1-8b, fp8, 8 drafts", 64, 32, 8, 128, 64, 4096, cache=_FP8),
    VerifyCase("llama-3.1-8b, tree of 31", 16, 32, 8, 128, 64, 4096, Q=31, tree=True),
    VerifyCase("gpt-oss-20b, 4 drafts, window", 64, 64, 8, 64, 64, 8192, 128, sinks=True, Q=4),
    RaggedCase("llama-3.1-8b, prompt of 2k", ((2048, 0),), 32, 8, 128, 64),
    RaggedCase("llama-3.1-8b, prompt of 16k", ((16384, 0),), 32, 8, 128, 64),
    RaggedCase("llama-3.1-8b, page 16", ((2048, 0),), 32, 8, 128, 16),
    RaggedCase("llama-3.1-8b, fp8, prompt of 2k", ((2048, 0),), 32, 8, 128, 64, cache=_FP8),
    RaggedCase("llama-3.1-8b, int8, page 16", ((2048, 0),), 32, 8, 128, 16, cache="int8"),
    RaggedCase("llama-3.1-8b, fp8, 56 decode rows", _MIXED, 32, 8, 128, 64, cache=_FP8),
    RaggedCase("llama-3.1-8b, chunk after 30k", ((2048, 30720),), 32, 8, 128, 64),
    RaggedCase("llama-3.1-8b, 16 prompts", ((128, 0),) * 16, 32, 8, 128, 64),
    RaggedCase("llama-3.1-8b, 56 decode rows", _MIXED, 32, 8, 128, 64),
    RaggedCase("llama-3.2-1b, prompt of 2k", ((2048, 0),), 32, 8, 64, 64),
    RaggedCase("gemma-2-9b, prompt of 8k", ((8192, 0),), 16, 8, 256, 64, 4096, 50.0),
    HopperRaggedCase("gemma-4-31b, no window, prompt of 8k", ((8192, 0),), 32, 4, 512, 64),
    RaggedCase("gpt-oss-20b, prompt of 8k", ((8192, 0),), 64, 8, 64, 64, 128, None, True),
    RaggedCase("mpt-7b, prompt of 2k", ((2048, 0),), 32, 32, 128, 64, slopes=True),
    RaggedCase("bloom-7b, fp8, 56 decode rows", _MIXED, 32, 32, 128, 64, cache=_FP8, slopes=True),
)
