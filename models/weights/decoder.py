"""Which parameters a decoder has, and from which tensors of a checkpoint each is made.

Owns our side: one line a module, in the order of `decoder.py`. The checkpoint's names come from the
files in `architectures/`.
"""

from collections.abc import Iterator
from dataclasses import replace
from functools import partial

from models.config.decoder import (
    AltUp,
    Latent,
    LatentIndex,
    LayerKind,
    Mixture,
    ModelConfig,
    QKNorm,
)
from models.weights.mixers import mixer_entries
from models.weights.modules import Entry, Modules, Outputs
from models.weights.shared_blocks import use_entries
from models.weights.sources import Names, Part, Source, Stack, WeightMap
from pallas_kernels.moe import num_parts

BUFFERS = ("*.rotary_emb.inv_freq",)  # what early versions of transformers saved besides


def weight_map(
    config: ModelConfig,
    names: Names,
    *,
    transpose: bool = True,
    grouped: bool = False,
    paired: bool = False,
    expert_rows: bool = False,
    expert_columns: bool = False,
    ignored: tuple[str, ...] = (),
    optional_prefix: str = "model.",
) -> WeightMap:
    """Sources of all parameters of `config`'s decoder under the checkpoint's `names`.

    Args:
        transpose: the layers' kernels are stored [out, in] (all families but GPT-2). Tensors of all
            experts are [experts, in, out], with the columns of gate and up in turns (gpt-oss).
        grouped: one tensor has the queries, the key and the value of one key/value head after
            another (GPT-NeoX, Falcon).
        paired: rotated pairs are neighbours in a head (Cohere, GLM), and not its two halves. Ours
            always are: a score is the same sum, in another order. Of latent attention this is said
            of its index: of latents `Latent.paired` says it.
        expert_rows: tensors of all experts are [experts, out, in] instead, with the outputs of gate
            before those of up, and `names` has their whole names (Granite).
        expert_columns: they are [experts, in, out], in the same order (Llama 4).
        ignored: further tensors that a checkpoint of this family may hold and that are not needed.
    """
    ignored = (*ignored, *BUFFERS)
    build = Modules(names, transpose, grouped, paired, expert_rows, expert_columns)
    sources = dict(_decoder(config, build))
    copies = {}
    if config.tied_head:
        copies = {f"{names['head']}.weight": f"{names['embedding']}.weight"}
    return WeightMap(sources, (*ignored, *copies), optional_prefix, copies)


def prefixed(names: Names, prefix: str, instead_of: str = "") -> Names:
    """The same modules of a checkpoint that holds more than this decoder."""

    def inner(name: str) -> str:
        if not name.startswith(instead_of):
            return name
        return prefix + name.removeprefix(instead_of)

    return {
        path: inner(name) if isinstance(name, str) else tuple(map(inner, name))
        for path, name in names.items()
    }


def _decoder(config: ModelConfig, build: Modules) -> Iterator[Entry]:
    """Every parameter of the decoder, in the order of the computation."""
    vocabulary, width = (config.vocab_size, 1), (config.hidden_size, 1)
    yield build.embedding("embedding", vocabulary)
    if config.embedding_size is not None:
        yield from build.linear("project_in", width, bias=False)
        yield from build.linear("project_out", (config.embedding_size, 1), bias=False)
    if config.learned_positions:
        rows = config.max_position_embeddings + config.position_offset
        yield build.embedding("position_embedding", (rows, 1))
    if config.embedding_norm:
        yield from build.norm("embedding_norm", width, bias=config.norm_bias)
    if config.relative and not config.relative.by_layer:
        yield build.embedding("relative_bias", (config.relative.buckets, 1))
    if config.layer_inputs is not None:
        P = config.layer_inputs.size
        yield build.embedding("layer_inputs.table", (config.layer_inputs.table_rows, 1))
        yield from build.linear("layer_inputs.projection", (config.num_layers * P, 1), bias=False)
        yield from build.norm("layer_inputs.norm", (P, 1), bias=False)
    if config.altup is not None:
        yield from _streams(config, config.altup, build)
    for number, index in enumerate(config.first_block_layers):
        yield from _block(config, build.for_use(config, index), f"blocks.{number}")
    for index in range(config.num_layers):
        yield from _layer(config, build, f"layers.{index}")
    if not config.norm_sums:
        yield from build.norm("norm", width, weight=config.norm_weight, bias=config.norm_bias)
    if not config.tied_head:
        head = build.parts("head", (vocabulary,), "weight")
        yield "head.kernel", Source(head, axis=1, transpose=True, unit=config.head_unit)
        if config.head_bias:
            yield "head.bias", Source(build.parts("head", (vocabulary,), "bias"))


def _layer(config: ModelConfig, build: Modules, layer: str) -> Iterator[Entry]:
    index = int(layer.split(".")[1])
    kind = config.layer_kinds[index]
    norm = partial(
        build.norm, outputs=(config.hidden_size, 1),
        weight=config.norm_weight, bias=config.norm_bias,
    )  # fmt: skip

    mixes = kind.attention or kind.mixer
    if config.norms_before(kind) and mixes:
        yield from norm(f"{layer}.attention_norm")
    if kind.mixer and config.mixer is not None:
        yield from mixer_entries(config, config.mixer, build, f"{layer}.mixer")
    if kind.block and config.blocks is not None:
        using = build.for_use(config, index)
        yield from use_entries(config, config.blocks, using, f"{layer}.use")
    if not kind.attention or kind.block:
        pass
    elif config.latent is None:
        yield from _attention(config, kind, build, f"{layer}.attention")
    else:
        yield from _latent(config, config.latent, build, f"{layer}.attention")
        if config.latent.index is not None and not kind.chosen_before:
            rotated, path = config.latent.rope_dim, f"{layer}.attention.indexer"
            yield from _indexer(config.latent.index, rotated, build, path)
    if config.norms_behind(kind) and mixes:
        yield from norm(f"{layer}.attention_post_norm")
    if config.relative and config.relative.by_layer:
        yield build.embedding(f"{layer}.relative_bias", (config.relative.buckets, 1))
    if config.encoder is not None:
        yield from norm(f"{layer}.cross_norm")
        yield from _cross_attention(config, build, f"{layer}.cross")
    if not kind.mlp:
        return
    if config.norms_before(kind) and config.parallel != "one norm":
        yield from norm(f"{layer}.mlp_norm")
    mixture = config.mixture if kind.experts else None
    if mixture is None or mixture.beside_mlp:
        yield from _mlp(config, kind.mlp_size or config.intermediate_size, build, f"{layer}.mlp")
    if mixture is not None and mixture.beside_mlp:
        for name in ("mlp_own_norm", "beside.norm", "beside.post_norm"):
            yield from norm(f"{layer}.{name}")
        yield from _mixture(config, mixture, build, f"{layer}.beside.experts")
    elif mixture is not None:
        yield from _mixture(config, mixture, build, f"{layer}.mlp")
    if config.norms_behind(kind):
        yield from norm(f"{layer}.mlp_post_norm")
    if config.altup is not None:
        yield from _alternation(config, config.altup, build, layer)
    if config.layer_inputs is not None:
        width, path = (config.hidden_size, 1), f"{layer}.input_gate"
        yield from build.linear(f"{path}.gate", (config.layer_inputs.size, 1), bias=False)
        yield from build.linear(f"{path}.project", width, bias=False)
        yield from norm(f"{path}.norm")
    if config.layer_scale:
        yield f"{layer}.scale", Source(build.parts(f"{layer}.scale", ((1, 1),), ""))


def _block(config: ModelConfig, build: Modules, path: str) -> Iterator[Entry]:
    kind = config.layer_kinds[config.block_layers[0]]
    yield from build.norm(f"{path}.norm", (config.attended_size, 1), bias=False)
    yield from _attention(config, kind, build, f"{path}.attention")
    yield from build.norm(f"{path}.mlp_norm", (config.hidden_size, 1), bias=False)
    yield from _mlp(config, config.intermediate_size, build, f"{path}.mlp")


def _streams(config: ModelConfig, altup: AltUp, build: Modules) -> Iterator[Entry]:
    for name in ("spread", "gather"):
        for stream in range(altup.streams - 1):
            path = f"streams.{name}.{stream}"
            yield from build.linear(path, (config.hidden_size, 1), bias=False)


def _alternation(config: ModelConfig, altup: AltUp, build: Modules, layer: str) -> Iterator[Entry]:
    width, path, S = (config.hidden_size, 1), f"{layer}.altup", altup.streams
    yield from build.linear(f"{layer}.laurel.left", (altup.laurel_rank, 1), bias=False)
    yield from build.linear(f"{layer}.laurel.right", width, bias=False)
    yield from build.norm(f"{layer}.laurel.norm", width, bias=False)
    for name, count in {"router": S, "prediction": S * S, "correction": S}.items():
        yield from build.linear(f"{path}.{name}", (count, 1), bias=False)
    yield from build.norm(f"{path}.router_norm", width, bias=False)
    if altup.scaled:
        yield f"{path}.scale", Source(build.parts(f"{path}.scale", (width,), ""))


def _attention(config: ModelConfig, kind: LayerKind, build: Modules, path: str) -> Iterator[Entry]:
    rotated = kind.rope.dim if kind.rope is not None else 0
    key, shared = config.kv_heads_of(kind), kind.shared
    query = (config.num_heads, key[1])
    if shared:
        yield from build.linear(f"{path}.q", query, bias=config.qkv_bias)
    name, outputs = ("qk", (query, key)) if kind.keys_as_values else ("qkv", (query, key, key))
    fused = () if shared else build.linear(f"{path}.{name}", *outputs, bias=config.qkv_bias)
    for name, source in fused:
        parts = build.heads(source.parts, rotated)
        if config.output_gate:
            parts, gate = _gated(parts)
            yield name.replace(".qkv.", ".gate."), replace(source, parts=gate, divided=False)
        yield name, replace(source, parts=parts)
    if config.qk_norm and config.qk_norm.weight:
        for name, heads in (("q_norm", query), ("k_norm", key))[: 1 if shared else 2]:
            yield from _qk_norm(config.qk_norm, heads, rotated, build, f"{path}.{name}")
    if config.sinks:
        yield f"{path}.sinks", Source(build.parts(f"{path}.sinks", ((config.num_heads, 1),), ""))
    yield from build.linear(f"{path}.o", (config.hidden_size, 1), bias=config.o_bias)


def _gated(parts: tuple[Part, ...]) -> tuple[tuple[Part, ...], tuple[Part, ...]]:
    """Each head's query and gate follow each other in one tensor."""
    query, *others = parts
    size = query.size
    query = replace(query, group=1, gap=size, whole=2 * query.units * size)
    return (query, *others), (replace(query, start=size),)


def _cross_attention(config: ModelConfig, build: Modules, path: str) -> Iterator[Entry]:
    query, key = (config.num_heads, config.head_dim), (config.num_kv_heads, config.head_dim)
    yield from build.linear(f"{path}.q", query, bias=config.qkv_bias)
    yield from build.linear(f"{path}.kv", key, key, bias=config.qkv_bias)
    yield from build.linear(f"{path}.o", (config.hidden_size, 1), bias=config.o_bias)


def _qk_norm(
    kind: QKNorm, heads: Outputs, rotated: int, build: Modules, path: str
) -> Iterator[Entry]:
    """Weights of one head, of each, or of all in a row; in pairs as the heads themselves."""
    one, pairs = (1, heads[1]), rotated if build.paired else 0
    for leaf in ("weight", "bias") if kind.bias else ("weight",):
        if kind.over == "heads":
            yield f"{path}.{leaf}", build.each_head(path, heads, leaf, pairs)
        else:
            whole = kind.over == "width"
            (part,) = build.parts(path, (heads if whole else one,), leaf)
            yield f"{path}.{leaf}", Source((replace(part, paired=pairs),), divided=whole)


def _latent(config: ModelConfig, latent: Latent, build: Modules, path: str) -> Iterator[Entry]:
    N, bias, rank = config.num_heads, config.qkv_bias, (latent.rank, 1)
    if latent.query_rank is not None:
        yield from build.linear(f"{path}.q_down", (latent.query_rank, 1), bias=bias)
        yield from build.norm(f"{path}.q_norm", (latent.query_rank, 1), bias=False)
    width = latent.key_dim + latent.rope_dim
    parts = build.parts(f"{path}.q_up", ((N, width),), "weight")
    heads = [
        part
        for head in range(N)
        for part in _unrotated_first(parts[0].tensor, head * width, latent.key_dim, latent)
    ]
    yield f"{path}.q_up.kernel", Source(tuple(heads), 1, transpose=True)
    for leaf, axis in (("kernel", 1), ("bias", 0)) if bias else (("kernel", 1),):
        name = build.parts(f"{path}.kv_down", (rank,), {"kernel": "weight"}.get(leaf, leaf))
        down = _unrotated_first(name[0].tensor, 0, latent.rank, latent)
        yield f"{path}.kv_down.{leaf}", Source(down, axis, transpose=axis == 1)
    yield from build.norm(f"{path}.kv_norm", rank, bias=False)
    (up,) = build.parts(f"{path}.kv_up", (rank,), "weight")
    size = latent.key_dim + latent.value_dim
    keys = [Part(up.tensor, latent.key_dim, start=n * size) for n in range(N)]
    values = [Part(up.tensor, latent.value_dim, start=n * size + latent.key_dim) for n in range(N)]
    every = N * size
    yield f"{path}.key_up", Stack(tuple(Source((one,), outputs_of=every) for one in keys))
    turned = tuple(Source((one,), 1, transpose=True, outputs_of=every) for one in values)
    yield f"{path}.value_up", Stack(turned)
    yield from build.linear(f"{path}.o", (config.hidden_size, 1), bias=config.o_bias)


def _indexer(index: LatentIndex, rotated: int, build: Modules, path: str) -> Iterator[Entry]:
    """Queries, the key and its norm, in pairs all of them if one is."""
    pairs, key = rotated if build.paired else 0, (1, index.dim)
    for name, heads in (("q", (index.heads, index.dim)), ("k", key)):
        (part,) = build.parts(f"{path}.{name}", (heads,), "weight")
        yield f"{path}.{name}.kernel", Source((replace(part, paired=pairs),), 1, transpose=True)
    for leaf in ("weight", "bias"):
        (part,) = build.parts(f"{path}.k_norm", (key,), leaf)
        yield f"{path}.k_norm.{leaf}", Source((replace(part, paired=pairs),))
    yield from build.linear(f"{path}.weights", (index.heads, 1), bias=False)


def _unrotated_first(tensor: str, start: int, plain: int, latent: Latent) -> tuple[Part, ...]:
    """Outputs of which the last are rotated, mostly in pairs of neighbours: ours are halves."""
    pairs, rotated = start + plain, latent.rope_dim
    if not latent.paired:
        return (Part(tensor, plain + rotated, start=start),)
    return (
        Part(tensor, plain, start=start),
        Part(tensor, rotated // 2, start=pairs, step=2),
        Part(tensor, rotated // 2, start=pairs + 1, step=2),
    )


def _mlp(config: ModelConfig, size: int, build: Modules, path: str) -> Iterator[Entry]:
    inner = (size, 1)
    if config.gated_mlp:
        yield from build.linear(f"{path}.gate_up", inner, inner, bias=config.mlp_bias)
    else:
        yield from build.linear(f"{path}.up", inner, bias=config.mlp_bias)
        for leaf in ("alpha_p", "alpha_n") if config.activation == "xielu" else ():
            name = f"{path}.activation"
            yield f"{name}.{leaf}", Source(build.parts(name, ((1, 1),), leaf))
    yield from build.linear(f"{path}.down", (config.hidden_size, 1), bias=config.mlp_bias)


def _mixture(config: ModelConfig, mixture: Mixture, build: Modules, path: str) -> Iterator[Entry]:
    D, E, F = config.hidden_size, mixture.num_experts, mixture.intermediate_size
    M, parts = mixture.latent_size or D, ((F, 1),) * num_parts(mixture.activation)
    if mixture.beside_mlp:
        for name, size in (("router_norm.weight", D), ("choice_scale", E)):
            yield f"{path}.{name}", Source(build.parts(f"{path}.{name}", ((size, 1),), ""))
    yield from build.linear(f"{path}.router", (E, 1), bias=mixture.bias)
    if mixture.choice_bias:
        name = f"{path}.choice_bias"
        yield name, Source(build.parts(name, ((E, 1),), ""))
    for name, outputs in (("gate_up", parts), ("down", ((M, 1),))):
        yield f"{path}.{name}", build.experts(f"{path}.experts.{name}", E, outputs, "weight")
        if mixture.bias:
            bias = build.experts(f"{path}.experts.{name}", E, outputs, "bias")
            yield f"{path}.{name}_bias", bias
    if mixture.shared_size:
        yield from _mlp(config, mixture.shared_size, build, f"{path}.shared")
    if mixture.shared_gate:
        yield from build.linear(f"{path}.shared_gate", (1, 1), bias=False)
    if mixture.latent_size:
        yield from build.linear(f"{path}.squeeze", (M, 1), bias=False)
        yield from build.linear(f"{path}.expand", (D, 1), bias=False)
