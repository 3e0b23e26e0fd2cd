"""What checkpoints call the parts of an MTP module, and from which tensors it is made.

    model.layers.61.{enorm, hnorm, eh_proj, shared_head.norm}, the layer's own     DeepSeek, GLM
    mtp.{pre_fc_norm_embedding, pre_fc_norm_hidden, fc, norm}, mtp.layers.0.*      Qwen
    model.mtp_layers.0.{token_layernorm, hidden_layernorm, input_proj, ...}        MiMo

Embedding and head are the decoder's: where a checkpoint has copies of them, they are not read.
"""

from dataclasses import dataclass, replace

from models.config.decoder import ModelConfig
from models.weights.sources import Part, Source, Stack, WeightMap

MAX_MODULES = 8  # of a checkpoint; published ones have one or three


@dataclass(frozen=True)
class MTPNames:
    """One module of a checkpoint."""

    layer: str  # "model.layers.61", in the place of what the decoder would call its next layer
    token_norm: str
    hidden_norm: str
    join: str
    norm: str
    hidden_first: bool = False  # among the inputs of `join`


def behind_last_layer(config: ModelConfig, number: int = 0) -> MTPNames:
    """It is numbered as one more layer of the decoder."""
    layer = f"model.layers.{config.num_layers + number}"
    return MTPNames(
        layer=layer,
        token_norm=f"{layer}.enorm",
        hidden_norm=f"{layer}.hnorm",
        join=f"{layer}.eh_proj",
        norm=f"{layer}.shared_head.norm",
    )


def layers_behind(config: ModelConfig) -> tuple[str, ...]:
    """Patterns of the tensors of all such modules, which the decoder does not read."""
    return tuple(f"model.layers.{config.num_layers + number}.*" for number in range(MAX_MODULES))


def with_mtp_layers(config: ModelConfig, count: int) -> ModelConfig:
    """The decoder and more layers, as its last with attention: so many have keys and values."""
    kind = next(kind for kind in reversed(config.layer_kinds) if kind.attention)
    own = replace(kind, chosen_before=False)
    return replace(config, layer_kinds=(*config.layer_kinds, *[own] * count))


def mtp_map(longer: WeightMap, names: MTPNames, config: ModelConfig) -> WeightMap:
    """Sources of the module; `longer` is the map of `config`, the decoder `with_mtp_layers`."""
    last = config.num_layers - 1
    ours, theirs = f"layers.{last}.", f"model.layers.{last}."

    def named(source: Source) -> Source:
        parts = tuple(
            replace(part, tensor=part.tensor.replace(theirs, f"{names.layer}.", 1))
            for part in source.parts
        )
        return replace(source, parts=parts)

    sources: dict[str, Source | Stack] = {}
    for path, source in longer.sources.items():
        if path.startswith(ours):
            sources[path.replace(ours, "layer.", 1)] = (
                Stack(tuple(map(named, source.sources)))
                if isinstance(source, Stack)
                else named(source)
            )
    width = config.hidden_size
    for path in ("token_norm", "hidden_norm", "norm"):
        sources[f"{path}.weight"] = Source((Part(f"{getattr(names, path)}.weight", width),))
    sources["join.kernel"] = Source((Part(f"{names.join}.weight", width),), 1, transpose=True)
    return WeightMap(sources, ignored=("*",), optional_prefix=longer.optional_prefix)
