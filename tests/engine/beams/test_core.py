"""Searches in an engine: what they leave alone, what they share, and what is left of them."""

import pytest

from engine.beams.core import BeamCore
from engine.beams.params import BeamSearchParams
from engine.errors import RequestError
from engine.messages import AddBeams, AddRequest, RequestDelta, StepReport
from engine.output_processor import OutputProcessor
from engine.sampling.params import SamplingParams
from tests.engine.conftest import make_core, run

PROMPT = [5 + i % 60 for i in range(37)]  # two full pages of 16, and a part
GREEDY = SamplingParams(temperature=0, max_tokens=12)


def beams(width: int = 3, tokens: int = 12, ids: range | None = None, **changes) -> AddBeams:
    return AddBeams(
        **{
            "request_ids": list(ids or range(width)),
            "prompt_token_ids": PROMPT,
            "params": BeamSearchParams(width, tokens, ignore_eos=True),
            "num_logprobs": 0,
        }
        | changes
    )


def answers(core, *messages) -> dict[int, RequestDelta]:
    """The searches' one delta a sequence, and what others said, joined."""
    served, found = BeamCore(core), {}
    for message in messages:
        served.add(message)
    while served.has_work:
        for delta in served.step().deltas:
            earlier = found.get(delta.request_id)
            if earlier is not None:
                delta.new_token_ids = earlier.new_token_ids + delta.new_token_ids
            found[delta.request_id] = delta
    return found


def ids_of(found: dict[int, RequestDelta], ids) -> list[list[int]]:
    return [found[i].new_token_ids for i in ids]


def test_neighbours_and_searches_do_not_change_each_other(core):
    [alone] = run(core, [PROMPT[:9]], GREEDY)
    search = ids_of(answers(core, beams()), range(3))
    neighbour = AddRequest(request_id=7, prompt_token_ids=PROMPT[:9], params=GREEDY)
    second = beams(ids=range(10, 13), prompt_token_ids=PROMPT[3:])
    together = answers(core, beams(), neighbour, second)
    assert together[7].new_token_ids == alone.ids
    assert ids_of(together, range(3)) == search
    assert ids_of(together, range(10, 13)) == ids_of(answers(core, second), range(10, 13))
    assert core.pages() == {} and core.stats.num_compiles_after_warmup == 0


@pytest.fixture(scope="module")
def narrow(tiny_folder):
    """An engine of two rows that keeps nothing."""
    engine = make_core(tiny_folder, enable_prefix_caching=False, max_num_seqs=2)
    yield engine
    engine.close()


def test_more_beams_than_rows_and_no_prefix_cache_find_the_same(core, narrow):
    wide = beams(6)
    found = ids_of(answers(core, wide), range(6))
    assert len({tuple(ids) for ids in found}) == 6
    assert ids_of(answers(narrow, wide), range(6)) == found


def test_one_beam_is_greedy(core):
    [greedy] = run(core, [PROMPT], GREEDY)
    found = answers(core, beams(1, num_logprobs=2))
    assert found[0].new_token_ids[: len(greedy.ids)] == greedy.ids
    assert [len(position.token_ids) for position in found[0].logprobs] == [3] * 12


def test_beams_share_the_pages_of_the_prompt(core):
    before = core.stats.prompt_tokens, core.stats.scheduled_tokens
    answers(core, beams(4, 8, prompt_token_ids=[91, *PROMPT]))
    assert core.stats.prompt_tokens - before[0] == 38
    computed = core.stats.scheduled_tokens - before[1]
    assert computed == 38 + 4 * 7  # the prompt once; then a token of each beam


def test_a_search_keeps_its_place_in_the_queue(narrow):
    """Behind a crowd that came later, each step of a search would wait for a row."""
    crowd = [
        AddRequest(request_id=i, prompt_token_ids=[7, i], params=GREEDY) for i in range(10, 22)
    ]
    began = list(answers(narrow, beams(2, 6), *crowd))
    assert began.index(0) < began.index(16)


def test_what_is_aborted_leaves_nothing(core):
    served = BeamCore(core)
    served.add(beams(3, 40))
    for _ in range(9):
        assert served.step().deltas == []
    assert served.has_work and served.abort([0, 1]) is None and served.has_work
    served.abort([2])
    while served.has_work:
        assert served.step().deltas == []
    assert core.pages() == {} and not core.stats.num_running
    assert len(answers(core, beams())) == 3


def test_a_sequence_that_is_not_wanted_any_more_is_not_reported(core):
    served = BeamCore(core)
    served.add(beams())
    served.step()
    served.abort([1])
    found = set()
    while served.has_work:
        found |= {delta.request_id for delta in served.step().deltas}
    assert found == {0, 2}


def test_a_search_that_fails_ends_once_and_leaves_nothing(core, monkeypatch):
    served = BeamCore(core)
    served.add(beams(3, 40, range(5, 8)))
    while len(core.pages()) < 3:
        assert served.step().deltas == []
    asked = list(core.pages())
    lost = [RequestDelta(request_id=i, finish_reason="error", error="lost") for i in asked]
    with monkeypatch.context() as patch:
        patch.setattr(core, "step", lambda: StepReport(deltas=lost, stats=core.stats))
        assert [delta.request_id for delta in served.step().deltas] == [5, 6, 7]
    core.abort(asked)
    while served.has_work:
        assert served.step().deltas == []


@pytest.mark.parametrize(
    ("changes", "param"),
    [
        ({"params": BeamSearchParams(20, 4)}, "beam_width"),
        ({"request_ids": [0, 1, 2, 3]}, "n"),
        ({"prompt_token_ids": []}, "prompt"),
        ({"prompt_token_ids": [500]}, "prompt"),
        ({"prompt_token_ids": [1] * 128}, "prompt"),
        ({"priority": 1}, "priority"),
    ],
)
def test_what_cannot_be_searched_is_refused_and_leaves_nothing(core, changes, param):
    served = BeamCore(core)
    with pytest.raises(RequestError) as caught:
        served.add(beams(**changes))
    assert caught.value.param == param
    assert not served.has_work
    assert len(answers(core, beams())) == 3


def test_a_search_ends_with_the_context(core):
    room = core.info.max_model_len - 120
    found = answers(core, beams(2, 64, prompt_token_ids=[3 + i % 50 for i in range(120)]))
    assert {len(delta.new_token_ids) for delta in found.values()} == {room}
    assert {delta.finish_reason for delta in found.values()} == {"length"}


def test_samples_of_one_prompt_share_its_pages_from_the_first_step(core):
    prompt = [88, *PROMPT]
    params = SamplingParams(n=3, seed=1, temperature=1.0, max_tokens=4, ignore_eos=True)
    computed = core.stats.scheduled_tokens
    messages = OutputProcessor(None).add("three", prompt, params)
    for message in messages:
        core.add(message)
    core.step()
    core.step()
    pages = list(core.pages().values())
    assert len(pages) == 3
    assert pages[0][:2] == pages[1][:2] == pages[2][:2]
    assert len({page for each in pages for page in each[2:]}) == sum(len(p[2:]) for p in pages)
    while core.has_work:
        core.step()
    # the prompt once, behind its two pages twice more, and three tokens that were fed back
    assert core.stats.scheduled_tokens - computed == 38 + 2 * 6 + 3 * 3
