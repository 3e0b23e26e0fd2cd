"""Mamba-2: values along keys into a state that forgets, a rate a head. arXiv 2405.21060.

x ─ in ─┬─ values, keys, queries ─ short conv ─ silu ─┬─ scan ─ + skip ─ norm ─ out ─>
        ├─ step ─ softplus ───────────────────────────┘                 │
        └─ gate ────────────────────────────────────────────────────────┘
"""

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax.typing import DTypeLike
from jaxtyping import Array, Float, Int32

from models.config.decoder import ModelConfig
from models.config.mixers import DualScan
from models.layers.attention import AttentionBatch
from models.layers.states import States, scan
from models.mixers.parts import GatedNorm, ShortConv, inwards, outwards, rows_of, vector
from pallas_kernels.materialised import materialised


class DualScanMixer(nnx.Module):
    """N heads with a state of V by S each."""

    def __init__(self, config: ModelConfig, mixer: DualScan, dtype: DTypeLike):
        D, C, N, inner = config.hidden_size, mixer.conv_channels, mixer.num_heads, mixer.inner
        self.mixer = mixer
        self.input = inwards(D, inner + C + N, bias=mixer.bias, dtype=dtype)
        self.conv = ShortConv(C, mixer.conv_width, mixer.conv_bias, dtype)
        self.step_bias, self.log_rate, self.skip = vector(N), vector(N), vector(N)
        self.norm = (
            None
            if mixer.norm_groups is None
            else GatedNorm(
                inner, groups=mixer.norm_groups, gate_first=mixer.gate_first, shared=False,
                eps=config.norm_eps if mixer.norm_eps is None else mixer.norm_eps,
            )
        )  # fmt: skip
        bias = mixer.bias if mixer.output_bias is None else mixer.output_bias
        self.output = outwards(inner, D, bias=bias, dtype=dtype)

    def __call__(
        self, index: Int32[Array, ""], x: Float[Array, "T D"], batch: AttentionBatch, states: States
    ) -> tuple[Float[Array, "T D"], States]:
        mixer, T = self.mixer, len(x)
        shared = mixer.groups * mixer.state_size
        projected = self.input(x * jnp.asarray(mixer.input_scale, x.dtype)) * self._scales(x.dtype)
        gate, inputs, step = jnp.split(
            projected, [mixer.inner, mixer.inner + mixer.conv_channels], axis=-1
        )
        inputs, states = self.conv(index, inputs, batch, states)
        values, keys, queries = jnp.split(
            materialised(jax.nn.silu(inputs)), [mixer.inner, mixer.inner + shared], axis=-1
        )
        values = values.reshape(T, mixer.num_heads, mixer.head_dim)
        step = jax.nn.softplus(step.astype(jnp.float32) + self.step_bias[...])
        step = jnp.clip(step, *mixer.step_limits)  # [T, N]
        y, states = scan(
            rows_of(batch),
            states,
            index,
            (values * step[..., None]).astype(x.dtype),
            keys.reshape(T, mixer.groups, -1),
            queries.reshape(T, mixer.groups, -1),
            (-jnp.exp(self.log_rate[...]) * step)[..., None],
            batch.mesh,
        )
        y = (y + values * self.skip[...][:, None]).astype(x.dtype).reshape(T, -1)
        h = y * jax.nn.silu(gate) if self.norm is None else self.norm(y, gate)
        return self.output(h) * jnp.asarray(mixer.output_scale, x.dtype), states

    def _scales(self, dtype: DTypeLike) -> Float[Array, "..."]:
        """Factors of what is projected: one, or one a column."""
        mixer = self.mixer
        if mixer.scales is None:
            return jnp.ones((), dtype)
        shared = mixer.groups * mixer.state_size
        widths = (mixer.inner, mixer.inner, shared, shared, mixer.num_heads)
        return jnp.asarray(np.repeat(mixer.scales, widths), dtype)
