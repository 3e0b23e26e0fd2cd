"""The search by itself, on a model that is a table of log-probabilities."""

import math
from itertools import product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.beams.params import BeamSearchParams
from engine.beams.search import BeamSearch
from engine.messages import TokenLogprobs

END = 0


class Table:
    """A model of `vocab` tokens in which the next token depends on the last one."""

    def __init__(self, vocab: int, seed: int) -> None:
        logits = np.random.default_rng(seed).normal(size=(vocab, vocab)) * 2
        self.logprobs = logits - np.log(np.exp(logits).sum(axis=1, keepdims=True))

    def top(self, ids: list[int], count: int) -> TokenLogprobs:
        row = self.logprobs[ids[-1] if ids else 1]
        order = [int(token) for token in np.argsort(-row, kind="stable")[:count]]
        return TokenLogprobs([order[0], *order], [float(row[i]) for i in [order[0], *order]], 1)

    def score(self, ids: tuple[int, ...]) -> float:
        before = (1, *ids)
        return float(sum(self.logprobs[a, b] for a, b in zip(before, ids, strict=False)))


def run(table: Table, params: BeamSearchParams, **options) -> BeamSearch:
    search = BeamSearch(params, {END}, params.max_tokens, **options)
    while not search.finished:
        search.advance([table.top(b.token_ids, search.num_candidates) for b in search.live])
    return search


@settings(deadline=None, max_examples=40)
@given(st.integers(0, 10**6), st.sampled_from([0.0, 1.0, -0.5]))
def test_a_search_as_wide_as_the_model_finds_the_best_of_all(seed: int, penalty: float):
    """With 4 words, 3 tokens and "never", nothing that could win is ever dropped."""
    table, vocab, length = Table(5, seed), 5, 3
    params = BeamSearchParams(16, length, length_penalty=penalty, early_stopping="never")
    search = BeamSearch(params, {END}, length)
    while not search.finished:  # a vocabulary has fewer candidates than the width asks for
        tops = [table.top(b.token_ids, vocab) for b in search.live]
        pad = search.num_candidates - vocab
        search.advance([
            TokenLogprobs(t.token_ids + [1] * pad, t.logprobs + [-math.inf] * pad, 1) for t in tops
        ])  # fmt: skip
    words = range(1, vocab)
    whole = [(*ids, END) for n in range(length) for ids in product(words, repeat=n)]
    whole += list(product(words, repeat=length))
    best = max(whole, key=lambda ids: table.score(ids) / len(ids) ** penalty)
    assert tuple(search.ended[0].beam.token_ids) == best


@pytest.mark.parametrize("penalty", [-1.0, 0.0, 1.0, 2.0])
@pytest.mark.parametrize("seed", range(5))
def test_one_beam_is_greedy(seed: int, penalty: float):
    table = Table(9, seed)
    [ended] = run(table, BeamSearchParams(1, 12, length_penalty=penalty)).ended
    ids: list[int] = []
    while len(ids) < 12 and END not in ids:
        ids.append(table.top(ids, 1).token_ids[0])
    assert ended.beam.token_ids == ids
    assert ended.finish_reason == ("stop" if ids[-1] == END else "length")


@pytest.mark.parametrize("early", [False, True, "never"])
def test_as_many_end_as_are_searched_the_best_first(early):
    params = BeamSearchParams(4, 20, length_penalty=0.7, early_stopping=early)
    ended = run(Table(12, 3), params, num_logprobs=2).ended
    assert len({tuple(e.beam.token_ids) for e in ended}) == 4
    scores = [e.score for e in ended]
    assert scores == sorted(scores, reverse=True)
    for each in ended:
        ids, logprobs = each.beam.token_ids, each.beam.logprobs
        assert [position.token_ids[0] for position in logprobs] == ids
        assert all(len(position.token_ids) == 3 for position in logprobs)
        total = sum(position.logprobs[0] for position in logprobs)
        assert total == pytest.approx(each.beam.sum_logprobs)
        assert each.score == pytest.approx(total / len(ids) ** 0.7)


def test_an_end_that_is_ignored_is_a_token_like_others():
    ended = run(Table(12, 4), BeamSearchParams(4, 20, ignore_eos=True)).ended
    assert {e.finish_reason for e in ended} == {"length"}
    assert {len(e.beam.token_ids) for e in ended} == {20}
    assert any(END in e.beam.token_ids[:-1] for e in ended)
