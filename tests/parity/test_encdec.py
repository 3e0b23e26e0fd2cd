"""Models with an encoder against what transformers recorded, as `test_parity` does with others."""

import json
from pathlib import Path

import pytest

from tests.parity.encdec_cases import CASES, FOLDER, encoder_prompt, spectrogram
from tests.parity.encdec_run import EncodedRun
from tests.parity.goldens import read
from tests.parity.paged import load_case, write_case
from tests.parity.test_parity import compare


@pytest.mark.parametrize("name", CASES)
def test_logits_and_tokens_are_those_of_transformers(name: str, tmp_path: Path) -> None:
    case, golden = CASES[name], read(name, FOLDER)
    write_case(tmp_path, case, golden)
    source = spectrogram(case) if "num_mel_bins" in case.config else encoder_prompt(case)
    run = EncodedRun(load_case(tmp_path, case), source)
    compare(golden, run.follow(golden.tokens, case.prompt_length))


def test_each_case_has_its_golden_and_nothing_else_lies_there() -> None:
    assert {path.stem for path in FOLDER.iterdir()} == set(CASES)
    for name, case in CASES.items():
        golden = read(name, FOLDER)
        assert golden.config == json.loads(json.dumps(case.config))
        assert golden.tokens[: case.prompt_length] == case.prompt()
