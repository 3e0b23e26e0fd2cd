"""One row of the table of tiny models: what all tables are made of."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from tests.parity.weights import Spread

DECODE_STEPS = 64
PLAIN = Spread()
TIED = Spread(embedding=0.1, gain=1.6)
GEMMA = Spread(norm=0.0, embedding=0.02, gain=1.6)


Arrays = Mapping[str, np.ndarray]


@dataclass(frozen=True)
class StandIn:
    """transformers' model that computes the same, of an architecture that it does not have.

    config: that model's.
    packed: its tensors as the architecture's own checkpoints have them, by name and order of rows.
        No number is changed or used twice, and those that are lost an alteration takes away.
    zeros: parts of the names of its tensors that are 0, which the architecture has none of.
    alterations: what is done to it besides, names of functions in `alterations.py`.
    """

    config: Mapping[str, Any]
    packed: Callable[[Arrays], Arrays]
    zeros: tuple[str, ...] = ()
    alterations: tuple[str, ...] = ()


@dataclass(frozen=True)
class Case:
    """One row: the content of config.json, and how its weights and prompt are drawn."""

    config: Mapping[str, Any]
    seed: int = 0
    prompt_length: int = 19
    context: int | None = None  # tokens the model is run with, if not max_position_embeddings
    spread: Spread = PLAIN
    stand_in: StandIn | None = None
    attention: str = "eager"  # of transformers' implementations
    positions: bool = False  # transformers' model begins at 0 in every call, unless it is told
    whole: bool = False  # transformers' model reads all tokens again for each that it chooses

    def prompt(self) -> list[int]:
        """Token ids that walk over the vocabulary with a stride, so no two neighbours are equal."""
        vocab = self.config.get("text_config", self.config)["vocab_size"]
        return [(7 + self.seed + 29 * i + i * i) % vocab for i in range(self.prompt_length)]


def sizes(**changes: Any) -> dict[str, Any]:
    common = {
        "vocab_size": 67,
        "hidden_size": 40,
        "intermediate_size": 56,
        "num_hidden_layers": 3,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "max_position_embeddings": 128,
        "rms_norm_eps": 1e-5,
        "bos_token_id": 1,
        "eos_token_id": 2,
        "tie_word_embeddings": False,
    }
    return common | changes


def longrope(half: int) -> dict[str, Any]:
    """Factors for `half` frequencies, as uneven as those of real checkpoints."""
    return {
        "type": "longrope",
        "short_factor": [1.0 + 0.03 * i for i in range(half)],
        "long_factor": [1.1 + 0.9 * i * i for i in range(half)],
    }
