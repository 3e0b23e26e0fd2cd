"""What rows draw by: against a plain search, and by the frequencies that they give."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.sampling.options import sampling_row, unpack_rows
from engine.sampling.params import SamplingParams
from engine.sampling.sampler import draw_rows
from engine.sampling.state import init_slots
from engine.watermarking.contexts import Watermark, Widths, no_watermark
from tests.engine.sampling_batch import ints, sample_jit

PROMPT_LEN = 3
remember = jax.jit(Watermark.remember)
keyed = jax.jit(Watermark.keyed)


def uses_the_key(output: list[int], widths: Widths) -> bool:
    """Whether the token behind `output` is drawn by its context."""
    width = widths.context
    if len(output) < width:
        return False
    ends = range(len(output) - 1, width - 1, -1)[: widths.history - width]
    return all(output[end - width : end] != output[-width:] for end in ends)


def rows_of(slot: int, position: int):
    column = sampling_row(SamplingParams(), seed=5, prompt_len=PROMPT_LEN)[:, None]
    return draw_rows(unpack_rows(jnp.array(column)), jnp.array([slot]), jnp.array([position]))


@settings(max_examples=60, deadline=None, derandomize=True)
@given(
    output=st.lists(st.integers(0, 2), max_size=30),
    widths=st.sampled_from(
        [Widths(1, 1), Widths(1, 4), Widths(2, 4), Widths(3, 12), Widths(2, 40)]
    ),
    cuts=st.lists(st.integers(1, 9), min_size=12, max_size=12),
)
def test_a_context_is_used_where_it_is_whole_and_new(output, widths, cuts):
    """However many tokens enter at a time."""
    watermark, start = no_watermark(4, widths), 0
    for count in [*cuts, len(output)]:
        piece = output[start : start + count]
        padding = 30 - len(piece)
        first = PROMPT_LEN + start
        watermark = remember(
            watermark, ints(piece + [0] * padding), ints([2] * len(piece) + [4] * padding),
            ints([*range(first, first + len(piece))] + [0] * padding),
            np.full(30, first + len(piece), np.int32), np.arange(30) < len(piece),
        )  # fmt: skip
        start += len(piece)
    before = rows_of(2, PROMPT_LEN + len(output))
    after = keyed(watermark, before, np.array([True]))
    changed = int(after.seed_low[0]) != int(before.seed_low[0])
    assert changed == uses_the_key(output, widths)
    assert int(keyed(watermark, before, np.array([False])).seed_low[0]) == int(before.seed_low[0])


@pytest.mark.parametrize("options", [{}, {"top_k": 5, "temperature": 0.7}])
def test_over_all_contexts_frequencies_follow_the_distribution(options):
    """4096 rows of one key and one seed, each with a context of its own; six deviations."""
    num_draws, vocab_size, width = 4096, 24, 3
    rng = np.random.default_rng(0)
    row = rng.normal(0, 1.5, vocab_size).astype(np.float32)
    column = sampling_row(SamplingParams(watermarking=True, **options), seed=7, prompt_len=1)
    state = init_slots(num_draws, vocab_size, Widths(width, width))
    contexts = np.stack([np.arange(num_draws + 1) // 64**n % 64 for n in range(width)], axis=1)
    keys = jnp.tile(jnp.array([[1, 2]], jnp.uint32), (num_draws + 1, 1))
    state = state._replace(watermark=Watermark(keys, jnp.array(contexts, jnp.int32), width))
    sampled = sample_jit(
        np.tile(row, (num_draws, 1)), np.repeat(column[:, None], num_draws, 1),
        np.arange(num_draws, dtype=np.int32), np.full(num_draws, 9, np.int32),
        np.full(num_draws, -1, np.int32), state,
    )  # fmt: skip
    seen = np.bincount(np.asarray(sampled.tokens), minlength=vocab_size)
    scaled = row / options.get("temperature", 1.0)
    if "top_k" in options:
        scaled[row < np.sort(row)[-options["top_k"]]] = -np.inf
    weights = np.exp(scaled - scaled.max())
    expected = num_draws * weights / weights.sum()
    possible = expected > 0
    assert seen[~possible].sum() == 0
    chi_square = np.sum((seen - expected)[possible] ** 2 / expected[possible])
    freedom = possible.sum() - 1
    assert chi_square < freedom + 6 * np.sqrt(2 * freedom)
