"""Writing keys and values into their pages."""

from pallas_kernels.cache.kv_write import kv_write
from pallas_kernels.cache.qkv_write import qkv_write
from pallas_kernels.cache.reference import HeadNorms, Pages, Turn, rms_norm, rotate

__all__ = ["HeadNorms", "Pages", "Turn", "kv_write", "qkv_write", "rms_norm", "rotate"]
