"""Which parameters a mixer has, and from which tensors of a checkpoint each is made.

As `decoder.py`, of which this is a part: one function a mixer, in the order of `mixers/`.
"""

from collections.abc import Iterator
from dataclasses import replace
from typing import Protocol, runtime_checkable

from models.config.decoder import ModelConfig
from models.config.mixers import (
    DualScan,
    GatedConv,
    GatedDelta,
    KeyedDelta,
    LinearRecurrence,
    Mixer,
    SelectiveScan,
)
from models.weights.sources import Part, Source, Stack

Entry = tuple[str, Source | Stack]
Outputs = tuple[int, int]


@runtime_checkable
class Builder(Protocol):
    """What `weight_map` offers: the tensors of a module by their names."""

    def linear(self, path: str, *outputs: Outputs, bias: bool) -> Iterator[tuple[str, Source]]: ...
    def parts(self, path: str, outputs: tuple[Outputs, ...], leaf: str) -> tuple[Part, ...]: ...


def mixer_entries(config: ModelConfig, mixer: Mixer, build: Builder, path: str) -> Iterator[Entry]:
    """Every parameter of a mixer, in the order of the computation."""
    match mixer:
        case DualScan():
            yield from _dual_scan(config, mixer, build, path)
        case GatedDelta():
            yield from _gated_delta(config, mixer, build, path)
        case KeyedDelta():
            yield from _keyed_delta(config, mixer, build, path)
        case SelectiveScan():
            yield from _selective_scan(config, mixer, build, path)
        case GatedConv():
            C, bias = mixer.inner, mixer.bias
            yield from build.linear(f"{path}.input", (3 * C, 1), bias=bias)
            yield from _conv(C, bias, build, f"{path}.conv")
            yield from build.linear(f"{path}.output", (config.hidden_size, 1), bias=bias)
        case LinearRecurrence():
            yield from _linear_recurrence(config, mixer, build, path)


def _dual_scan(config: ModelConfig, mixer: DualScan, build: Builder, path: str) -> Iterator[Entry]:
    N, inner = mixer.num_heads, mixer.inner
    yield from build.linear(f"{path}.input", (inner + mixer.conv_channels + N, 1), bias=mixer.bias)
    yield from _conv(mixer.conv_channels, mixer.conv_bias, build, f"{path}.conv")
    for name in ("step_bias", "log_rate", "skip"):
        yield _vector(build, f"{path}.{name}", N)
    if mixer.norm_groups is not None:
        yield _vector(build, f"{path}.norm", inner, "weight")
    bias = mixer.bias if mixer.output_bias is None else mixer.output_bias
    yield from build.linear(f"{path}.output", (config.hidden_size, 1), bias=bias)


def _selective_scan(
    config: ModelConfig, mixer: SelectiveScan, build: Builder, path: str
) -> Iterator[Entry]:
    V, S, R = mixer.inner, mixer.state_size, mixer.rank
    yield from build.linear(f"{path}.input", (2 * V, 1), bias=mixer.bias)
    yield from _conv(V, mixer.conv_bias, build, f"{path}.conv")
    yield from build.linear(f"{path}.select", (R + 2 * S, 1), bias=False)
    if mixer.norms == "weighted":
        for name, size in (("step_norm", R), ("key_norm", S), ("query_norm", S)):
            yield _vector(build, f"{path}.{name}", size, "weight")
    yield from build.linear(f"{path}.step", (V, 1), bias=False)
    yield f"{path}.step_bias", Source(build.parts(f"{path}.step", ((V, 1),), "bias"))
    yield _vector(build, f"{path}.skip", V)
    name, logarithms = _vector(build, f"{path}.matrix", V)
    yield name, replace(logarithms, exponents=True)
    yield from build.linear(f"{path}.output", (config.hidden_size, 1), bias=mixer.bias)


def _linear_recurrence(
    config: ModelConfig, mixer: LinearRecurrence, build: Builder, path: str
) -> Iterator[Entry]:
    C, gate = mixer.inner, (mixer.block_size, 1)
    for leaf, source in build.linear(f"{path}.input", (C, 1), (C, 1), bias=True):
        yield leaf, replace(source, divided=False)
    yield from _conv(C, True, build, f"{path}.conv")
    for name, axis in (("gates", 2), ("gate_bias", 1)):
        yield f"{path}.{name}", Source(build.parts(f"{path}.{name}", (gate, gate), ""), axis)
    yield _vector(build, f"{path}.rate", C)
    yield from build.linear(f"{path}.output", (config.hidden_size, 1), bias=True)


def _gated_delta(
    config: ModelConfig, mixer: GatedDelta, build: Builder, path: str
) -> Iterator[Entry]:
    N, J, inner = mixer.num_heads, mixer.num_key_heads, mixer.inner
    keys, values, each = (J, mixer.key_dim), (J, inner // J), (J, N // J)
    apart = mixer.grouped or mixer.conv_parts is not None
    read = (keys, keys, values, values) if apart else ((mixer.conv_channels, 1), (inner, 1))
    for name, outputs in (("input", read), ("rates", (each, each))):
        for leaf, source in build.linear(f"{path}.{name}", *outputs, bias=False):
            parts = _by_group(source.parts) if mixer.grouped else source.parts
            yield leaf, replace(source, parts=parts, divided=False)
    channels = mixer.conv_parts or (mixer.conv_channels,)
    kernel = build.parts(f"{path}.conv", tuple((size, 1) for size in channels), "weight")
    yield f"{path}.conv.kernel", Source(kernel, 1, transpose=True, between=True)
    for name in ("step_bias", "log_rate"):
        yield _vector(build, f"{path}.{name}", N)
    yield _vector(build, f"{path}.norm", mixer.head_dim, "weight")
    yield from build.linear(f"{path}.output", (config.hidden_size, 1), bias=False)


def _keyed_delta(
    config: ModelConfig, mixer: KeyedDelta, build: Builder, path: str
) -> Iterator[Entry]:
    N, H = mixer.num_heads, mixer.head_dim
    heads, few = (N, H), (H, 1)
    for leaf, source in build.linear(f"{path}.input", heads, heads, heads, few, few, bias=False):
        yield leaf, replace(source, divided=False)
    yield from build.linear(f"{path}.rates", (N, 1), bias=False)
    kernel = build.parts(f"{path}.conv", (heads, heads, heads), "weight")
    yield f"{path}.conv.kernel", Source(kernel, 1, transpose=True, between=True)
    for name in ("decay", "gate"):
        yield from build.linear(f"{path}.{name}", heads, bias=False)
    yield _vector(build, f"{path}.step_bias", mixer.inner)
    rate = build.parts(f"{path}.log_rate", ((N, 1),), "")
    yield f"{path}.log_rate", Source(rate, axis=1, entry=0)  # [1, 1, N, 1] in checkpoints
    yield _vector(build, f"{path}.norm", H, "weight")
    yield from build.linear(f"{path}.output", (config.hidden_size, 1), bias=False)


def _by_group(parts: tuple[Part, ...]) -> tuple[Part, ...]:
    """Where the first units of all parts come before their second ones."""
    whole = sum(part.size for part in parts)
    starts = [sum(part.size for part in parts[:n]) for n in range(len(parts))]
    return tuple(
        replace(part, start=start, group=1, gap=whole - part.size)
        for part, start in zip(parts, starts, strict=True)
    )


def _conv(channels: int, bias: bool, build: Builder, path: str) -> Iterator[Entry]:
    """Checkpoints have it as [C, 1, W]."""
    kernel = build.parts(path, ((channels, 1),), "weight")
    yield f"{path}.kernel", Source(kernel, 1, transpose=True, between=True)
    if bias:
        yield f"{path}.bias", Source(build.parts(path, ((channels, 1),), "bias"))


def _vector(build: Builder, path: str, size: int, leaf: str = "") -> tuple[str, Source]:
    name = f"{path}.{leaf}" if leaf else path
    return name, Source(build.parts(path, ((size, 1),), leaf))
