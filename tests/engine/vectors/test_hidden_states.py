"""Hidden states of requests: each token's once, and the ones from which logits are made."""

import jax.numpy as jnp
import numpy as np
import pytest

from engine.messages import AddRequest
from engine.request import make_request
from engine.sampling.params import SamplingParams
from engine.vectors.hidden_states import states_of_row
from engine.vectors.last_state import LastState
from tests.engine.conftest import VOCAB, Text, make_core


@pytest.fixture(scope="module")
def engine(tiny_folder):
    """Two rows, steps of 16 tokens, and pages for hardly more than one request."""
    made = make_core(
        tiny_folder, enable_return_hidden_states=True, max_num_seqs=2, max_num_batched_tokens=16,
        num_gpu_blocks_override=10,
    )  # fmt: skip
    made.wait_for_programs()
    yield made
    assert made.stats.num_compiles_after_warmup == 0
    made.close()


def run(engine, prompts, hidden_from, **options):
    """What was said, and the states [tokens, D], of each prompt."""
    params = SamplingParams(**{"temperature": 0, "max_tokens": 20, "ignore_eos": True, **options})
    texts, states = [Text() for _ in prompts], [[] for _ in prompts]
    for number, prompt in enumerate(prompts):
        engine.add(
            AddRequest(
                request_id=number, prompt_token_ids=prompt, params=params,
                hidden_from=hidden_from[number],
            )
        )  # fmt: skip
    while engine.has_work:
        for delta in engine.step().deltas:
            texts[delta.request_id].add(delta)
            states[delta.request_id] += [np.frombuffer(s, "<f4") for s in delta.hidden_states]
    return texts, [np.array(each) for each in states]


def check(engine, text: Text, states: np.ndarray) -> None:
    """The head makes of the states what the answer's log-probabilities say."""
    head = engine.model.layout.unflatten(engine.model.leaves).head
    logits = np.asarray(head.product(jnp.asarray(states), jnp.float32), np.float64)
    logprobs = logits - np.log(np.exp(logits).sum(axis=1, keepdims=True))
    for row, entry in zip(logprobs, text.logprobs, strict=True):
        np.testing.assert_allclose(row[entry.token_ids], entry.logprobs, atol=1e-4)


def test_states_are_those_that_chose_the_tokens(engine) -> None:
    """In chunks, after a preemption, and where others ask for none."""
    rng = np.random.default_rng(2)
    prompts = [rng.integers(3, VOCAB, length).tolist() for length in (40, 30)]
    before = engine.stats.num_preemptions
    for wanted in ([0, 0], [None, 29], [39, 0]):
        texts, states = run(engine, prompts, wanted, logprobs=2, max_tokens=60)
        for text, prompt, first, told in zip(texts, prompts, wanted, states, strict=True):
            if first is None:
                assert not len(told)
                continue
            assert told.shape == (len(prompt) + 59 - first, 32)
            check(engine, text, told[len(prompt) - 1 - first :])
    assert engine.stats.num_preemptions > before


def test_what_the_cache_has_is_computed_again_for_its_states(engine) -> None:
    prompt = list(range(3, 53))
    _, [told] = run(engine, [prompt], [0], logprobs=1)
    [again], [same] = run(engine, [prompt], [0], logprobs=1)
    assert told.shape == same.shape == (69, 32)
    np.testing.assert_allclose(told, same, atol=1e-5)
    check(engine, again, same[49:])
    hits = engine.stats.prefix_cache_hits
    _, [last] = run(engine, [prompt], [49])
    assert engine.stats.prefix_cache_hits > hits
    np.testing.assert_allclose(last, told[49:], atol=1e-5)


def test_turns_behind_the_end_do_not_count() -> None:
    message = AddRequest(
        request_id=0, prompt_token_ids=[5, 6], params=SamplingParams(max_tokens=9), hidden_from=1
    )
    request = make_request(message, arrival=0, seed=0, max_model_len=64, eos=frozenset())
    states = np.arange(16, dtype=np.float32).reshape(4, 4)
    request.token_ids += [7, 8]  # a step of four turns computed 6, 7, 8 and what came behind it
    assert states_of_row(request, states, 1, 4) == [row.tobytes() for row in states[:2]]
    assert states_of_row(request, states, 1, 4) == []


def test_the_last_state_is_that_of_the_last_token() -> None:
    """Whether states come with their tokens or before them."""
    states = [bytes([number]) for number in range(9)]
    last = LastState()
    assert last.grow([], 0) == []
    assert last.grow(states[:2], 0) == []
    assert last.grow(states[2:3], 1) == states[:1]
    assert last.grow(states[3:7], 4) == states[4:5]
    assert last.grow(states[7:], 0) == states[4:5]
    assert last.grow([], 3) == states[7:8]
