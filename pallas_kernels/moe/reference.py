"""The specification of a mixture of experts, in plain jnp: every expert for every token."""

import jax.numpy as jnp
from jaxtyping import Array, Float, Int32

from pallas_kernels.moe.activations import activate, num_parts


def experts_reference(
    x: Float[Array, "T D"],
    weights: Float[Array, "T k"],
    chosen: Int32[Array, "T k"],
    gate_up: Float[Array, "E D F2"],
    down: Float[Array, "E F D"],
    *,
    activation: str = "silu",
    gate_up_bias: Float[Array, "E F2"] | None = None,
    down_bias: Float[Array, "E D"] | None = None,
) -> Float[Array, "T D"]:
    """sum_j weights[t, j] down_e(act(gate_e(x), up_e(x))), e = chosen[t, j]; others give nothing.

    `gate_up` holds the columns of the gate, then those of up; or of up alone, where the activation
    has none (relu2): down_e(act(up_e(x))). A choice outside 0 .. E-1 belongs to another device and
    adds nothing here.
    """
    wide = jnp.promote_types(x.dtype, jnp.float32)
    E = down.shape[0]
    rows, up, back = (a.astype(wide) for a in (x, gate_up, down))
    hidden = jnp.einsum("td,edf->tef", rows, up)
    if gate_up_bias is not None:
        hidden = hidden + gate_up_bias.astype(wide)
    active = activate(activation, jnp.split(hidden, num_parts(activation), axis=-1))
    out = jnp.einsum("tef,efd->ted", active, back)
    if down_bias is not None:
        out = out + down_bias.astype(wide)
    share = (chosen[:, :, None] == jnp.arange(E)) * weights[:, :, None].astype(wide)  # [T, k, E]
    return jnp.einsum("te,ted->td", share.sum(1), out).astype(x.dtype)
