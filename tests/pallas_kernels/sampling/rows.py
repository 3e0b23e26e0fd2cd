"""Rows with any options, for tests."""

import jax.numpy as jnp
import numpy as np

from pallas_kernels.sampling.rows import DrawRows

OFF = {
    "temperature": 1.0, "top_p": 1.0, "min_p": 0.0, "presence": 0.0, "frequency": 0.0,
    "repetition": 1.0, "top_k": 0, "slot": 0, "position": 1, "seed_high": 3, "seed_low": 4,
}  # fmt: skip
_WHOLE = {"top_k": np.int32, "slot": np.int32, "position": np.int32}
_WORDS = {"seed_high": np.uint32, "seed_low": np.uint32}


def draw_rows(*options) -> DrawRows:
    """A row for each dictionary of options; the position tells rows apart."""
    filled = [OFF | {"position": i} | row for i, row in enumerate(options)]
    dtypes = _WHOLE | _WORDS
    return DrawRows(
        **{
            name: jnp.asarray([row[name] for row in filled], dtypes.get(name, np.float32))
            for name in DrawRows._fields
        }
    )
