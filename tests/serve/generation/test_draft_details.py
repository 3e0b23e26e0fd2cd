"""`return_spec_tokens_details`: how right the guesses were, by SGLang's names."""

import pytest

from engine.outputs import OutputDelta
from serve.generation.drafts import drafts_told
from serve.generation.streams import absorb
from tests.serve.served import Serve, event_data

pytestmark = pytest.mark.anyio
TOLD = {
    "spec_accept_rate": 0.6, "spec_accept_length": 4.0, "spec_num_correct_drafts": 3,
    "spec_num_proposed_drafts": 5, "spec_verify_ct": 1,
    "spec_correct_drafts_histogram": [0, 0, 0, 1],
}  # fmt: skip
ASKED = {"max_tokens": 3, "return_spec_tokens_details": True}


async def test_they_are_in_sglext_of_whole_answers_and_at_the_end_of_streams(serve: Serve) -> None:
    async with serve() as served:
        served.core.said_first = {"num_drafted": 5, "num_accepted": 3}
        chat = (await served.chat("Hi", **ASKED)).json()
        two = (await served.complete(prompt="Hi", n=2, **ASKED)).json()
        streams = [
            await served.chat("Hi", stream=True, **ASKED),
            await served.complete(prompt="Hi", stream=True, **ASKED),
        ]
        unasked = (await served.chat("Hi", max_tokens=3)).json()
    assert chat["sglext"] == {"spec_tokens_details": TOLD}
    assert two["sglext"] == {"spec_tokens_details": [TOLD, TOLD]}
    for answer in streams:
        *chunks, last = event_data(answer.text)[:-1]
        assert last["sglext"] == {"spec_tokens_details": TOLD}
        assert not any("sglext" in each for each in chunks)
    assert "sglext" not in unasked


async def test_meta_info_has_them_where_tokens_were_guessed(serve: Serve) -> None:
    async with serve() as served:
        plain = (await served.post("/generate", text="Hi")).json()["meta_info"]
        served.core.said_first = {"num_drafted": 5, "num_accepted": 3}
        told = (await served.post("/generate", text="Hi")).json()["meta_info"]
    assert {name: value for name, value in told.items() if name.startswith("spec_")} == TOLD
    assert not any(name.startswith("spec_") for name in plain)


async def test_where_nothing_was_guessed_nothing_is_told(serve: Serve) -> None:
    async with serve() as served:
        answer = (await served.chat("Hi", **ASKED)).json()
        beams = await served.chat("Hi", use_beam_search=True, n=2, **ASKED)
    assert "sglext" not in answer
    assert beams.json()["error"]["param"] == "return_spec_tokens_details"


def test_steps_are_counted_by_how_many_of_their_tokens_were_right() -> None:
    whole = OutputDelta(request_id="", index=0, num_drafted=4, accepted=[4])
    absorb(whole, OutputDelta(request_id="", index=0))
    for right in (0, 2, 4):
        absorb(whole, OutputDelta(request_id="", index=0, num_drafted=4, accepted=[right]))
    told = drafts_told(whole.num_drafted, whole.accepted or [])
    assert told is not None
    assert told.spec_correct_drafts_histogram == [1, 0, 1, 0, 2]
    assert (told.spec_num_proposed_drafts, told.spec_num_correct_drafts) == (16, 10)
    assert (told.spec_verify_ct, told.spec_accept_length) == (4, 3.5)
