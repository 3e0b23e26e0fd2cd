"""Which times Whisper may write: those around pieces of text, none before another.

    <0.00> Hello.<1.20><1.20> How are you?<2.50>        and the end, or one more <2.50>

A model that is only likely to keep to this is held to it, in every implementation of its authors'
decoding. Owns the rules; what was written is known of each slot (`state.py`).
Source: Whisper, arXiv 2212.04356, section 3.8 and table 7, and `ApplyTimestampRules` of its code.
"""

from dataclasses import dataclass

import jax
import jax.numpy as jnp
from jax.scipy.special import logsumexp
from jaxtyping import Array, Float32, Int32

from models.config.decoder import ModelConfig

LATEST = 50  # of the first time in a window: a second of 0.02


@jax.tree_util.register_static
@dataclass(frozen=True)
class SpeechTimes:
    """Ids: text lies below `end`, times from `first` on, and between them what begins a text."""

    end: int
    first: int

    def keep(
        self,
        logits: Float32[Array, "B V"],
        recent: Int32[Array, "B N"],
        generated: Int32[Array, "B V"],
    ) -> Float32[Array, "B V"]:
        """-inf for what may not follow, and for all else where times are likelier than any text.

        Args:
            recent: the last tokens of each row's text, newest last; -1 before the first.
            generated: how often it has each token.
        """
        ids = jnp.arange(logits.shape[1])
        is_time = ids >= self.first
        before, last = recent[:, -2, None], recent[:, -1, None]
        stands = last >= self.first  # at the end of what was written
        opens = stands & ((before < 0) | (before >= self.first))  # and no text before it
        closes = stands & ~opens
        written = is_time & (generated > 0)
        newest = jnp.max(jnp.where(written, ids, self.first - 1), axis=1, keepdims=True)
        least = jnp.where(closes, newest, newest + 1)
        banned = ids == self.first - 1  # "no times"
        banned |= is_time & (opens | (ids < least))
        banned |= closes & (ids < self.end)
        banned |= (last < 0) & (~is_time | (ids > self.first + LATEST))
        kept = jnp.where(banned, -jnp.inf, logits)
        times = logsumexp(jnp.where(is_time, kept, -jnp.inf), axis=1, keepdims=True)
        text = jnp.max(jnp.where(is_time, -jnp.inf, kept), axis=1, keepdims=True)
        return jnp.where((times > text) & ~is_time, -jnp.inf, kept)


def speech_times(model: ModelConfig) -> SpeechTimes | None:
    """Of a model that hears: its last ids are the times, one a position of the encoder and 0.

    Where more were added behind them, or the vocabulary is padded, `AddRequest.times_from` is
    another id, and nothing is held to their order.
    """
    if model.encoder is None or not model.encoder.mel_bins or not model.eos_token_ids:
        return None
    first = model.vocab_size - model.encoder.max_position_embeddings - 1
    return SpeechTimes(min(model.eos_token_ids), first)
