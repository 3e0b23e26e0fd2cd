"""The normalised description of a decoder: every switch that `decoder.py` knows.

Made once from a checkpoint's config.json by the family's file in `architectures/`, which reads each
value through `fields.py`. Knows no JSON key and no family.
"""

from collections import Counter
from dataclasses import dataclass
from typing import Literal

from models.config.encoder import EncoderConfig
from models.config.mixers import Mixer
from models.errors import CheckpointError, UnsupportedError
from models.layers.relative_bias import RelativeBias
from models.layers.rope import Dynamic, Linear, RopeConfig, Yarn

Heads = tuple[int, int]  # K and H


@dataclass(frozen=True)
class LayerKind:
    """What may differ between the layers of one model; equal kinds share one traced program.

    window: a query at position p sees the keys at p - window + 1 .. p; None sees all up to p.
    rope: how this layer rotates queries and keys; None where positions are learned embeddings.
    experts: the model's mixture of experts is in the place of the MLP.
    chunk: a query sees only keys of its own chunk of so many positions; None sees all of them.
    attention, mixer, mlp: what the layer has; the first two read the same and are added.
    sparsity: so many of an MLP's gates are cut to 0, as a share of a normal distribution.
    shared: keys and values are those of the last layer before that has its own and this window.
    block: the attention is that of a block whose weights several layers have (`SharedBlocks`).
    chosen_before: it sees those latents that the layer before it sees, and chooses none itself.
    head_dim, kv_heads, mlp_size: its H, K and F, where they are not the model's.
    keys_as_values: values are the keys as they come, before their norm and rotation.
    norms: where those of this layer stand, if not where the model's others do.
    """

    window: int | None = None
    rope: RopeConfig | None = None
    experts: bool = False
    chunk: int | None = None
    attention: bool = True
    mixer: bool = False
    mlp: bool = True
    sparsity: float = 0.0
    shared: bool = False
    block: bool = False
    chosen_before: bool = False
    head_dim: int | None = None
    kv_heads: int | None = None
    mlp_size: int | None = None
    keys_as_values: bool = False
    norms: Literal["before", "behind"] | None = None


@dataclass(frozen=True)
class Mixture:
    """E experts, of which each token goes to k: who is chosen, and how much each counts.

    Scores are a softmax or sigmoid of the router's logits. With `choice_bias` a vector is added for
    the choice only. Of `groups` of experts those `kept_groups` are chosen from whose best
    `best_in_group` scores sum highest. The k weights sum to 1 if `renormalize`, then are scaled.
    With `rivals` none of this holds: the choice is `pallas_kernels.moe.sparse_mixer`'s.
    """

    num_experts: int  # E
    per_token: int  # k
    intermediate_size: int  # of one expert
    score: Literal["softmax", "sigmoid"] = "softmax"
    renormalize: bool = True
    scale: float = 1.0
    choice_bias: bool = False
    groups: int = 1
    kept_groups: int = 1
    best_in_group: int = 2
    rivals: float | None = None
    activation: str = "silu"  # a name of pallas_kernels.moe's
    bias: bool = False  # of the router and of the experts
    weigh_inputs: bool = False  # weights multiply what experts read, and not what they give
    shared_size: int = 0  # intermediate size of the MLP that every token goes through; 0 is none
    shared_gate: bool = False  # its output is multiplied by sigmoid(x w)
    shared_mean: bool = False  # it and the experts are averaged, not added
    latent_size: int | None = None  # experts read and give so many numbers, projected from and to D
    beside_mlp: bool = False  # added to a layer's MLP, each of the two between norms of its own
    # of `beside_mlp`: the router reads x through a norm, and weights are scaled expert by expert

    @property
    def choice_dtype(self) -> Literal["uint8", "uint16"]:
        """The smallest in which every expert has a number."""
        return "uint8" if self.num_experts <= 256 else "uint16"


@dataclass(frozen=True)
class LatentIndex:
    """A token sees the `top` latents before it whose index keys score highest, and no others.

    Source: DeepSeek-V3.2, arXiv 2512.02556.
    """

    heads: int  # I
    dim: int  # E, of an index key and of each of the I queries for it
    top: int


@dataclass(frozen=True)
class Latent:
    """Keys and values of all heads as one compressed vector a token (MLA).

    Source: DeepSeek-V2, arXiv 2405.04434. A head's key is `key_dim` numbers made from the
    compressed ones, and `rope_dim` that are rotated and common to all heads.
    """

    query_rank: int | None  # queries are made from a compressed vector too, of this size
    rank: int  # of keys and values
    key_dim: int
    rope_dim: int
    value_dim: int
    index: LatentIndex | None = None
    paired: bool = True  # of checkpoints: neighbours are rotated together, and not two halves


@dataclass(frozen=True)
class ScoreGrowth:
    """Scores of a query at position p are multiplied by 1 + beta log(1 + floor(p / trained)).

    p is counted from `offset`. Without `rotated` this is so in layers without positions only.

    Source: Llama 4's published model code.
    """

    beta: float
    trained: int
    offset: int = 0
    rotated: bool = True


@dataclass(frozen=True)
class LayerInputs:
    """What each layer is given of each token besides hidden states.

    Source: Gemma 3n's published model code.
    """

    size: int  # P, numbers of each layer and token, from a table of its own
    table_rows: int  # tokens that it knows


@dataclass(frozen=True)
class AltUp:
    """Streams of hidden states of which a layer computes one.

    Source: arXiv 2301.13310; Gemma 3n's published model code.
    """

    streams: int  # S
    active: int  # the one that is computed
    laurel_rank: int
    scaled: bool  # the computed stream is scaled before its input is added


@dataclass(frozen=True)
class SharedBlocks:
    """Attention and MLP whose weights several layers have in common; they take them in turns.

    A block reads a layer's input and the embeddings side by side, 2 D numbers, and what it gives is
    added to what the layer's mixer reads. Keys and values each layer has of its own, and matrices
    of low rank beside the block's.

    Source: Zamba2, arXiv 2411.15242.
    """

    count: int
    rank: int
    adapted_heads: bool = False  # queries, keys and values have such matrices, and not the MLP only


@dataclass(frozen=True)
class QKNorm:
    """How queries and keys are normed: each head by itself, or `width`, all of them at once.

    With `head` one vector of weights serves all heads, with `heads` each has its own.
    """

    over: Literal["head", "heads", "width"] = "head"
    norm: Literal["rms", "layer"] = "rms"
    bias: bool = False
    rotated: bool = False  # heads are rotated first
    weight: bool = True  # there are weights; without them all are 1
    unrotated: bool = True  # layers that do not rotate have it as well


@dataclass(frozen=True)
class ModelConfig:
    """A decoder.

    Raises:
        CheckpointError: query heads are no multiple of key/value heads, or a layer has experts and
            the model has none.
    """

    architecture: str  # "LlamaForCausalLM"
    vocab_size: int  # V
    hidden_size: int  # D
    intermediate_size: int  # F
    num_heads: int  # N
    num_kv_heads: int  # K
    head_dim: int  # H
    max_position_embeddings: int  # tokens the model was made for
    context_length: int  # tokens it is run with: the former, unless `dataclasses.replace`d
    layer_kinds: tuple[LayerKind, ...]  # one a layer

    activation: str = "silu"  # a name of layers.ACTIVATIONS, or xielu
    gated_mlp: bool = True  # down(act(gate(x)) * up(x)), or down(act(up(x)))
    mlp_scales: tuple[float, float] = (1.0, 1.0)  # of gate(x), and of what is added
    norm: Literal["rms", "layer"] = "rms"
    norm_eps: float = 1e-6
    norm_offset: bool = False  # weights are stored as w - 1 (Gemma)
    norm_weight: bool = True
    norm_bias: bool = False
    pre_norms: bool = True  # a norm before attention and before the MLP
    post_norms: bool = False  # a norm behind each of them, before the residual sum
    # attention and MLP read the same x, through a norm that they share or each through its own
    parallel: Literal["one norm", "two norms"] | None = None
    norm_sums: bool = False  # x = norm(x + f(x)), and no norm at the end
    residual_scale: float = 1.0  # of what attention and MLP add
    qk_norm: QKNorm | None = None
    value_norm: bool = False  # of each head, without weights
    layer_inputs: LayerInputs | None = None
    altup: AltUp | None = None  # with layer_inputs
    layer_scale: bool = False  # what a layer hands on is multiplied by a number of its own
    qkv_clip: float | None = None  # queries, keys and values are cut to -c .. c
    qkv_bias: bool = False
    o_bias: bool = False
    mlp_bias: bool = False
    latent: Latent | None = None  # then K = 1 and H = rank + rope_dim: what lies in pages
    slopes: tuple[float, ...] | None = None  # of heads: times distance, added to scores (ALiBi)
    sinks: bool = False  # a logit a head that takes part in the softmax and has no value
    output_gate: bool = False  # what heads give is multiplied by sigmoid(x w)
    attention_output_scale: float = 1.0  # of what attention adds
    mixer: Mixer | None = None  # in the layers whose kind says so
    mixture: Mixture | None = None  # in the layers whose kind says so
    blocks: SharedBlocks | None = None  # of the layers whose kind says so

    learned_positions: bool = False
    position_offset: int = 0  # rows of their table before that of position 0
    embedding_size: int | None = None  # of a token, where it is projected to D, and D back to it
    embedding_scale: float = 1.0
    scales_given: bool = False  # embeddings that a prompt brings too: its layer does not scale them
    embedding_norm: bool = False
    attention_scale: float | None = None  # of scores q.k; None is 1 / sqrt(H)
    score_growth: ScoreGrowth | None = None
    scale_by_layer: bool = False  # scores of layer i are divided by i + 1 (an option of GPT-2)
    attention_softcap: float | None = None  # scores become c tanh(scores / c)
    logit_scale: float = 1.0
    logit_softcap: float | None = None
    tied_head: bool = False  # logits come from the embedding matrix
    head_bias: bool = False
    head_unit: bool = False  # rows of the head are used as vectors of length 1

    bos_token_id: int | None = None
    eos_token_ids: tuple[int, ...] = ()

    # of a model whose decoder attends to what an encoder read (`models/encoder_decoder.py`) only
    encoder: EncoderConfig | None = None
    decoder_prompt: tuple[int, ...] = ()  # what its decoder's text begins with
    key_bias: bool = True  # if queries and values have one
    relative: RelativeBias | None = None  # of the decoder's attention to itself

    def __post_init__(self) -> None:
        for kv_heads in self._kv_heads():
            if self.num_heads % kv_heads:
                raise CheckpointError(
                    f"config.json has {self.num_heads} attention heads and {kv_heads} "
                    "key/value heads; the first must be a multiple of the second."
                )
        if self.mixture is None and any(kind.experts for kind in self.layer_kinds):
            raise CheckpointError("config.json has layers of experts and does not describe them.")
        if self.mixer is None and self.num_mixers:
            raise CheckpointError("config.json has layers with a state and does not describe them.")
        if self.blocks is None and self.block_layers:
            raise CheckpointError("config.json has layers of blocks and does not describe them.")
        if self.layer_kinds and self.layer_kinds[0].chosen_before:
            raise CheckpointError(
                "config.json has a first layer that sees what the layer before it has chosen."
            )
        if -1 in self.kv_places:
            raise CheckpointError(
                "config.json has layers that share keys and values with none before them."
            )

    @property
    def num_layers(self) -> int:
        """L."""
        return len(self.layer_kinds)

    @property
    def num_attentions(self) -> int:
        """Layers with keys and values of their own."""
        return sum(kind.attention and not kind.shared for kind in self.layer_kinds)

    @property
    def mixes_heads(self) -> bool:
        """Whether layers differ in the number or size of their key/value heads."""
        return len({self.kv_heads_of(kind) for kind in self.layer_kinds if kind.attention}) > 1

    @property
    def head_dims(self) -> tuple[int, ...]:
        """H of the layers that attend, each once; none where none does."""
        return tuple(sorted({self.kv_heads_of(k)[1] for k in self.layer_kinds if k.attention}))

    @property
    def kv_places(self) -> tuple[int, ...]:
        """For each layer, how many before have keys and values of their own and such heads; or, if
        it shares them, for the layer that it shares with (-1: there is none)."""
        own: dict[tuple[int | None, Heads], int] = {}
        count: Counter[Heads] = Counter()
        places = []
        for kind in self.layer_kinds:
            heads = self.kv_heads_of(kind)
            places.append(own.get((kind.window, heads), -1) if kind.shared else count[heads])
            if kind.attention and not kind.shared:
                own[kind.window, heads] = count[heads]
                count[heads] += 1
        return tuple(places)

    def kv_heads_of(self, kind: LayerKind) -> Heads:
        """K and H of such a layer."""
        return kind.kv_heads or self.num_kv_heads, kind.head_dim or self.head_dim

    @property
    def num_mixers(self) -> int:
        """Layers with a state."""
        return sum(kind.mixer for kind in self.layer_kinds)

    def norms_before(self, kind: LayerKind) -> bool:
        """Whether this layer norms what attention, mixer and MLP read."""
        return self.pre_norms if kind.norms is None else kind.norms == "before"

    def norms_behind(self, kind: LayerKind) -> bool:
        """Whether it norms what they give."""
        return self.post_norms if kind.norms is None else kind.norms == "behind"

    @property
    def block_layers(self) -> tuple[int, ...]:
        """The layers with a shared block; number n has that of number n - `blocks.count`."""
        return tuple(index for index, kind in enumerate(self.layer_kinds) if kind.block)

    @property
    def first_block_layers(self) -> tuple[int, ...]:
        """For each block, the first layer that has it."""
        return () if self.blocks is None else self.block_layers[: self.blocks.count]

    @property
    def attended_size(self) -> int:
        """How many numbers attention reads of a token."""
        return self.hidden_size if self.blocks is None else 2 * self.hidden_size

    @property
    def longest_context(self) -> int:
        """Tokens that its positions reach: those it was made for, or those they are scaled to."""
        made_for = self.max_position_embeddings
        scalings = [kind.rope.scaling for kind in self.layer_kinds if kind.rope is not None]
        reach = [round(s.factor * made_for) for s in scalings if isinstance(s, Linear)]
        reach += [round(s.factor * s.trained) for s in scalings if isinstance(s, Dynamic | Yarn)]
        return max([made_for, *reach])

    @property
    def score_scale(self) -> float:
        """What attention scores q.k are multiplied by."""
        return self.scale_of(self.head_dim)

    def scale_of(self, head_dim: int) -> float:
        """The same in a layer with heads of this size."""
        return head_dim**-0.5 if self.attention_scale is None else self.attention_scale

    def visible(self, window: int | None) -> int | None:
        """The window, or None where it is as wide as the context and so hides nothing."""
        return window if window is not None and window < self.context_length else None

    def cache_kv_heads(self, shards: int = 1, kind: LayerKind = LayerKind()) -> int:
        """K', the cached heads of a layer, of a model cut into `shards`: K, or a copy for each."""
        return max(self.kv_heads_of(kind)[0], shards)

    def check_shards(self, shards: int) -> None:
        """Raise UnsupportedError if heads, MLP or experts do not divide among that many shards."""
        if shards > 1 and not self.num_attentions:
            raise UnsupportedError(
                f"{self.architecture} has no attention heads that could be divided among "
                f"{shards} devices; use a tensor-parallel size of 1."
            )
        if not self._divides(shards):
            sizes = ", ".join(str(n) for n in range(1, self.num_heads + 1) if self._divides(n))
            mlps = " and ".join(f"{size} {what}" for size, what in self._divided().items())
            raise UnsupportedError(
                f"A tensor-parallel size of {shards} does not divide the {self.num_heads} query "
                f"heads, {self.num_kv_heads} key/value heads and {mlps} of {self.architecture}; "
                f"these sizes do: {sizes}."
            )

    def _kv_heads(self) -> set[int]:
        """K of all layers."""
        return {self.kv_heads_of(kind)[0] for kind in (LayerKind(), *self.layer_kinds)}

    def _divides(self, shards: int) -> bool:
        kv_heads = all(heads % shards == 0 or shards % heads == 0 for heads in self._kv_heads())
        sizes = (self.num_heads, *self._divided())
        return kv_heads and all(size % shards == 0 for size in sizes)

    def _divided(self) -> dict[int, str]:
        """What shards divide besides heads, by size."""
        beside = self.mixture is not None and self.mixture.beside_mlp
        dense = [
            kind
            for kind in self.layer_kinds
            if kind.block or (kind.mlp and (beside or not kind.experts))
        ]
        sizes = {kind.mlp_size or self.intermediate_size: "MLP dimensions" for kind in dense}
        if self.mixture is not None:
            sizes |= {self.mixture.num_experts: "experts"}
            if self.mixture.shared_size:
                sizes |= {self.mixture.shared_size: "dimensions of the shared expert"}
        return sizes
