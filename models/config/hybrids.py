"""Models with states as config.json states them: which layers have one, and the pure ones whole.

Owns what the files in `architectures/` write alike. Knows no family.
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from models.config.decoder import LayerKind, ModelConfig
from models.config.fields import MAX_LAYERS, Fields
from models.config.mixers import LinearRecurrence, Mixer
from models.errors import UnsupportedError

FAR = 2**20  # positions of models that have none
USUAL = 8192  # tokens of them, unless another context is asked for


def read_state_layers(fields: Fields, stated: str = "linear_attention") -> tuple[bool, ...] | None:
    """Which layers have a state, by `layer_types`; None where it is absent."""
    if "layer_types" not in fields:
        return None
    layers = fields.integer("num_hidden_layers", high=MAX_LAYERS)
    kinds = fields.options("layer_types", layers, (stated, "full_attention"))
    return tuple(kind == stated for kind in kinds)


def with_states(config: ModelConfig, stated: Sequence[bool], mixer: Mixer) -> ModelConfig:
    """The same model, with the mixer in the place of attention in some layers.

    Raises:
        UnsupportedError: the model's activation is not the one that mixers have.
    """
    if not isinstance(mixer, LinearRecurrence):  # which has none
        check_activation(config)
    kinds = tuple(
        replace(kind, attention=False, mixer=True, rope=None, window=None) if state else kind
        for kind, state in zip(config.layer_kinds, stated, strict=True)
    )
    return replace(config, layer_kinds=kinds, mixer=mixer)


def check_activation(config: ModelConfig) -> None:
    """Behind a mixer's convolution stands the MLP's activation: raise UnsupportedError unless it is
    silu, which it is in every model known."""
    if config.activation not in ("silu", "swish"):
        raise UnsupportedError(
            f"config.json: hidden_act is {config.activation!r}, which is not supported for layers "
            "with a state; use silu."
        )


def pure(fields: Fields, mixer: Mixer, **switches: Any) -> ModelConfig:
    """A model of nothing but mixers; `switches` are the other fields of ModelConfig.

    It has no attention and no positions, so its heads are one that is never computed.
    """
    layers = fields.integer("num_hidden_layers", high=MAX_LAYERS)
    kind = LayerKind(attention=False, mixer=True, mlp=False)
    return ModelConfig(
        architecture=fields.texts("architectures")[0],
        vocab_size=fields.integer("vocab_size"),
        hidden_size=fields.integer("hidden_size"),
        intermediate_size=mixer.inner,
        num_heads=1,
        num_kv_heads=1,
        head_dim=64,
        max_position_embeddings=FAR,
        context_length=USUAL,
        layer_kinds=(kind,) * layers,
        mixer=mixer,
        norm_eps=fields.number("layer_norm_epsilon", 1e-5, low=1e-12, high=1.0),
        bos_token_id=next(iter(fields.token_ids("bos_token_id")), None),
        eos_token_ids=fields.token_ids("eos_token_id"),
        **switches,
    )
