"""The specification of latent attention over pages, in plain jnp.

Source: DeepSeek-V2, arXiv 2405.04434, with the up-projections of keys and values absorbed into the
queries and the output: a head's query is as wide as a latent, and so is what it attends to.
"""

from jaxtyping import Array, Float, Int32

from pallas_kernels.attention.reference import attention_reference


def mla_reference(
    q: Float[Array, "T N H"],
    latent_pages: Float[Array, "P S H"],
    page_table: Int32[Array, "B MP"],
    row: Int32[Array, " T"],
    positions: Int32[Array, " T"],
    *,
    scale: float,
    value_dim: int,
) -> Float[Array, "T N V"]:
    """Token t over the latents of its row up to its position; their first `value_dim` entries are
    what is summed, the others (the rotary key) count in the scores only."""
    pages = latent_pages[:, None]
    out = attention_reference(q, pages, pages, page_table, row, positions, scale=scale)
    return out[..., :value_dim]
