"""Attention over pages: a query a row (decode), drafts (verify), packed chunks (ragged)."""

from pallas_kernels.attention.paged_decode import paged_decode
from pallas_kernels.attention.paged_verify import paged_verify
from pallas_kernels.attention.query_blocks import QueryBlocks, query_blocks
from pallas_kernels.attention.ragged_attention import ragged_attention

__all__ = ["QueryBlocks", "paged_decode", "paged_verify", "query_blocks", "ragged_attention"]
