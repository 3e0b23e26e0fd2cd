"""Which parameters a decoder has, and from which tensors of a checkpoint each is made.

Owns our side: one line a module, in the order of `decoder.py`. The checkpoint's names come from the
files in `architectures/`.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import accumulate

from models.config import ModelConfig
from models.weights import Part, Source, WeightMap

# Our module -> the checkpoint's, * the layer: "layers.*.mlp.up" -> "transformer.h.*.mlp.c_fc".
# A fused module has a tuple of names, or one name where the checkpoint has it fused as well.
Names = Mapping[str, str | tuple[str, ...]]
Entry = tuple[str, Source]
Outputs = tuple[int, int]  # units, and outputs of each

BUFFERS = ("*.rotary_emb.inv_freq",)  # what early versions of transformers saved besides


def weight_map(
    config: ModelConfig,
    names: Names,
    *,
    transpose: bool = True,
    ignored: tuple[str, ...] = (),
    optional_prefix: str = "model.",
) -> WeightMap:
    """Sources of all parameters of `config`'s decoder under the checkpoint's `names`.

    Args:
        transpose: the layers' kernels are stored [out, in] (all families but GPT-2).
        ignored: further tensors that a checkpoint of this family may hold and that are not needed.
    """
    ignored = (*ignored, *BUFFERS)
    sources = dict(_decoder(config, _Builder(names, transpose)))
    if config.tied_head:
        ignored = (*ignored, f"{names['head']}.weight")
    return WeightMap(sources, ignored, optional_prefix)


def _decoder(config: ModelConfig, build: "_Builder") -> Iterator[Entry]:
    """Every parameter of the decoder, in the order of the computation."""
    vocabulary, width = (config.vocab_size, 1), (config.hidden_size, 1)
    yield build.embedding("embedding", vocabulary)
    if config.learned_positions:
        yield build.embedding("position_embedding", (config.max_position_embeddings, 1))
    for index in range(config.num_layers):
        yield from _layer(config, build, f"layers.{index}")
    yield from build.norm("norm", width, bias=config.norm == "layer")
    if not config.tied_head:
        head = build.parts("head", (vocabulary,), "weight")
        yield "head.kernel", Source(head, axis=1, transpose=True)


def _layer(config: ModelConfig, build: "_Builder", layer: str) -> Iterator[Entry]:
    query, key = (config.num_heads, config.head_dim), (config.num_kv_heads, config.head_dim)
    width, inner = (config.hidden_size, 1), (config.intermediate_size, 1)
    norm_bias = config.norm == "layer"

    yield from build.norm(f"{layer}.attention_norm", width, bias=norm_bias)
    yield from build.linear(f"{layer}.attention.qkv", query, key, key, bias=config.qkv_bias)
    if config.qk_norm:
        yield from build.norm(f"{layer}.attention.q_norm", (config.head_dim, 1), bias=norm_bias)
        yield from build.norm(f"{layer}.attention.k_norm", (config.head_dim, 1), bias=norm_bias)
    yield from build.linear(f"{layer}.attention.o", width, bias=config.o_bias)
    if config.post_norms:
        yield from build.norm(f"{layer}.attention_post_norm", width, bias=norm_bias)
    yield from build.norm(f"{layer}.mlp_norm", width, bias=norm_bias)
    if config.gated_mlp:
        yield from build.linear(f"{layer}.mlp.gate_up", inner, inner, bias=config.mlp_bias)
    else:
        yield from build.linear(f"{layer}.mlp.up", inner, bias=config.mlp_bias)
    yield from build.linear(f"{layer}.mlp.down", width, bias=config.mlp_bias)
    if config.post_norms:
        yield from build.norm(f"{layer}.mlp_post_norm", width, bias=norm_bias)


@dataclass(frozen=True)
class _Builder:
    """Turns one module of the decoder into the entries of its parameters."""

    names: Names
    transpose: bool

    def embedding(self, path: str, rows: Outputs) -> Entry:
        return path, Source(self.parts(path, (rows,), "weight"))

    def norm(self, path: str, outputs: Outputs, *, bias: bool) -> Iterator[Entry]:
        for leaf in ("weight", "bias") if bias else ("weight",):
            yield f"{path}.{leaf}", Source(self.parts(path, (outputs,), leaf))

    def linear(self, path: str, *outputs: Outputs, bias: bool) -> Iterator[Entry]:
        divided = len(outputs) > 1
        kernel = self.parts(path, outputs, "weight")
        yield f"{path}.kernel", Source(kernel, 1, self.transpose, divided)
        if bias:
            yield f"{path}.bias", Source(self.parts(path, outputs, "bias"), divided=divided)

    def parts(self, path: str, outputs: tuple[Outputs, ...], leaf: str) -> tuple[Part, ...]:
        """The tensors of a module: one for each output, or one in which they follow each other."""
        layer = path.split(".")[1] if "." in path else ""
        name = self.names[path.replace(f".{layer}.", ".*.")]
        if isinstance(name, tuple):
            tensors = [(one, 0) for one in name]
        else:
            lengths = [units * size for units, size in outputs]
            tensors = [(name, start) for start in accumulate(lengths[:-1], initial=0)]
        return tuple(
            Part(f"{tensor.replace('*', layer)}.{leaf}", units, size, start)
            for (tensor, start), (units, size) in zip(tensors, outputs, strict=True)
        )
