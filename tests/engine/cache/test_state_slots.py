"""Models with states: what a request writes does not depend on how its tokens were scheduled."""

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import jax
import pytest

from engine.beams.core import BeamCore
from engine.beams.params import BeamSearchParams
from engine.cache.state_slots import StateLayout, fit_states
from engine.compiling import shapes
from engine.config import EngineConfig
from engine.core import EngineCore
from engine.cores import make_core as make_any_core
from engine.errors import ConfigError
from engine.messages import AddBeams
from models.registry import find_architecture
from tests.engine.conftest import CONFIG, run
from tests.engine.conftest import make_core as make_dummy_core
from tests.models.checkpoints.safetensors_files import write_checkpoint
from tests.parity.cases import CASES
from tests.parity.goldens import read
from tests.parity.weights import tensor

HYBRID = CASES["bamba"].config
SIZES = {"max_num_seqs": 2, "max_num_batched_tokens": 32}
LENGTH = 96  # of the longest sequence
RATES = ("A_log", "recurrent_param")  # of forgetting
Alone = Callable[[list[list[int]]], list[list[int]]]


@pytest.fixture(scope="module", autouse=True)
def few_quick_compiles() -> Iterator[None]:
    """Here programs take longer to compile than to run: an engine has one for mixed steps, and one
    of each window."""
    jax.config.update("jax_disable_most_optimizations", True)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(shapes, "mixed_tokens", lambda _, most: [-(-most // 8) * 8])
        patch.setattr(shapes, "decode_rows", lambda most: [most])
        yield
    jax.config.update("jax_disable_most_optimizations", False)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A hybrid whose states forget slowly: what a wrong one holds shows in every later token."""
    folder = tmp_path_factory.mktemp("hybrid")
    write_slow(folder, "bamba")
    return folder


def write_slow(folder: Path, name: str) -> None:
    """A case whose states forget slowly, and whose texts vary."""
    case, golden = CASES[name], read(name)
    spread = replace(case.spread, gain=1.3)
    tensors = {name: tensor(case.seed, name, shape, spread) for name, shape in golden.tensors}
    slow = {name: array - 6 for name, array in tensors.items() if name.endswith(RATES)}
    write_checkpoint(folder, case.config, tensors | slow)


def make_core(folder: Path, **settings: Any) -> EngineCore:
    return make_dummy_core(folder, load_format="auto", max_model_len=LENGTH, **settings)


@pytest.fixture(scope="module")
def plain(folder: Path) -> Iterator[EngineCore]:
    """One row, no cache, and prompts in one piece."""
    settings = {"max_num_seqs": 1, "max_num_batched_tokens": LENGTH}
    engine = make_core(folder, enable_prefix_caching=False, **settings)
    yield engine
    engine.close()


@pytest.fixture(scope="module")
def cached(folder: Path) -> Iterator[EngineCore]:
    """Rows side by side that leave states for others; no two tests have the same prompts."""
    engine = make_core(folder, **SIZES)
    yield engine
    assert engine.stats.num_compiles_after_warmup == 0
    engine.close()


@pytest.fixture(scope="module")
def alone(plain: EngineCore) -> Alone:
    """What each prompt gives by itself, in one piece."""
    return lambda prompts: [written(plain, [prompt])[0] for prompt in prompts]


def prompts(which: int) -> list[list[int]]:
    """Three, of which the second takes several pages."""
    return [
        [7 + which, 9, 30, 11, 5],
        [3 + (5 * i + 7 * which) % 60 for i in range(41)],
        [50, 60, 40 + which],
    ]


def written(engine: EngineCore, prompts: list[list[int]], **options: Any) -> list[list[int]]:
    texts = [t.ids for t in run(engine, prompts, max_tokens=30, ignore_eos=True, **options)]
    assert all(len(set(text)) > 5 for text in texts)
    return texts


@pytest.mark.parametrize(
    "settings",
    [
        # chunks and preemption
        {"num_gpu_blocks_override": 7, "max_num_batched_tokens": 7, "max_num_seqs": 2},
        {"num_scheduler_steps": 2, "async_scheduling": False, **SIZES},
    ],
)
def test_scheduling_does_not_change_what_is_written(
    folder: Path, alone: Alone, settings: dict[str, Any]
) -> None:
    engine, given = make_core(folder, **settings), prompts(0)
    try:
        if "num_scheduler_steps" in settings:
            engine.wait_for_programs()
        assert written(engine, given, steps_between=1) == alone(given)
        preempts = "num_gpu_blocks_override" in settings
        assert (engine.stats.num_preemptions > 0) == preempts
        assert written(engine, given) == alone(given)  # slots that hold others' states
        assert engine.stats.num_compiles_after_warmup == 0
        assert preempts or engine.stats.prefix_cache_hits == 32  # of the longest, once
    finally:
        engine.close()


def test_a_step_that_was_taken_back_leaves_no_trace(
    cached: EngineCore, alone: Alone, monkeypatch: pytest.MonkeyPatch
) -> None:
    launch, step, calls = cached._runner.launch, cached.step, iter(range(10**6))

    def interrupted(plan):
        if next(calls) in (1, 5, 6):
            raise KeyboardInterrupt
        return launch(plan)

    def again():
        while True:
            try:
                return step()
            except KeyboardInterrupt:
                continue

    monkeypatch.setattr(cached._runner, "launch", interrupted)
    monkeypatch.setattr(cached, "step", again)
    assert written(cached, prompts(1)) == alone(prompts(1))
    assert next(calls) > 7


def test_prompts_that_begin_alike_go_on_from_a_state_that_was_kept(
    plain: EngineCore, cached: EngineCore
) -> None:
    begin = [3 + 7 * i % 60 for i in range(37)]  # two pages of 16, and a part
    first, second, third = ([*begin, *[9 + 11 * n] * 20] for n in range(3))
    hits = []

    def both(prompts: list[list[int]]) -> list[list[int]]:
        before = cached.stats.prefix_cache_hits
        texts = [[text.ids for text in run(core, prompts)] for core in (plain, cached)]
        hits.append(cached.stats.prefix_cache_hits - before)
        assert texts[0] == texts[1]
        return texts[0]

    answer = both([first])[0]
    both([second])  # parts from the first where no state was kept, and leaves one there
    both([third])
    both([first + answer + begin[:9]])  # the next turn
    both([second, third])
    assert hits == [0, 0, 32, 48, 96]
    both([[5 + 3 * n + i * i % 30 for i in range(40)] for n in range(9)])  # states go
    both([first, second])


@pytest.mark.parametrize("name", ["zamba2", "recurrent_gemma"])
def test_states_of_other_kinds_are_kept_and_taken_up_as_well(name: str, tmp_path: Path) -> None:
    write_slow(tmp_path, name)
    begin = [3 + 7 * i % 28 for i in range(37)]
    given = [[*begin, *[(11 * n + 9 * i) % 31 for i in range(5)]] for n in range(3)]
    whole = make_core(
        tmp_path, enable_prefix_caching=False, max_num_seqs=1, max_num_batched_tokens=LENGTH
    )
    cut = make_core(tmp_path, num_gpu_blocks_override=7, **SIZES)
    try:
        wanted = [written(whole, [prompt])[0] for prompt in given]
        assert [written(cut, [prompt])[0] for prompt in given] == wanted
        assert cut.stats.prefix_cache_hits == 64
        assert written(cut, given) == wanted
        assert cut.stats.num_preemptions > 0
    finally:
        whole.close()
        cut.close()


def test_beams_do_not_depend_on_scheduling(plain: EngineCore, cached: EngineCore) -> None:
    def search(engine: EngineCore, width: int) -> list[list[int]]:
        params = BeamSearchParams(width, 8, ignore_eos=True)
        message = AddBeams(
            request_ids=list(range(width)), prompt_token_ids=prompts(2)[1], params=params
        )
        beams, found = BeamCore(engine), {}
        beams.add(message)
        while beams.has_work:
            found |= {d.request_id: d.new_token_ids for d in beams.step().deltas}
        return [found[request_id] for request_id in range(width)]

    assert search(cached, 3) == search(plain, 3)


def test_what_a_state_cannot_do_is_refused(folder: Path) -> None:
    with pytest.raises(ConfigError, match=r"--kv-offloading-size .* BambaForCausalLM"):
        make_core(folder, kv_offloading_size=0.5)
    with pytest.raises(ConfigError, match=r"BambaForCausalLM .* no vectors"):
        make_any_core(
            EngineConfig(model=str(folder), load_format="dummy", runner="pooling", convert="embed")
        )


def test_rows_are_fewer_where_states_are_large() -> None:
    model = find_architecture(HYBRID).config(HYBRID)
    config = EngineConfig(model="any", enable_prefix_caching=False)
    row = 2 * 4 * (3 * 168 + 6 * 20 * 12)  # two layers: a convolution of 168 channels, 6 heads
    layout = StateLayout(2, 9, (3, 168), (6, 20, 12))
    assert layout.nbytes == 9 * row
    assert sum(array.nbytes for array in jax.tree.leaves(layout.zeros())) == layout.nbytes
    assert fit_states(config, model, 64, "float32", 2 * 9 * row).max_num_seqs == 8
    assert fit_states(config, model, 64, "float32", 2 * 9 * row - 1).max_num_seqs == 4
    cached = EngineConfig(model="any")  # 4 rows, padding's, and 8 snapshots
    assert fit_states(cached, model, 64, "float32", 2 * 13 * row).max_num_seqs == 4
    assert fit_states(cached, model, 64, "float32", 2 * 13 * row - 1).max_num_seqs == 2
    asked = EngineConfig(model="any", max_num_seqs=64)
    assert fit_states(asked, model, 64, "float32", 2 * row).max_num_seqs == 64


def test_models_without_states_have_none(tiny_folder: Path) -> None:
    dense = find_architecture(CONFIG).config(CONFIG)
    config = EngineConfig(model="any")
    assert fit_states(config, dense, 64, "float32", 1) is config
