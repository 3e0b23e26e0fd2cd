"""Which times may follow what was written: said by hand, and as transformers has it."""

import jax.numpy as jnp
import numpy as np
import pytest

from engine.sampling.params import SamplingParams
from engine.sampling.speech_times import SpeechTimes
from engine.sampling.state import SlotState, init_slots, pack_options
from tests.engine.sampling_batch import admit_jit, feed

V, R, SLOT = 40, 2, 1
END, NEVER, FIRST = 10, 14, 15  # texts are 0 to 9
TIMES = SpeechTimes(END, FIRST)
PROMPT = [11, 12]


def written(output: list[int]) -> SlotState:
    packed = pack_options(
        SLOT, SamplingParams(), prompt_token_ids=PROMPT, stop_token_ids=(), bad_word_ids=(),
        vocab_size=V,
    )  # fmt: skip
    state = admit_jit(init_slots(R, V, times=TIMES), packed)
    return feed(state, SLOT, PROMPT + output, len(PROMPT))


def kept(logits: np.ndarray, output: list[int]) -> np.ndarray:
    state, slots = written(output), jnp.array([SLOT])
    found = TIMES.keep(jnp.asarray(logits[None]), state.recent[slots], state.generated(slots))
    return np.asarray(found[0])


TEXT, REST, LATER = range(END), range(END, NEVER), range(FIRST, V)
LIKELY = np.where(np.arange(V) < FIRST, 5.0, 0.0).astype(np.float32)  # texts


@pytest.mark.parametrize(
    ("output", "may_follow"),
    [
        ([], LATER),
        ([15], [*TEXT, *REST]),
        ([15, 1], [*TEXT, *REST, *LATER[1:]]),
        ([15, 1, 20], [*REST, *LATER[5:]]),
        ([15, 1, 20, 20], [*TEXT, *REST]),
        ([15, 1, 20, 20, 3], [*TEXT, *REST, *LATER[6:]]),
    ],
)
def test_times_stand_around_texts_and_do_not_run_back(
    output: list[int], may_follow: list[int]
) -> None:
    assert np.flatnonzero(np.isfinite(kept(LIKELY, output))).tolist() == [*may_follow]


def test_a_time_follows_where_all_together_are_likelier_than_each_text() -> None:
    logits = np.where(np.arange(V) == 3, 3.3, 0.0).astype(np.float32)
    assert np.isfinite(kept(logits, [15, 1])[3])  # 24 times of e^0, and a text of 27
    assert np.flatnonzero(np.isfinite(kept(0.9 * logits, [15, 1]))).tolist() == [*LATER[1:]]


@pytest.mark.parity
def test_they_are_those_of_transformers() -> None:
    torch = pytest.importorskip("torch")
    transformers = pytest.importorskip("transformers")
    config = transformers.GenerationConfig(
        eos_token_id=END, no_timestamps_token_id=NEVER, max_initial_timestamp_index=50
    )
    process = transformers.WhisperTimeStampLogitsProcessor(config, begin_index=len(PROMPT))
    random, output = np.random.default_rng(0), list[int]()
    for _ in range(40):
        logits = random.normal(size=V, scale=3).astype(np.float32)
        theirs = process(torch.tensor([PROMPT + output]), torch.tensor(logits[None]))[0].numpy()
        np.testing.assert_array_equal(kept(logits, output), theirs)
        output.append(int(theirs.argmax()))
