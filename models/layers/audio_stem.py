"""From the log-mel spectrogram of a window of audio to what an encoder's first layer reads.

    features [B, F, mels] ─ convolution, gelu ─ convolution of stride 2, gelu ─> [B, F / 2, D]

Source: Whisper, arXiv 2212.04356. Owns the two convolutions; the spectrogram is made on the host.
"""

import jax
import jax.numpy as jnp
from flax import nnx
from jax.typing import DTypeLike
from jaxtyping import Array, Float

_TAPS = 3


class AudioStem(nnx.Module):
    """Two convolutions over time, of three frames each."""

    def __init__(self, mels: int, D: int, dtype: DTypeLike):
        self.first = Convolution(mels, D, 1, dtype)
        self.second = Convolution(D, D, 2, dtype)

    def __call__(self, features: Float[Array, "B F mels"]) -> Float[Array, "B S D"]:
        x = jax.nn.gelu(self.first(features), approximate=False)
        return jax.nn.gelu(self.second(x), approximate=False)


class Convolution(nnx.Module):
    """Of every `stride`-th frame with its neighbours; there is silence at both ends."""

    def __init__(self, inputs: int, outputs: int, stride: int, dtype: DTypeLike):
        shape = (outputs, inputs, _TAPS)
        self.filters = nnx.Param(jnp.zeros(shape, dtype), axes=("embed", None, None))
        self.bias = nnx.Param(jnp.zeros(outputs, dtype), axes=("embed",))
        self.stride = stride

    def __call__(self, x: Float[Array, "B F inputs"]) -> Float[Array, "B frames outputs"]:
        filters = self.filters[...]
        y = jax.lax.conv_general_dilated(
            x.astype(filters.dtype), filters, (self.stride,), [(1, 1)],
            dimension_numbers=("NWC", "OIW", "NWC"),
        )  # fmt: skip
        return y + self.bias[...]
