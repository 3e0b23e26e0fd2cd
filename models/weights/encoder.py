"""Which parameters an encoder has, and from which tensors of a checkpoint each is made.

Owns our side, in the order of `encoder.py`. The checkpoint's names come from the files in
`architectures/`. Encoders are not divided among devices.
"""

from collections.abc import Iterator, Mapping
from dataclasses import replace

from models.config.encoder import EncoderConfig
from models.weights.sources import Part, Source, WeightMap

# Our module -> the checkpoint's, * the layer: "layers.*.down" -> "encoder.layer.*.output.dense".
# `qkv` and a gated `up` may have a tuple of names, one for each part.
EncoderNames = Mapping[str, str | tuple[str, ...]]
Entry = tuple[str, Source]


def encoder_weights(
    config: EncoderConfig,
    names: EncoderNames,
    *,
    optional_prefix: str,
    ignored: tuple[str, ...] = (),
) -> WeightMap:
    """Sources of an encoder's parameters, and of its head's, below `body.` and `head.`.

    Args:
        optional_prefix: of the tensors' names: "bert.", which checkpoints of the bare model lack.
        ignored: patterns of tensors that are there and not needed.
    """
    sources = dict(encoder_entries(config, names, "body"))
    return WeightMap(sources, ignored, optional_prefix)


def encoder_entries(config: EncoderConfig, names: EncoderNames, root: str) -> Iterator[Entry]:
    """Every parameter of an encoder below `root`, and those of its head."""
    V, P = config.vocab_size, config.max_position_embeddings
    tables = {} if config.shared_embedding else {"embedding": V}
    if config.positions == "learned":
        tables["position_embedding"] = P
    if config.token_types:
        tables["type_embedding"] = config.token_types
    if config.relative and not config.relative.by_layer:
        tables["relative_bias"] = config.relative.buckets
    for name, rows in tables.items():
        yield f"{root}.{name}", Source((Part(f"{names[name]}.weight", rows),))
    if config.mel_bins:
        yield from _stem(config, names, root)
    if config.embedding_norm:
        yield from _norm(config, f"{root}.embedding_norm", _one(names, "embedding_norm"))
    for index in range(config.num_layers):
        yield from _layer(config, names, index, root)
    if config.norm_first:
        yield from _norm(config, f"{root}.norm", _one(names, "norm"))
    yield from _head(config, names)


def _layer(config: EncoderConfig, names: EncoderNames, index: int, root: str) -> Iterator[Entry]:
    D, F = config.hidden_size, config.intermediate_size
    heads = config.num_heads * config.head_dim
    outputs = {"qkv": (heads,) * 3, "o": (D,), "down": (D,)}
    outputs["up"] = (F, F) if config.gated_mlp else (F,)
    for name, sizes in outputs.items():
        tensors = _of_layer(names[f"layers.*.{name}"], index)
        for path, source in _linear(f"{root}.layers.{index}.{name}", tensors, sizes, config.bias):
            keys_too = config.key_bias or not path.endswith("qkv.bias")
            yield path, source if keys_too else without_part(source, 1)
    if config.relative and config.relative.by_layer:
        [tensor] = _of_layer(names["layers.*.relative_bias"], index)
        source = Source((Part(f"{tensor}.weight", config.relative.buckets),))
        yield f"{root}.layers.{index}.relative_bias", source
    idle = config.first_norm_idle and index == 0
    for name in ("mlp_norm",) if idle else ("attention_norm", "mlp_norm"):
        [tensor] = _of_layer(names[f"layers.*.{name}"], index)
        yield from _norm(config, f"{root}.layers.{index}.{name}", tensor)


def _stem(config: EncoderConfig, names: EncoderNames, root: str) -> Iterator[Entry]:
    for name in ("stem.first", "stem.second"):
        for leaf, tensor in (("filters", "weight"), ("bias", "bias")):
            part = Part(f"{_one(names, name)}.{tensor}", config.hidden_size)
            yield f"{root}.{name}.{leaf}", Source((part,))


def without_part(source: Source, index: int) -> Source:
    """The same, with zeros in the place of one part."""
    parts = list(source.parts)
    parts[index] = replace(parts[index], tensor="")
    return replace(source, parts=tuple(parts))


def _head(config: EncoderConfig, names: EncoderNames) -> Iterator[Entry]:
    head, D = config.head, config.hidden_size
    if head is None:
        return
    if head.first:
        yield from _linear("head.first", (_one(names, "head.first"),), (D,), head.first_bias)
    if head.norm:
        yield from _norm(config, "head.norm", _one(names, "head.norm"))
    yield from _linear("head.last", (_one(names, "head.last"),), (head.num_labels,), head.bias)


def _linear(
    path: str, tensors: tuple[str, ...], sizes: tuple[int, ...], bias: bool
) -> Iterator[Entry]:
    """A fused product of several tensors, or of one in which the parts follow each other."""
    if len(tensors) != len(sizes):
        sizes = (sum(sizes),)
    pairs = list(zip(tensors, sizes, strict=True))
    yield (
        f"{path}.kernel",
        Source(tuple(Part(f"{t}.weight", n) for t, n in pairs), axis=1, transpose=True),
    )
    if bias:
        yield f"{path}.bias", Source(tuple(Part(f"{t}.bias", n) for t, n in pairs))


def _norm(config: EncoderConfig, path: str, tensor: str) -> Iterator[Entry]:
    """Where there is no bias it is 0."""
    size, bias = config.hidden_size, config.norm_bias
    yield f"{path}.weight", Source((Part(f"{tensor}.weight", size),))
    if config.norm == "layer":
        yield f"{path}.bias", Source((Part(f"{tensor}.bias", size),) if bias else ())


def _of_layer(name: str | tuple[str, ...], index: int) -> tuple[str, ...]:
    several = (name,) if isinstance(name, str) else name
    return tuple(each.replace("*", str(index)) for each in several)


def _one(names: EncoderNames, module: str) -> str:
    name = names[module]
    return name if isinstance(name, str) else name[0]
