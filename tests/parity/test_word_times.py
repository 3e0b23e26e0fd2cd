"""When words were said: the engine's answer is transformers', as recorded and live."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from engine.config import EngineConfig
from engine.core import EngineCore
from engine.encoders.align_request import AlignRequest
from engine.errors import RequestError
from engine.output_processor import OutputProcessor
from engine.sampling.params import SamplingParams
from engine.tokenizers.tokenizer import Tokenizer
from serve.audio.protocol import Word
from serve.audio.words import token_times, words_of
from tests.parity.encdec_cases import FOLDER, spectrogram
from tests.parity.goldens import read
from tests.parity.paged import write_case
from tests.parity.word_times import CASE, Told, generation_config, recorded
from tests.serve.audio.speech_model import write_speech_model

TEXTS = (
    " Hello, world! How are you?", " (It) said: “Go on” - twice, 'really'.", 
    " été 漢字です。 naïve",
    "No space before", " a  b ", " 100 % of ¿qué? [x] {y}", "...",
)  # fmt: skip


@pytest.fixture(scope="module")
def core(tmp_path_factory: pytest.TempPathFactory) -> Any:
    folder = tmp_path_factory.mktemp("whisper")
    write_case(folder, CASE, read("whisper", FOLDER))
    (folder / "generation_config.json").write_text(json.dumps(generation_config()))
    core = EngineCore(
        EngineConfig(model=str(folder), max_num_seqs=2, max_num_batched_tokens=32, dtype="float32")
    )
    core.wait_for_programs()
    yield core
    core.close()


def align(core: EngineCore, tokens: list[int], asked: AlignRequest) -> bytes:
    params = SamplingParams(temperature=0, max_tokens=1, detokenize=False)
    features = spectrogram(CASE).tobytes()
    for message in OutputProcessor(None).add(
        "x", tokens, params, encoder_features=features, align=asked
    ):
        core.add(message)
    found = b""
    while core.has_work:
        for delta in core.step().deltas:
            found += delta.alignment
    return found


def check(core: EngineCore, told: Told) -> None:
    known = len(told.tokens) - 1 - told.first  # the last was never read
    asked = AlignRequest(told.first, told.frames // 2)
    answer = align(core, told.tokens[:-1], asked)
    assert len(answer) == known * (told.frames // 2) * 4
    assert token_times(answer, known) == pytest.approx(told.times, abs=1e-6)


@pytest.mark.parametrize("told", recorded(), ids=lambda told: f"{told.frames} frames")
def test_times_are_those_that_transformers_told(core: EngineCore, told: Told) -> None:
    assert len(set(told.times)) > 1
    check(core, told)
    check(core, told)  # with the encoder's pages, and the text's, found in the cache
    assert core.stats.num_compiles_after_warmup == 0


@pytest.mark.parity
def test_transformers_tells_what_is_recorded() -> None:
    """In a process of its own, where its threads have no others beside them."""
    pytest.importorskip("transformers", reason="needs the extra parity")
    command = [sys.executable, "-m", "tests.parity.word_times", "--check"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr


@pytest.mark.parity
@pytest.mark.parametrize("language", ["en", "zh"])
def test_words_are_those_of_transformers(language: str, tmp_path: Path) -> None:
    whisper = pytest.importorskip("transformers.models.whisper.tokenization_whisper")
    write_speech_model(tmp_path)
    tokenizer = Tokenizer.load(tmp_path)
    assert tokenizer is not None

    class Theirs:
        eos_token_id = 256

        def decode(self, ids: list[int], decode_with_timestamps: bool) -> str:
            return tokenizer.decode(ids)

    name = {"en": "english", "zh": "chinese"}[language]
    for text in TEXTS:
        ids = tokenizer.encode(text, False)
        words, tokens, _ = whisper._combine_tokens_into_words(Theirs(), ids, name)
        times = [(float(i), float(i + 1)) for i in range(len(ids))]
        ends, at = [], 0
        for word, its in zip(words, tokens, strict=True):
            if word.strip():
                ends.append(Word(word.strip(), float(at), float(at + len(its))))
            at += len(its)
        assert words_of(tokenizer, ids, times, language) == ends, text


@pytest.mark.parametrize("asked", [(-1, 4), (9, 4), (1, 0), (1, 42)])
def test_what_cannot_be_aligned_is_refused(core: EngineCore, asked: tuple[int, int]) -> None:
    with pytest.raises(RequestError, match="no text, or no audio"):
        align(core, [1, 30, 5, 6], AlignRequest(*asked))
