"""Logits processors as a user writes them, and some that cannot work."""

import jax.numpy as jnp
import numpy as np

from engine import LogitsProcessor


class Boost(LogitsProcessor):
    """Adds to the logit of one token."""

    arguments = {"boost_token": np.int32(0), "boost": np.float32(1e4)}  # noqa: RUF012

    def apply(self, logits, boost_token, boost):
        return logits.at[jnp.arange(len(logits)), boost_token].add(boost)

    def check(self, boost_token, boost):
        if not 0 <= boost_token < self.vocab_size:
            raise ValueError("boost_token is no token of this model")


class Only(LogitsProcessor):
    """Leaves some tokens, or all but them."""

    arguments = {"only": np.full(3, -1, np.int32), "invert": np.bool_(False)}  # noqa: RUF012

    def apply(self, logits, only, invert):
        named = (jnp.arange(logits.shape[1])[None, :, None] == only[:, None]).any(-1)
        return jnp.where(named ^ invert[:, None], logits, -jnp.inf)


class Spoils(LogitsProcessor):
    """What it gives to its own rows is no number."""

    arguments = {"spoil": np.bool_(True)}  # noqa: RUF012

    def apply(self, logits, spoil):
        return jnp.full_like(logits, jnp.nan)


class TooNarrow(Spoils):
    def apply(self, logits, spoil):
        return logits[:, 1:]


class Raises(Spoils):
    def apply(self, logits, spoil):
        raise KeyError("nothing")


class Untyped(Spoils):
    arguments = {"spoil": 1}  # noqa: RUF012


class Silent(Spoils):
    arguments = {}  # noqa: RUF012


class AlsoBoost(Boost):
    """Has arguments of the same names."""


class Other:
    """As vLLM's are."""
