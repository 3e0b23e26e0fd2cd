"""The whole sampler: against a float64 reference, its distribution, apart from the batch."""

import re

import jax
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from msgspec.structs import replace

from engine.sampling.options import sampling_row, unpack_rows
from engine.sampling.params import MAX_LOGPROBS, SamplingParams
from engine.sampling.sampler import sample
from engine.sampling.state import SlotState, init_slots, observe
from tests.engine import sampling_reference as reference
from tests.engine.sampling_batch import choose, enter, ints, sample_jit, sample_packed
from tests.engine.sampling_reference import Sequence

V, R = 40, 8
GREEDY = SamplingParams(temperature=0)
ids = st.integers(0, V - 1)


@st.composite
def sequences(draw) -> Sequence:
    """Any mix of options. Values are dyadic, so float32 and float64 agree on ties."""
    bias = st.dictionaries(ids, st.sampled_from([-100.0, -1.5, 0.5, 4.0]), max_size=4)
    words = draw(st.lists(st.lists(ids, min_size=1, max_size=3), max_size=3))
    output = draw(st.lists(ids, max_size=12))
    if words and draw(st.booleans()):
        output += words[0][:-1]
    params = SamplingParams(
        temperature=draw(st.sampled_from([0, 0.5, 1.0, 2.0])),
        top_k=draw(st.sampled_from([-1, 0, 1, 3, 10, 2**31 - 1])),
        top_p=draw(st.sampled_from([1.0, 0.9, 0.5, 1e-9])),
        min_p=draw(st.sampled_from([0.0, 0.03, 0.3, 1.0])),
        repetition_penalty=draw(st.sampled_from([1.0, 2.0, 0.5])),
        presence_penalty=draw(st.sampled_from([0.0, 1.5, -0.5])),
        frequency_penalty=draw(st.sampled_from([0.0, 0.75, -0.25])),
        logit_bias=draw(st.none() | bias),
        allowed_token_ids=draw(st.none() | st.lists(ids, min_size=1, max_size=20)),
        bad_words=["text"] if words else None,
        min_tokens=draw(st.sampled_from([0, 6])),
    )
    return Sequence(
        params,
        prompt=draw(st.lists(ids, min_size=1, max_size=8)),
        output=output,
        stop_ids=draw(st.lists(ids, max_size=4, unique=True)),
        bad_words=words,
        seed=draw(st.integers(-(2**63), 2**64 - 1)),
    )


def entered(batch: list[Sequence], noise: int) -> tuple[np.ndarray, list[int], SlotState]:
    """Dyadic logits for four sequences, and the slots in which the device knows them."""
    logits = (np.random.default_rng(noise).normal(0, 24, (4, V)).round() / 8).astype(np.float32)
    state, slots = init_slots(R, V), [3, 0, 4, 2]
    for slot, sequence in zip(slots, batch, strict=True):
        state = enter(state, slot, sequence)
    return logits, slots, state


@settings(max_examples=60, deadline=None, derandomize=True)
@given(batch=st.lists(sequences(), min_size=4, max_size=4), noise=st.integers(0, 2**32 - 1))
def test_any_mix_of_options_chooses_the_tokens_of_the_reference(batch, noise) -> None:
    logits, slots, state = entered(batch, noise)
    chosen = choose(logits, batch, slots, state).tokens
    for row, sequence in enumerate(batch):
        assert int(chosen[row]) in reference.tokens(logits[row], sequence)


@settings(max_examples=60, deadline=None, derandomize=True)
@given(batch=st.lists(sequences(), min_size=4, max_size=4), noise=st.integers(0, 2**32 - 1))
def test_processed_logprobs_are_those_that_the_reference_draws_from(batch, noise) -> None:
    """Where a share p ends at a token, rounding may decide whether the next ones are in it."""
    for sequence in batch:
        sequence.params = replace(sequence.params, logprobs=MAX_LOGPROBS)
    logits, slots, state = entered(batch, noise)
    found = choose(logits, batch, slots, state, processed_logprobs=True)
    for row, sequence in enumerate(batch):
        told = np.full(V, -np.inf)
        told[found.logprob_ids[row]] = found.logprobs[row]
        share, exact = sequence.params.top_p, reference.logprobs(logits[row], sequence)
        most = share if share == 1 else share * (1 + 1e-6)
        narrow, wide = (
            reference.logprobs(logits[row], sequence, top_p=top_p) > -np.inf
            for top_p in (share * (1 - 1e-6), most)
        )
        kept, shown = told > -np.inf, np.isin(np.arange(V), found.logprob_ids[row])
        assert not (shown & narrow & ~kept).any() and not (kept & ~wide).any()
        if np.array_equal(narrow, wide):
            np.testing.assert_allclose(told[kept], exact[kept], rtol=1e-4, atol=1e-4)


def test_processed_logprobs_of_a_given_token_are_the_models() -> None:
    logits = np.random.default_rng(3).normal(0, 4, (1, V)).astype(np.float32)
    params = SamplingParams(temperature=0.5, top_k=2, logprobs=2, logit_bias={3: 100.0})
    sequence = Sequence(params, seed=1)
    state = enter(init_slots(R, V), 0, sequence)
    raw = choose(logits, [sequence], [0], state, targets=[9])
    told = choose(logits, [sequence], [0], state, targets=[9], processed_logprobs=True)
    np.testing.assert_array_equal(told.logprobs, raw.logprobs)
    drawn = choose(logits, [sequence], [0], state, processed_logprobs=True)
    assert drawn.logprobs[0, 0] == 0 and drawn.logprob_ids[0, 0] == 3  # nothing else is left


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"temperature": 0.5},
        {"top_k": 5},
        {"top_p": 0.8},
        {"min_p": 0.1, "temperature": 2.0},
        {"top_k": 9, "top_p": 0.9, "min_p": 0.01},
    ],
)
def test_frequencies_follow_the_distribution(options) -> None:
    """4096 positions of one seed; the bound is six deviations of chi-square, and all is fixed."""
    num_draws, vocab_size = 4096, 24
    sequence = Sequence(SamplingParams(**options), seed=7)
    row = np.random.default_rng(0).normal(0, 1.5, vocab_size).astype(np.float32)
    logits = np.tile(row, (num_draws, 1))
    packed = np.repeat(sampling_row(sequence.params, seed=7, prompt_len=1)[:, None], num_draws, 1)
    positions = np.arange(num_draws, dtype=np.int32)
    unused = np.zeros(num_draws, np.int32)
    state = init_slots(1, vocab_size)
    sampled = sample_jit(logits, packed, unused, positions, unused - 1, state)
    seen = np.bincount(np.asarray(sampled.tokens), minlength=vocab_size)
    expected = num_draws * reference.distribution(row, sequence)
    possible = expected > 0
    assert seen[~possible].sum() == 0
    chi_square = np.sum((seen - expected)[possible] ** 2 / expected[possible])
    freedom = possible.sum() - 1
    assert chi_square < freedom + 6 * np.sqrt(2 * freedom)


def test_a_seed_gives_the_same_token_in_any_row_of_any_batch() -> None:
    rng = np.random.default_rng(1)
    mine = Sequence(SamplingParams(top_p=0.95, presence_penalty=1.0), output=[3, 4], seed=11)
    mine_logits = rng.normal(0, 1, V).astype(np.float32)
    chosen = set()
    for num_rows, row in [(4, 0), (4, 3), (8, 5)]:
        logits = rng.normal(0, 9, (num_rows, V)).astype(np.float32)
        logits[row] = mine_logits
        batch = [
            Sequence(SamplingParams(temperature=i % 3, logit_bias={1: 5.0}), output=[9] * i, seed=i)
            for i in range(num_rows)
        ]
        batch[row] = mine
        state = init_slots(R, V)
        slots = list(range(num_rows))[::-1]
        for slot, sequence in zip(slots, batch, strict=True):
            state = enter(state, slot, sequence)
        chosen.add(int(choose(logits, batch, slots, state, width=num_rows).tokens[row]))
    assert len(chosen) == 1


def test_seeds_that_differ_anywhere_in_64_bits_differ() -> None:
    seeds = [0, 1, 1 << 31, 1 << 32, 1 << 63, -1]
    state, logits = init_slots(R, V), np.zeros((6, V), np.float32)
    texts = [
        choose(
            logits, [Sequence(SamplingParams(), [0] * length, seed=s) for s in seeds], [0] * 6,
            state, width=8,
        ).tokens
        for length in range(1, 9)
    ]  # fmt: skip
    assert len({tuple(text) for text in np.stack(texts, axis=1).tolist()}) == 6


def test_greedy_takes_the_first_of_equals_and_minus_zero_is_zero() -> None:
    logits = np.full((3, V), -1.0, np.float32)
    logits[0, [7, 30]] = 5.0
    logits[1, [4, 9]] = [-0.0, 0.0]
    logits[2, :] = -np.inf
    chosen = choose(logits, [Sequence(GREEDY)] * 3, [0, 1, 2], init_slots(R, V)).tokens
    np.testing.assert_array_equal(chosen, [7, 4, 0])


def test_a_temperature_below_the_least_is_greedy() -> None:
    logits = np.random.default_rng(2).normal(0, 1e-6, (1, V)).astype(np.float32)
    batch = [Sequence(SamplingParams(temperature=1e-6))]
    assert choose(logits, batch, [0], init_slots(R, V)).tokens[0] == np.argmax(logits[0])


@pytest.mark.parametrize("extreme", [3e38, -3e38, np.inf, -np.inf])
def test_extreme_logits_never_make_nan(extreme) -> None:
    logits = np.zeros((2, V), np.float32)
    logits[:, 5] = extreme
    logits[1] = extreme
    params = SamplingParams(
        temperature=0.01, top_k=3, top_p=0.9, min_p=0.1, repetition_penalty=100.0,
        frequency_penalty=2.0, logprobs=3,
    )  # fmt: skip
    batch = [Sequence(params, prompt=[5], output=[5, 6])] * 2
    state = init_slots(R, V)
    for slot in (0, 1):
        state = enter(state, slot, batch[slot])
    sampled = choose(logits, batch, [0, 1], state)
    assert not np.isnan(sampled.logprobs).any()
    assert ((sampled.tokens >= 0) & (sampled.tokens < V)).all()
    assert (sampled.tokens[0] == 5) == (extreme > 0)


EVERY_LIST = {
    "allowed_token_ids": [3, 4], "logit_bias": {3: 100.0}, "min_tokens": 9, "bad_words": ["x"],
}  # fmt: skip


@pytest.mark.parametrize("option", EVERY_LIST)
def test_a_slot_that_was_never_admitted_is_never_read(option) -> None:
    """A request without options, in a slot that an earlier one filled, beside one with options."""
    params = SamplingParams(temperature=0, **{option: EVERY_LIST[option]})
    other = Sequence(params, stop_ids=[5], bad_words=[[5]])
    state = enter(enter(init_slots(R, V), 1, other), 2, other)
    logits = np.zeros((2, V), np.float32)
    logits[:, 5] = 1.0
    chosen = choose(logits, [Sequence(GREEDY), other], [1, 2], state).tokens
    assert chosen[0] == 5
    assert chosen[1] != 5


def test_a_column_of_zeros_is_greedy_beside_any_other() -> None:
    params = SamplingParams(repetition_penalty=2.0, top_k=3, top_p=0.5, logit_bias={1: 1.0})
    packed = np.zeros((len(sampling_row(params, seed=0, prompt_len=1)), 4), np.int32)
    packed[:, 0] = sampling_row(params, seed=0, prompt_len=1)
    logits = np.random.default_rng(5).normal(0, 1, (4, V)).astype(np.float32)
    state = enter(init_slots(R, V), 0, Sequence(params))
    sampled = sample_jit(logits, packed, ints([0, 0, R, R]), ints([1] * 4), ints([-1] * 4), state)
    np.testing.assert_array_equal(sampled.tokens[1:], logits[1:].argmax(axis=1))


@pytest.mark.parametrize(
    "options", [{}, {"allowed_token_ids": [3, 5, 21, 22]}, {"logit_bias": {4: 9}}]
)
def test_rows_that_sample_choose_the_same_among_blocks_that_do_not(options) -> None:
    """A CPU passes over eight rows of which none samples: padding, or those sampled later."""
    logits = np.random.default_rng(3).normal(0, 2, (3, V)).astype(np.float32)
    batch = [Sequence(SamplingParams(**options), seed=seed) for seed in (7, 8, 9)]
    state, slots = init_slots(R, V), [2, 5, 0]
    for slot, sequence in zip(slots, batch, strict=True):
        state = enter(state, slot, sequence)
    alone = choose(logits, batch, slots, state).tokens
    behind = choose(logits, batch, slots, state, width=24).tokens
    idle = [Sequence(GREEDY)] * 15  # the last row of the second block, and two of the third
    wide = choose(
        np.pad(logits, ((15, 0), (0, 0))), [*idle, *batch], [R] * 15 + slots, state, width=24
    ).tokens
    assert behind.tolist() == wide[15:].tolist() == alone.tolist()


def test_scored_rows_return_their_target_and_ignore_every_option() -> None:
    logits = np.random.default_rng(3).normal(0, 2, (4, V)).astype(np.float32)
    params = SamplingParams(top_k=1, allowed_token_ids=[0], prompt_logprobs=2)
    state = enter(init_slots(R, V), 0, Sequence(params))
    packed = np.repeat(sampling_row(params, seed=0, prompt_len=1)[:, None], 4, 1)
    sampled = sample_jit(logits, packed, ints([0] * 4), ints([3] * 4), ints([17, -1, 0, 39]), state)
    assert sampled.tokens.tolist() == [17, 0, 0, 39]
    assert sampled.logprob_ids[0, 0] == 17
    exact = logits[0] - np.log(np.exp(logits[0].astype(np.float64)).sum())
    np.testing.assert_allclose(sampled.logprobs[0, 0], exact[17], rtol=1e-5)
    assert sampled.ranks[0] == 1 + (logits[0] > logits[0, 17]).sum()


def test_one_program_serves_every_mix_of_options() -> None:
    traces = []

    def counted(*arguments):
        traces.append(arguments)
        return sample_packed(*arguments)

    program, state = jax.jit(counted), init_slots(R, V)
    logits = np.zeros((1, V), np.float32)
    for options in ({}, {"temperature": 0}, {"top_k": 3, "seed": 5}, {"logprobs": 4},
                    {"logit_bias": {1: 2.0}}, {"min_tokens": 3}, {"top_p": 0.2}):  # fmt: skip
        row = sampling_row(SamplingParams(**options), seed=1, prompt_len=1)[:, None]
        program(logits, row, ints([0]), ints([1]), ints([-1]), state)
    assert len(traces) == 1


def test_a_step_updates_the_donated_state_in_place() -> None:
    vocab_size, num_slots = 4096, 7

    def step(state, logits, packed, slots, tokens):
        state = observe(state, tokens, slots, tokens >= 0, slots, slots, slots * 0 + 1)
        return state, sample(logits, unpack_rows(packed), slots, tokens, tokens * 0 - 1, state)

    state = init_slots(num_slots, vocab_size)
    row = sampling_row(SamplingParams(presence_penalty=1), seed=0, prompt_len=1)
    arguments = (np.zeros((2, vocab_size), np.float32), np.stack([row, row], 1), ints([0, 1]))
    compiled = jax.jit(step, donate_argnums=0).lower(state, *arguments, ints([5, 6])).compile()
    size = sum(part.nbytes for part in jax.tree.leaves(state))
    assert compiled.memory_analysis().alias_size_in_bytes >= size
    copies = re.findall(rf"= s32\[{num_slots + 1},{vocab_size}\]\S* copy\(", compiled.as_text())
    assert not copies


def test_a_sharded_vocabulary_gives_the_same_tokens() -> None:
    if jax.device_count() < 4:
        pytest.skip("needs four devices; JAX_NUM_CPU_DEVICES=4 makes them")
    mesh = Mesh(np.array(jax.devices()[:4]), ("model",))
    logits = np.random.default_rng(4).normal(0, 1, (4, V)).astype(np.float32)
    batch = [
        Sequence(SamplingParams(**options), output=[1, 2, 2], seed=9)
        for options in ({}, {"temperature": 0}, {"top_k": 9, "top_p": 0.9},
                        {"frequency_penalty": 2.0, "logit_bias": {7: 3.0}, "logprobs": 5})
    ]  # fmt: skip
    state = init_slots(R, V)
    for slot, sequence in enumerate(batch):
        state = enter(state, slot, sequence)
    packed = np.stack([sampling_row(s.params, seed=9, prompt_len=1) for s in batch], 1)
    rest = (packed, ints([0, 1, 2, 3]), ints([4] * 4), ints([-1] * 4))
    whole = sample_jit(logits, *rest, state)
    by_vocabulary = NamedSharding(mesh, PartitionSpec(None, "model"))
    counts = jax.device_put(state.counts, by_vocabulary)
    replicated = jax.device_put(state, NamedSharding(mesh, PartitionSpec()))
    split = sample_jit(
        jax.device_put(logits, by_vocabulary), *rest, replicated._replace(counts=counts)
    )
    np.testing.assert_array_equal(split.tokens, whole.tokens)
    np.testing.assert_array_equal(split.logprob_ids[3], whole.logprob_ids[3])
    np.testing.assert_allclose(split.logprobs, whole.logprobs, rtol=1e-5)
    assert whole.logprobs.shape == (4, 1 + MAX_LOGPROBS)
