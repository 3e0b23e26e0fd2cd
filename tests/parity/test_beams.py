"""Beam search finds the sequences that transformers finds, with the same scores, in float32."""

from collections.abc import Iterator

import pytest

from engine.beams.core import BeamCore
from engine.beams.params import BeamSearchParams
from engine.config import EngineConfig
from engine.core import EngineCore
from engine.messages import AddBeams, RequestDelta
from tests.parity.beams import CASES, BeamCase, Found, read
from tests.parity.cases import CASES as MODELS
from tests.parity.goldens import read as read_golden
from tests.parity.paged import write_case

TOLERANCE = 1e-4  # of a log-probability, summed over a sequence and divided by its length


@pytest.fixture(scope="module")
def recorded() -> dict[str, Found]:
    return read()


@pytest.fixture(scope="module", params=sorted({case.model for case in CASES.values()}))
def model(request, tmp_path_factory) -> Iterator[tuple[str, EngineCore]]:
    """An engine on each model once; fewer rows than some searches have beams."""
    name, folder = request.param, tmp_path_factory.mktemp("beams")
    write_case(folder, MODELS[name], read_golden(name))
    config = EngineConfig(
        model=str(folder), max_num_seqs=4, max_num_batched_tokens=32, max_model_len=128,
        block_size=16,
    )  # fmt: skip
    core = EngineCore(config)
    yield name, core
    core.close()


def test_searches_find_what_transformers_recorded(model, recorded: dict[str, Found]) -> None:
    name, core = model
    compiled = core.stats.num_compiles_after_warmup
    for label, case in CASES.items():
        if case.model == name:
            compare(label, search(core, case), recorded[label], case)
    assert core.stats.num_compiles_after_warmup == compiled
    assert core.pages() == {}


@pytest.mark.parity
def test_the_record_is_what_transformers_says_today(recorded: dict[str, Found]) -> None:
    pytest.importorskip("torch")
    from tests.parity.record_beams import search as search_there

    for label, case in CASES.items():
        compare(label, search_there(case), recorded[label], case)


def compare(label: str, found: Found, expected: Found, case: BeamCase) -> None:
    assert found.sequences == expected.sequences, label
    assert len(found.sequences) == len(case.prompts)
    for mine, theirs in zip(found.scores, expected.scores, strict=True):
        assert mine == pytest.approx(theirs, abs=TOLERANCE), label


def search(core: EngineCore, case: BeamCase) -> Found:
    """All prompts of a case at once; `case.eos` stands for the model's own ends of text."""
    core.info.eos_token_ids = sorted(case.eos)
    beams, width = BeamCore(core), case.beam_width
    tokens = read_golden(case.model).tokens
    for number, (start, end) in enumerate(case.prompts):
        beams.add(
            AddBeams(
                request_ids=list(range(number * width, (number + 1) * width)),
                prompt_token_ids=tokens[start:end],
                params=case.params(),
                num_logprobs=0,
            )
        )
    deltas: dict[int, RequestDelta] = {}
    while beams.has_work:
        deltas |= {delta.request_id: delta for delta in beams.step().deltas}
    rows = [deltas[i] for i in range(len(case.prompts) * width)]
    parts = [rows[i : i + width] for i in range(0, len(rows), width)]
    return Found(
        [[row.new_token_ids for row in part] for part in parts],
        [[_score(row, case.params()) for row in part] for part in parts],
    )


def _score(delta: RequestDelta, params: BeamSearchParams) -> float:
    ends = delta.finish_reason == "stop"
    assert ends == (delta.stop_token_id == delta.new_token_ids[-1])
    assert ends or len(delta.new_token_ids) == params.max_tokens
    logprobs = [each.logprobs[0] for each in delta.logprobs or []]
    return sum(logprobs) / len(logprobs) ** params.length_penalty
