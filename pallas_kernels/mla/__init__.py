"""Multi-head latent attention: one latent a token, shared by all heads, is key and value."""

from pallas_kernels.mla.mla_decode import mla_decode

__all__ = ["mla_decode"]
