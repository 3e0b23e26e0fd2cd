"""Kernels of an inference engine: each beside the jnp function that defines it.

A folder is a kernel or a family of them. In it `reference.py` is the specification, `mosaic_*.py`
runs on Hopper GPUs, `triton_*.py` on Ampere and Ada, and `cases.py` lists shapes that people run.
`dispatch.py` decides which version it is.

Axis names: B rows, T tokens, N query heads, K key/value heads, G = N / K, H head dim, L layers,
P pages a layer, S slots in a page, M blocks of queries, Q queries in a block, C pages in a chunk,
V vocabulary, Z slots of requests.
"""

from pallas_kernels.attention import (
    QueryBlocks,
    paged_decode,
    paged_verify,
    query_blocks,
    ragged_attention,
)
from pallas_kernels.cache import HeadNorms, Pages, Turn, kv_write, qkv_write, rms_norm, rotate
from pallas_kernels.dispatch import Backend
from pallas_kernels.mla import IndexQueries, choose_latents, mla_chosen, mla_decode, mla_ragged
from pallas_kernels.moe import experts, route
from pallas_kernels.sampling import DrawRows, draw

__all__ = [
    "Backend",
    "DrawRows",
    "HeadNorms",
    "IndexQueries",
    "Pages",
    "QueryBlocks",
    "Turn",
    "choose_latents",
    "draw",
    "experts",
    "kv_write",
    "mla_chosen",
    "mla_decode",
    "mla_ragged",
    "paged_decode",
    "paged_verify",
    "qkv_write",
    "query_blocks",
    "ragged_attention",
    "rms_norm",
    "rotate",
    "route",
]
