"""cuDNN's attention of whole prompts, by JAX: what `ragged_attention` would be replaced with.

It takes contiguous keys and values, so a prompt whose pages are all new could go to it. Whether
that would be worth a second way is what this measures; JAX makes it only where a GPU is.
"""

from functools import partial
from pathlib import Path

import jax
import jax.numpy as jnp

from tests.gpu.records import Log
from tests.gpu.timing import seconds
from tests.gpu.torch_peers import PREFILL

_CHAIN = 4  # prompts in a program


def prompts(log: Log, folder: Path, quick: bool) -> None:
    """Causal attention of one prompt, as in `torch_peers`; on a trial of XLA's, and short."""
    library = "xla" if quick else "cudnn"
    attend = partial(jax.nn.dot_product_attention, is_causal=True, implementation=library)
    for name, (B, N, K, H, keys) in PREFILL.items():
        tokens = 64 if quick else keys
        normal = partial(jax.random.normal, jax.random.key(0), dtype=jnp.bfloat16)
        q, kv = normal((B, tokens, N, H)), normal((B, tokens, K, H))

        @jax.jit
        def chain(q: jax.Array, kv: jax.Array) -> jax.Array:
            for _ in range(_CHAIN):  # each waits for the one before it
                q = attend(q, kv, kv)
            return q

        try:
            time = seconds(partial(chain, q, kv), quick=quick) / _CHAIN
        except Exception as error:  # no cuDNN is a finding
            log.add("peers", peer="cuDNN", case=name, failed=f"{type(error).__name__}: {error}")
        else:
            log.add("peers", peer="cuDNN", case=name, us=1e6 * time)
