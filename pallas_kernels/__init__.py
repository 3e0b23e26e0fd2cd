"""Attention over a paged KV cache: each kernel beside the jnp function that defines it.

Axis names: B rows, T tokens, N query heads, K key/value heads, G = N / K, H head dim, L layers,
P pages a layer, S slots in a page, M blocks of queries, Q queries in a block, C pages in a chunk.
"""

from pallas_kernels.kv_write import kv_write
from pallas_kernels.paged_decode import paged_decode
from pallas_kernels.query_blocks import QueryBlocks, query_blocks
from pallas_kernels.ragged_attention import ragged_attention

__all__ = ["QueryBlocks", "kv_write", "paged_decode", "query_blocks", "ragged_attention"]
