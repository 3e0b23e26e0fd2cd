"""Multi-head latent attention: one latent a token, shared by all heads, is key and value."""

from pallas_kernels.mla.latent_attention import mla_decode, mla_ragged
from pallas_kernels.mla.sparse import IndexQueries, choose_latents, mla_chosen

__all__ = ["IndexQueries", "choose_latents", "mla_chosen", "mla_decode", "mla_ragged"]
