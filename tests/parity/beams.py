"""Beam searches that are compared with transformers: what is searched, and what it answered.

    beams.json   name: {"sequences": [[[ids], ...], ...], "scores": [[...], ...]}
                 by prompt, best first; ids are what was generated, up to an end of text

Owns the cases and the format. The models are those of `cases`, with their recorded tensors; where
an end of text shall come often, it is several ids of their vocabularies.
"""

import json
from dataclasses import dataclass
from pathlib import Path

from engine.beams.params import BeamSearchParams, EarlyStopping

FILE = Path(__file__).parent / "beams.json"


@dataclass(frozen=True)
class BeamCase:
    """One call of `generate`, over all prompts at once."""

    model: str  # a name of CASES
    beam_width: int
    max_tokens: int = 24
    length_penalty: float = 1.0
    early_stopping: EarlyStopping = False
    eos: tuple[int, ...] = ()
    prompts: tuple[tuple[int, int], ...] = ((0, 19),)  # slices of the model's recorded tokens

    def params(self) -> BeamSearchParams:
        return BeamSearchParams(
            self.beam_width, self.max_tokens, not self.eos,
            length_penalty=self.length_penalty, early_stopping=self.early_stopping,
        )  # fmt: skip


SEVERAL = ((0, 19), (5, 24), (11, 30))
CASES = {
    "no end": BeamCase("llama3", 4),
    "no end, several": BeamCase("qwen3", 3, prompts=SEVERAL),
    "one beam": BeamCase("llama3", 1, prompts=SEVERAL, eos=(2, 9)),
    "ends": BeamCase("llama3", 4, eos=(2, 17, 30), prompts=SEVERAL),
    "ends, long ones": BeamCase("llama3", 4, eos=(2, 17, 30), length_penalty=2.0, prompts=SEVERAL),
    "ends, by sums": BeamCase("llama3", 4, eos=(2, 17, 30), length_penalty=0.0, prompts=SEVERAL),
    "ends, short ones": BeamCase("llama3", 4, eos=(2, 17, 30), length_penalty=-1.0),
    "ends, the first": BeamCase("qwen3", 3, eos=(5, 8, 40), early_stopping=True, prompts=SEVERAL),
    "ends, never": BeamCase("qwen3", 3, eos=(5, 8, 40), early_stopping="never", prompts=SEVERAL),
    "ends, never, long ones": BeamCase(
        "llama3", 4, eos=(2, 17, 30), early_stopping="never", length_penalty=1.3, prompts=SEVERAL
    ),
    "many beams": BeamCase("llama3", 16, max_tokens=40, eos=(2, 17, 30)),
    "one token": BeamCase("llama3", 4, max_tokens=1),
}


@dataclass(frozen=True)
class Found:
    """What was found, by prompt, best first."""

    sequences: list[list[list[int]]]
    scores: list[list[float]]


def read() -> dict[str, Found]:
    """The recorded answers, by name of the case."""
    return {name: Found(**found) for name, found in json.loads(FILE.read_text()).items()}


def write(found: dict[str, Found]) -> None:
    """Record these answers."""
    lines = [f"{json.dumps(name)}: {json.dumps(vars(each))}" for name, each in found.items()]
    FILE.write_text("{\n" + ",\n".join(lines) + "\n}\n")
