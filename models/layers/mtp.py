"""A module that predicts the token after the next (MTP), as checkpoints bring one along.

    hidden state of token i, normed ── norm ─┐
                                             ├─ join ─ one layer of the decoder's kind ─ norm ─> y
    embedding of token i + 1 ─────── norm ───┘

The decoder's head makes of y the scores of token i + 2. Owns the module and its loading. Nothing
runs it yet: drafting with it is the engine's to add.
Source: DeepSeek-V3, arXiv 2412.19437, section 2.2; what is joined first is as in published code.
"""

from dataclasses import dataclass
from functools import partial

import jax.numpy as jnp
from flax import nnx
from jax.typing import DTypeLike
from jaxtyping import Array, Float, Int32

from models.checkpoints.checkpoint import open_tensors, read_config
from models.checkpoints.converted import find_made
from models.checkpoints.loading import LoadedModel, compute_dtype, read_module
from models.config.decoder import ModelConfig
from models.decoder import Layer, make_norm
from models.errors import UnsupportedError
from models.flatten import Layout, layout
from models.layers.attention import AttentionBatch, KVCache
from models.layers.parts import Linear
from models.layers.rope import rotation
from models.layers.site import Site
from models.pool import make_pool
from models.quantised.methods import quantisation_method
from models.registry import find_architecture
from models.weights.mtp import MTPNames, mtp_map, with_mtp_layers


class MTPModule(nnx.Module):
    """`config` is the decoder's `with_mtp_layers`, of which this is the last: pages of that many
    layers hold the keys and values of both, and of the modules between them."""

    def __init__(
        self, config: ModelConfig, *, hidden_first: bool, dtype: DTypeLike, shards: int = 1
    ):
        D = config.hidden_size
        self.config, self.hidden_first, self.shards = config, hidden_first, shards
        self.token_norm, self.hidden_norm = make_norm(config), make_norm(config)
        self.join = Linear(2 * D, D, axes=("latent", "embed"), bias=False, dtype=dtype)
        self.layer = Layer(config, config.layer_kinds[-1], dtype, shards)
        self.norm = make_norm(config)

    def __call__(
        self,
        hidden: Float[Array, "T D"],
        embedded: Float[Array, "T D"],
        positions: Int32[Array, " T"],
        batch: AttentionBatch,
        cache: KVCache,
    ) -> tuple[Float[Array, "T D"], KVCache]:
        """What the decoder's `logits` reads for the token after the next, and a next module or turn
        instead of `hidden`.

        Args:
            hidden: what the decoder gave for each token, behind its final norm.
            embedded: of the token behind each, `decoder.embed`.
            positions: of the tokens that `hidden` is of.
        """
        pair = [self.token_norm(embedded), self.hidden_norm(hidden)]
        x = self.join(jnp.concatenate(pair[::-1] if self.hidden_first else pair, axis=-1))
        rope = self.config.layer_kinds[-1].rope
        turn = rotation(rope, positions, self.config.context_length) if rope else None
        place = make_pool(self.config, self.shards, batch.backend).places[-1]
        x, cache = self.layer(x, Site(jnp.int32(place), None, turn, batch), cache)
        return self.norm(x), cache._replace(chosen=None)


@dataclass(frozen=True)
class LoadedMTP:
    """A module whose parameters are on the devices of its decoder's mesh."""

    config: ModelConfig  # the decoder's, and a layer more for each module up to this one
    layout: Layout[MTPModule]
    leaves: tuple[Array, ...]


def load_mtp(model: LoadedModel, number: int = 0) -> LoadedMTP:
    """An MTP module of the checkpoint that `model` was loaded from, not quantised.

    Args:
        number: 0 for the first one, 1 for that which reads what the first one gives, and so on.

    Raises:
        UnsupportedError: its family or its checkpoint has none.
        CheckpointError, ModelError: as `loading.load`.
    """
    raw = {**read_config(model.folder), "architectures": [model.config.architecture]}
    architecture, method = find_architecture(raw), quantisation_method(raw)
    names: MTPNames | None = getattr(architecture, "mtp", lambda *_: None)(model.config, number)
    if names is None:
        raise UnsupportedError(
            f"No MTP module of {model.config.architecture} is known; use a model of DeepSeek V3, "
            "GLM-4.5, Qwen3-Next or MiMo, or what shares their names."
        )
    _check_there(model, names)
    config = with_mtp_layers(model.config, number + 1)
    dtype, shards, first = (
        compute_dtype(model.dtype, model.mesh),
        model.mesh.size,
        names.hidden_first,
    )

    def lay_out() -> Layout[MTPModule]:
        make = partial(MTPModule, config, hidden_first=first, dtype=dtype, shards=shards)
        return layout(nnx.eval_shape(make))

    weights = mtp_map(architecture.weights(config), names, config)
    return LoadedMTP(config, *read_module(model.folder, lay_out, weights, model.mesh, method))


def _check_there(model: LoadedModel, names: MTPNames) -> None:
    made = find_made(model.folder) is not None
    if not made:
        with open_tensors(model.folder) as tensors:
            made = f"{names.token_norm}.weight" not in tensors
    if made:
        raise UnsupportedError(
            f"{model.folder} has no MTP module ({names.token_norm} and others); use the checkpoint "
            "as its authors published it."
        )
