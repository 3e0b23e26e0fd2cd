"""Texts of a tiny Whisper and when transformers says that their tokens were said.

`python -m tests.parity.word_times` writes them, with --check it compares them; needs PyTorch and
transformers.
"""

import json
import sys
from dataclasses import asdict, dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from tests.parity.encdec_cases import CASES, spectrogram

CASE = CASES["whisper"]
FILE = Path(__file__).parent / "word_times.json"
HEADS = [[1, 0], [2, 1], [2, 3]]
FRAMES = (82, 70, 31, 9, 4)  # of audio in the window of 82; the last are fewer than a median's
SEED = 5


@dataclass
class Told:
    """One text."""

    frames: int
    tokens: list[int]
    first: int  # behind the tokens that the decoder was given
    times: list[float]  # seconds, of tokens from `first` on


def generation_config() -> dict[str, Any]:
    """What the folder of the case says besides."""
    return {
        "alignment_heads": HEADS, "no_timestamps_token_id": 24, "is_multilingual": False,
        "max_initial_timestamp_index": 30, "decoder_start_token_id": 1, "eos_token_id": 0,
        "pad_token_id": 0, "max_length": 60, "return_timestamps": True,
    }  # fmt: skip


def told_by_transformers() -> list[Told]:
    """Texts that are drawn, and their times."""
    import torch

    from tests.parity.record_encdec import build

    with TemporaryDirectory() as folder:
        model, _ = build(CASE, Path(folder))
    for name, value in generation_config().items():
        setattr(model.generation_config, name, value)
    heard, found = torch.from_numpy(spectrogram(CASE).T[None].copy()), []
    for frames in FRAMES:
        torch.manual_seed(SEED + frames)
        there = (torch.arange(heard.shape[2])[None] < frames).long()
        said = model.generate(
            heard, attention_mask=there, temperature=1.5, return_timestamps=True,
            return_token_timestamps=True, return_segments=True, return_dict_in_generate=True,
        )  # fmt: skip
        result = said["segments"][0][0]["result"]
        times = [round(time, 2) for time in result["token_timestamps"].tolist()]
        found.append(Told(frames, result["sequences"].tolist(), 1, times[1:]))
    return found


def recorded() -> list[Told]:
    """Those of the file."""
    return [Told(**each) for each in json.loads(FILE.read_text())]


if __name__ == "__main__":
    found = told_by_transformers()
    if sys.argv[1:] == ["--check"]:
        sys.exit(found != recorded())
    lines = ",\n".join(json.dumps(asdict(each)) for each in found)
    FILE.write_text(f"[\n{lines}\n]\n")
