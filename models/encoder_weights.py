"""Which parameters an encoder has, and from which tensors of a checkpoint each is made.

Owns our side, in the order of `encoder.py`. The checkpoint's names come from the files in
`architectures/`. Encoders are not divided among devices.
"""

from collections.abc import Iterator, Mapping

from models.encoder_config import EncoderConfig
from models.weights import Part, Source, WeightMap

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
    sources = dict(_entries(config, names))
    return WeightMap(sources, ignored, optional_prefix)


def _entries(config: EncoderConfig, names: EncoderNames) -> Iterator[Entry]:
    D, V, P = config.hidden_size, config.vocab_size, config.max_position_embeddings
    tables = {"embedding": V}
    if config.positions == "learned":
        tables["position_embedding"] = P
    if config.token_types:
        tables["type_embedding"] = config.token_types
    for name, rows in tables.items():
        yield f"body.{name}", Source((Part(f"{names[name]}.weight", rows),))
    yield from _norm("body.embedding_norm", _one(names, "embedding_norm"), D, config.norm_bias)
    for index in range(config.num_layers):
        yield from _layer(config, names, index)
    if config.norm_first:
        yield from _norm("body.norm", _one(names, "norm"), D, config.norm_bias)
    yield from _head(config, names)


def _layer(config: EncoderConfig, names: EncoderNames, index: int) -> Iterator[Entry]:
    D, F = config.hidden_size, config.intermediate_size
    outputs = {"qkv": (D, D, D), "o": (D,), "down": (D,)}
    outputs["up"] = (F, F) if config.gated_mlp else (F,)
    for name, sizes in outputs.items():
        tensors = _of_layer(names[f"layers.*.{name}"], index)
        yield from _linear(f"body.layers.{index}.{name}", tensors, sizes, config.bias)
    idle = config.first_norm_idle and index == 0
    for name in ("mlp_norm",) if idle else ("attention_norm", "mlp_norm"):
        [tensor] = _of_layer(names[f"layers.*.{name}"], index)
        yield from _norm(f"body.layers.{index}.{name}", tensor, D, config.norm_bias)


def _head(config: EncoderConfig, names: EncoderNames) -> Iterator[Entry]:
    head, D = config.head, config.hidden_size
    if head is None:
        return
    if head.first:
        yield from _linear("head.first", (_one(names, "head.first"),), (D,), head.first_bias)
    if head.norm:
        yield from _norm("head.norm", _one(names, "head.norm"), D, config.norm_bias)
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


def _norm(path: str, tensor: str, size: int, bias: bool) -> Iterator[Entry]:
    """Where there is no bias it is 0."""
    yield f"{path}.weight", Source((Part(f"{tensor}.weight", size),))
    yield f"{path}.bias", Source((Part(f"{tensor}.bias", size),) if bias else ())


def _of_layer(name: str | tuple[str, ...], index: int) -> tuple[str, ...]:
    several = (name,) if isinstance(name, str) else name
    return tuple(each.replace("*", str(index)) for each in several)


def _one(names: EncoderNames, module: str) -> str:
    name = names[module]
    return name if isinstance(name, str) else name[0]
