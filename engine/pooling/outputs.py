"""What a caller of `LLM` gets for vectors: shaped as vLLM's outputs.

llm.embed(...)[0].outputs.embedding     llm.classify(...)[0].outputs.probs
llm.score(...)[0].outputs.score         llm.encode(...)[0].outputs.data
"""

from dataclasses import dataclass, field
from typing import Generic, TypeVar

import numpy as np


@dataclass(slots=True)
class PoolingOutput:
    """What the model gave, float32 [W]; of a model that gives many vectors a text, [rows, W]."""

    data: np.ndarray


@dataclass(slots=True)
class EmbeddingOutput:
    """A vector."""

    embedding: list[float]

    @property
    def hidden_size(self) -> int:
        return len(self.embedding)


@dataclass(slots=True)
class ClassificationOutput:
    """A probability a class."""

    probs: list[float]

    @property
    def num_classes(self) -> int:
        return len(self.probs)


@dataclass(slots=True)
class ScoringOutput:
    """How well two texts go together."""

    score: float


Output = TypeVar("Output", PoolingOutput, EmbeddingOutput, ClassificationOutput, ScoringOutput)


@dataclass(slots=True)
class PoolingRequestOutput(Generic[Output]):
    """The answer to one sequence, or to one pair."""

    request_id: str
    outputs: Output
    prompt_token_ids: list[int] = field(default_factory=list)
    num_cached_tokens: int = 0
    finished: bool = True


EmbeddingRequestOutput = PoolingRequestOutput[EmbeddingOutput]
ClassificationRequestOutput = PoolingRequestOutput[ClassificationOutput]
ScoringRequestOutput = PoolingRequestOutput[ScoringOutput]
