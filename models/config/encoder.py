"""The normalised description of an encoder: every switch that `encoder.py` knows.

Made once from a checkpoint's config.json by the family's file in `architectures/`. Knows no JSON
key and no family.
"""

from dataclasses import dataclass
from typing import Literal

from models.checkpoints.sentence_transformers import Pooling
from models.errors import CheckpointError
from models.layers.relative_bias import RelativeBias
from models.layers.rope import RopeConfig


@dataclass(frozen=True)
class EncoderLayerKind:
    """What may differ between the layers of one encoder; equal kinds share one traced program.

    window: a token sees those at most so far away, before or behind it; None sees all.
    """

    window: int | None = None
    rope: RopeConfig | None = None


@dataclass(frozen=True)
class ClassifierHead:
    """What turns the pooled state into scores: norm(act(x W + b)), where there is one, then x W.

    `first` reads the vector before the classes: BERT's pooler, RoBERTa's dense.
    """

    num_labels: int
    first: str | None = None  # its activation, a name of encoder.HEAD_ACTIVATIONS
    first_bias: bool = True
    norm: bool = False
    bias: bool = True  # of the last product
    pooling: Pooling = "CLS"  # of the states that it was trained on


@dataclass(frozen=True)
class EncoderConfig:
    """An encoder: every token sees all of its sequence.

    Raises:
        CheckpointError: hidden_size does not divide into the heads.
    """

    architecture: str  # "BertModel"
    vocab_size: int  # V
    hidden_size: int  # D
    intermediate_size: int  # F
    num_heads: int  # N
    max_position_embeddings: int  # rows of the table of positions, or tokens it was made for
    context_length: int  # tokens of the longest sequence
    layer_kinds: tuple[EncoderLayerKind, ...]

    activation: str = "gelu"  # a name of layers.ACTIVATIONS
    gated_mlp: bool = False  # down(act(gate) * up)
    norm: Literal["layer", "rms"] = "layer"
    norm_eps: float = 1e-12
    norm_bias: bool = True
    norm_first: bool = False  # x + f(norm(x)), with a norm at the end; else norm(x + f(x))
    first_norm_idle: bool = False  # the first layer's attention reads embeddings as they are
    embedding_norm: bool = True
    shared_embedding: bool = False  # tokens are embedded by a decoder's table
    head_size: int | None = None  # of queries and keys; None is D / N
    attention_scale: float | None = None  # of scores q.k; None is 1 / sqrt(H)
    relative: RelativeBias | None = None
    bias: bool = True  # of all products in the layers
    key_bias: bool = True  # of keys too
    mel_bins: int = 0  # of a spectrogram that is read instead of tokens
    median_filter_width: int = 7  # positions; of what is heard, where tokens are found in it
    positions: Literal["learned", "none"] = "learned"
    position_offset: int = 0  # row of the first token in the table of positions
    token_types: int = 0  # 0 is no such embedding
    head: ClassifierHead | None = None

    def __post_init__(self) -> None:
        if self.head_size is None and self.hidden_size % self.num_heads:
            raise CheckpointError(
                f"config.json has hidden_size {self.hidden_size}, which does not divide into "
                f"{self.num_heads} attention heads."
            )

    @property
    def num_layers(self) -> int:
        """L."""
        return len(self.layer_kinds)

    @property
    def head_dim(self) -> int:
        """H."""
        return self.head_size or self.hidden_size // self.num_heads
