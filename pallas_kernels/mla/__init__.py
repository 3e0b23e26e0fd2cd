"""Multi-head latent attention: one latent a token, shared by all heads, is key and value."""

from pallas_kernels.mla.latent_attention import mla_decode, mla_ragged

__all__ = ["mla_decode", "mla_ragged"]
