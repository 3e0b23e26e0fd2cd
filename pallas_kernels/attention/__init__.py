"""Attention over pages: one query a row (decode), and packed chunks of queries (ragged)."""

from pallas_kernels.attention.paged_decode import paged_decode
from pallas_kernels.attention.query_blocks import QueryBlocks, query_blocks
from pallas_kernels.attention.ragged_attention import ragged_attention

__all__ = ["QueryBlocks", "paged_decode", "query_blocks", "ragged_attention"]
