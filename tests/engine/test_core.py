"""The whole engine below the text: what it computes must not depend on how it is scheduled."""

import json
import os
import re
import subprocess
import sys

import jax
import numpy as np
import pytest

from engine.errors import EngineDeadError, EngineError, RequestError
from engine.messages import AddRequest
from engine.runner import Launched
from engine.sampling.params import SamplingParams
from tests.engine.conftest import VOCAB, few_programs, go_on_when_interrupted, make_core, run


def prompts(count, seed=0, longest=60):
    rng = np.random.default_rng(seed)
    return [rng.integers(3, VOCAB, rng.integers(1, longest)).tolist() for _ in range(count)]


def ids(texts):
    return [text.ids for text in texts]


@pytest.mark.parametrize("name", ["stories260K", "babyllama105", "capp_gpt"])
def test_trained_weights_give_their_known_text(shared_data, name):
    folder = shared_data / "weights" / name
    golden = json.loads((folder / "golden_greedy.json").read_text())
    prompt, want = golden["prompt_ids"], golden["greedy_ids"]
    engine = make_core(folder, load_format="auto", max_num_seqs=1, max_num_batched_tokens=16)
    (text,) = run(engine, [prompt], max_tokens=len(want) - len(prompt), ignore_eos=True)
    engine.close()
    assert prompt + text.ids == want


def test_together_or_alone_the_same_text(core):
    batch = prompts(9)
    alone = [run(core, [prompt])[0].ids for prompt in batch]
    assert ids(run(core, batch)) == alone
    assert ids(run(core, batch, steps_between=2)) == alone
    assert all(len(text) == 12 for text in alone)


def test_a_pool_too_small_for_all_gives_the_same_text(core, tiny_folder, monkeypatch):
    batch = prompts(6)
    watched = {"kv_cache_metrics": True, "kv_cache_metrics_sample": 1.0}
    small = make_core(tiny_folder, num_gpu_blocks_override=9 + 1, **watched)
    evictions, step = [], small.step
    monkeypatch.setattr(small, "step", lambda: _kept(step(), evictions))
    texts = run(small, batch, max_tokens=60)
    small.close()
    assert ids(texts) == ids(run(core, batch, max_tokens=60))
    assert small.stats.num_preemptions == sum(text.preemptions for text in texts) > 0
    assert evictions and all(0 <= each.idle <= each.lifetime for each in evictions)
    assert small.stats.num_free_pages == small.stats.num_pages


def _kept(report, evictions):
    evictions += report.evictions
    return report


@pytest.mark.parametrize("size", [2, 4])
def test_tensor_parallel_gives_the_same_text(shared_data, size, monkeypatch):
    if len(jax.devices()) < size:
        pytest.skip(f"needs {size} devices")
    few_programs(monkeypatch)
    folder = shared_data / "weights" / "stories260K"
    golden = json.loads((folder / "golden_greedy.json").read_text())
    want = golden["greedy_ids"][:80]
    engine = make_core(folder, load_format="auto", tensor_parallel_size=size)
    texts = run(engine, [want[:cut] for cut in (1, 20, 40)], max_tokens=40)
    engine.close()
    for cut, text in zip((1, 20, 40), texts, strict=True):
        assert text.ids == want[cut : cut + 40]


def test_seeded_text_does_not_depend_on_the_batch(core):
    params = SamplingParams(temperature=1.0, top_p=0.9, seed=7, max_tokens=12)
    other = SamplingParams(temperature=2.0, max_tokens=9, presence_penalty=1.0, seed=3)
    prompt = prompts(1)[0]
    (alone,) = run(core, [prompt], params)
    crowd = run(core, [*prompts(5, seed=4), prompt], [other] * 5 + [params], steps_between=1)
    assert crowd[-1].ids == alone.ids
    (again,) = run(core, [prompt], SamplingParams(temperature=1.0, seed=8, max_tokens=12))
    assert again.ids != alone.ids


def test_prompt_logprobs_equal_generated_ones(core):
    """Score a text that was generated: each token has the log-probability it was chosen with."""
    prompt = prompts(1, seed=5)[0]
    (text,) = run(core, [prompt], max_tokens=20, logprobs=3)
    (scored,) = run(core, [prompt + text.ids], max_tokens=1, prompt_logprobs=3)
    assert len(scored.prompt_logprobs) == len(prompt) + len(text.ids) - 1
    for said, read in zip(text.logprobs, scored.prompt_logprobs[len(prompt) - 1 :], strict=True):
        assert said.token_ids == read.token_ids and said.rank == read.rank == 1
        np.testing.assert_allclose(said.logprobs, read.logprobs, atol=1e-5)


@pytest.mark.parametrize("start", [1, 16, 17, 33, 39, 40])
def test_scores_from_a_position_on_need_no_beginning_again(core, start):
    """What is before the first scored token comes from the cache, and the scores stay the same."""
    prompt = [int(token) for token in np.random.default_rng(start).integers(3, VOCAB, 40)]
    (whole,) = run(core, [prompt], max_tokens=1, prompt_logprobs=1)
    hits = core.stats.prefix_cache_hits
    (rest,) = run(core, [prompt], max_tokens=1, prompt_logprobs=1, prompt_logprobs_start=start)
    assert core.stats.prefix_cache_hits - hits == min(start - 1, 39)
    assert len(rest.prompt_logprobs) == 40 - start and rest.ids == whole.ids
    for new, old in zip(rest.prompt_logprobs, whole.prompt_logprobs[start - 1 :], strict=True):
        assert new.token_ids == old.token_ids
        np.testing.assert_allclose(new.logprobs, old.logprobs, atol=1e-5)


def test_a_cache_that_is_reset_finds_nothing_and_changes_nothing(core):
    """Neither for who comes, nor for who runs; what is computed afterwards is found again."""
    [prompt] = prompts(1, seed=9)
    prompt = (prompt * 40)[:40]
    (first,) = run(core, [prompt], max_tokens=12)

    def hits(**options):
        before = core.stats.prefix_cache_hits
        (text,) = run(core, [prompt], max_tokens=12, **options)
        assert text.ids == first.ids
        return core.stats.prefix_cache_hits - before

    assert hits() > 0
    core.reset_prefix_cache()
    assert hits() == 0
    assert hits() > 0
    message = AddRequest(
        request_id=10**6,
        prompt_token_ids=prompt,
        params=SamplingParams(max_tokens=12, temperature=0),
    )
    core.add(message)
    ids = []
    while core.has_work:
        ids += [token for delta in core.step().deltas for token in delta.new_token_ids]
        owned = sum(core.page_map().owned)
        assert owned == sum(map(len, core.pages().values()))
        if len(ids) < 6:
            core.reset_prefix_cache()
    assert ids == first.ids and core.stats.num_free_pages == core.stats.num_pages
    assert hits() == 0


@pytest.mark.parametrize("retract", [False, True])
@pytest.mark.parametrize("reset", [False, True])
def test_a_frozen_engine_goes_on_where_it_was(core, retract, reset):
    """Requests that run keep their pages, or give all back; the tokens are the same, and nothing is
    compiled. What comes meanwhile waits, and what is aborted meanwhile is gone."""
    texts = prompts(4, seed=11)
    alone = [text.ids for text in run(core, texts, max_tokens=12)]
    compiles = core.stats.num_compiles_after_warmup
    params = SamplingParams(max_tokens=12, temperature=0)
    ids = {2 * 10**6 + number: [] for number in range(4)}

    def add(number):
        core.add(
            AddRequest(request_id=2 * 10**6 + number, prompt_token_ids=texts[number], params=params)
        )

    def turn():
        for delta in core.step().deltas:
            ids[delta.request_id] += delta.new_token_ids

    for number in range(3):
        add(number)
    while len(ids[2 * 10**6]) < 4:
        turn()
    core.freeze(retract=retract)
    if reset:
        core.reset_prefix_cache()
    for _ in range(4):  # what was started is read
        turn()
    assert not core.has_work
    before = {name: len(tokens) for name, tokens in ids.items()}
    assert before[2 * 10**6] < 12
    owned = sum(core.page_map().owned)
    assert (owned == 0) if retract else (owned >= 3)
    add(3)
    core.abort([2 * 10**6 + 1])
    for _ in range(3):
        turn()
    assert not core.has_work and {name: len(tokens) for name, tokens in ids.items()} == before
    core.thaw()
    while core.has_work:
        turn()
    assert [ids[2 * 10**6 + n] for n in (0, 2, 3)] == [alone[n] for n in (0, 2, 3)]
    assert len(ids[2 * 10**6 + 1]) < 12
    assert core.stats.num_free_pages == core.stats.num_pages
    assert core.stats.num_compiles_after_warmup == compiles


def test_logprobs_are_those_of_the_whole_distribution(core):
    (text,) = run(core, [[5, 6, 7]], max_tokens=2, logprobs=20)
    first = text.logprobs[0]
    assert len(first.token_ids) == 21 and first.token_ids[0] == first.token_ids[1] == text.ids[0]
    assert sorted(first.logprobs[1:], reverse=True) == first.logprobs[1:]
    assert sum(np.exp(first.logprobs[1:])) < 1


def test_ends(core):
    prompt = [5, 6, 7]
    (free,) = run(core, [prompt], max_tokens=10, ignore_eos=True)
    assert free.finish_reason == "length" and len(free.ids) == 10
    stop = free.ids[4]
    (stopped,) = run(core, [prompt], max_tokens=10, stop_token_ids=[stop])
    cut = free.ids.index(stop) + 1
    assert (stopped.ids, stopped.finish_reason) == (free.ids[:cut], "stop")
    assert stopped.stop_token_id == stop
    (long,) = run(core, [prompt], max_tokens=10, stop_token_ids=[stop], min_tokens=8)
    assert len(long.ids) >= 8 and stop not in long.ids[:7]
    (full,) = run(core, [prompt], max_tokens=None, ignore_eos=True)
    assert len(prompt) + len(full.ids) == core.info.max_model_len
    assert full.finish_reason == "length"


def test_options_that_live_on_the_device_follow_their_request_through_preemption(core, tiny_folder):
    options = {"max_tokens": 50, "repetition_penalty": 1.8, "frequency_penalty": 0.5}
    batch = prompts(5, seed=2)
    small = make_core(tiny_folder, num_gpu_blocks_override=9 + 1)
    texts = run(small, batch, **options)
    small.close()
    assert small.stats.num_preemptions > 0
    assert ids(texts) == ids(run(core, batch, **options))
    assert ids(texts) != ids(run(core, batch, max_tokens=50))


def test_bans_hold(core):
    (free,) = run(core, [[9, 8]], max_tokens=8, ignore_eos=True)
    banned = SamplingParams(temperature=0, max_tokens=8, logit_bias={free.ids[0]: -100.0})
    allowed = SamplingParams(temperature=1, max_tokens=8, allowed_token_ids=[11, 12], seed=0)
    first, second = run(core, [[9, 8], [9, 8]], [banned, allowed])
    assert first.ids[0] != free.ids[0]
    assert set(second.ids) <= {11, 12}


def test_abort_frees_at_once(core):
    for number in range(6):
        core.add(
            AddRequest(
                request_id=number, prompt_token_ids=[3] * 20, params=SamplingParams(max_tokens=90)
            )
        )
    for _ in range(3):
        core.step()
    core.abort([0, 1, 2, 3, 4, 5, 99])
    report = core.step()
    assert report.stats.num_running == report.stats.num_waiting == 0
    assert report.stats.num_free_pages == report.stats.num_pages
    while core.has_work:
        assert core.step().deltas == []


@pytest.mark.parametrize(
    ("prompt", "options", "param"),
    [
        ([], {}, "prompt"),
        ([5] * 128, {}, "prompt"),
        ([5, VOCAB], {}, "prompt"),
        ([-1], {}, "prompt"),
        ([5], {"stop_token_ids": [VOCAB]}, "stop_token_ids"),
        ([5], {"logit_bias": {VOCAB: 1.0}}, "logit_bias"),
        ([5], {"allowed_token_ids": [-1]}, "allowed_token_ids"),
        ([5], {"priority": 1}, "priority"),
    ],
)
def test_bad_requests_are_refused_by_name_and_harm_nobody(core, prompt, options, param):
    priority = options.pop("priority", 0)
    params = SamplingParams(**options)
    with pytest.raises(RequestError) as caught:
        core.add(
            AddRequest(request_id=0, prompt_token_ids=prompt, params=params, priority=priority)
        )
    assert caught.value.param == param
    assert not core.has_work
    assert len(run(core, [[5, 6]])[0].ids) == 12


def test_a_closed_engine_says_so(tiny_folder):
    engine = make_core(tiny_folder)
    engine.close()
    with pytest.raises(EngineDeadError, match="closed"):
        engine.add(AddRequest(request_id=0, prompt_token_ids=[1], params=SamplingParams()))


@pytest.mark.parametrize("where", ["_runner.launch", "_scheduler._admit", "_constrained.advance"])
def test_a_failed_step_ends_the_engine(tiny_folder, monkeypatch, where):
    """On the host too: others in the plan would go on from what was never computed."""
    monkeypatch.setattr("engine.core.Runner.warm_up", lambda _: 0.0)
    engine = make_core(tiny_folder, async_scheduling=False)
    engine.add(AddRequest(request_id=0, prompt_token_ids=[1], params=SamplingParams()))

    def fail(*_):
        raise RuntimeError("device on fire")

    part, name = where.split(".")
    monkeypatch.setattr(getattr(engine, part), name, fail)
    with pytest.raises(EngineError, match="RuntimeError: device on fire"):
        engine.step()
    with pytest.raises(EngineDeadError, match="device on fire"):
        engine.step()
    engine.close()


@pytest.mark.parametrize("where", ["launch", "read"])
def test_an_interrupt_loses_nothing(core, monkeypatch, where):
    batch = prompts(3, seed=6)
    want = ids(run(core, batch))
    target = core._runner if where == "launch" else Launched
    real, calls = getattr(target, where), []

    def interrupted(*arguments):
        calls.append(arguments)
        if len(calls) == 5:
            raise KeyboardInterrupt
        return real(*arguments)

    monkeypatch.setattr(target, where, interrupted)
    go_on_when_interrupted(core, monkeypatch)
    assert ids(run(core, batch)) == want and len(calls) > 5


def test_a_closed_engine_gives_its_memory_back(tiny_folder):
    engine = make_core(tiny_folder)
    arrays = [*engine.model.leaves, engine._runner._state.cache.k]
    engine.close()
    assert all(array.is_deleted() for array in arrays)


def test_a_program_may_end_without_closing(tiny_folder):
    """Background compiles are stopped, not crashed into, when the interpreter ends."""
    quiet = "ignore:Error reading persistent compilation cache entry"  # another test may write it
    code = (
        "from tests.engine.conftest import make_core, run; from pathlib import Path;"
        f"print(run(make_core(Path({str(tiny_folder)!r})), [[5, 6]])[0].ids)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True,
        env={**os.environ, "PYTHONWARNINGS": quiet},
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (0, ""), done.stderr
    assert done.stdout.startswith("[")


class TestPrograms:
    """What XLA made of the steps."""

    def test_no_copy_of_the_cache_and_no_host_callback(self, core):
        runner = core._runner
        cache = runner._state.cache.k
        shape = "f32[" + ",".join(map(str, cache.shape)) + "]"
        for program in core.programs:
            text = program.run.as_text()
            copies = [
                line for line in text.splitlines()
                if re.search(r"= \S+ copy(-start)?\(", line) and shape in line
            ]  # fmt: skip
            assert copies == []
            assert "callback" not in text
            aliased = program.run.memory_analysis().alias_size_in_bytes
            assert aliased >= sum(leaf.nbytes for leaf in jax.tree.leaves(runner._state))

    def test_every_shape_has_a_program(self, core):
        assert [str(program.shape) for program in core.programs] == [
            "decode 1 rows", "decode 2 rows", "decode 4 rows", "mixed 16 tokens", "mixed 32 tokens",
        ]  # fmt: skip


def test_a_known_beginning_changes_no_token(tiny_folder):
    """Rows that share pages, and rows that find them later, write what they would alone."""
    common = [5, 17, 40, 3] * 10
    prompts = [[*common, tail, tail + 1] for tail in (7, 50)] + [common[:37]]
    engine = make_core(tiny_folder, enable_prefix_caching=False)
    alone = [run(engine, [prompt])[0].ids for prompt in prompts]
    engine.close()
    engine = make_core(tiny_folder)
    try:
        together = [text.ids for text in run(engine, prompts)]
        again = [text.ids for text in run(engine, prompts, steps_between=3)]
        hits = engine.stats.prefix_cache_hits
    finally:
        engine.close()
    assert together == alone and again == alone
    assert hits == 2 * 32 + 2 * 41 + 36  # later all but the last token


def test_cached_tokens_are_reported_once(core):
    prompt = [9, 8, 7, 6] * 5
    run(core, [prompt])
    core.add(
        AddRequest(
            request_id=0,
            prompt_token_ids=prompt,
            params=SamplingParams(temperature=0, max_tokens=3),
        )
    )
    reported = []
    while core.has_work:
        reported += [delta.num_cached_tokens for delta in core.step().deltas]
    assert reported == [19, 0, 0]
