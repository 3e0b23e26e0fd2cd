"""Writing keys and values into their pages."""

from pallas_kernels.cache.kv_write import kv_write

__all__ = ["kv_write"]
