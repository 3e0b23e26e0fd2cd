"""Engines that let go of their memory, and answer as before once they have it again."""

import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest
from msgspec.structs import replace

from engine import LLM, LoRARequest, SamplingParams
from engine.errors import ConfigError, RequestError
from engine.messages import Restore
from models.errors import ModelError
from tests.engine.adapters.test_loading import SHAPES
from tests.engine.cache.test_state_slots import write_slow
from tests.engine.conftest import few_programs
from tests.models.checkpoints.adapter_folders import halves, write_adapter
from tests.parity.encdec_cases import CASES, FOLDER
from tests.parity.goldens import read
from tests.parity.paged import write_case

GREEDY = SamplingParams(temperature=0, max_tokens=24, ignore_eos=True)
PROMPTS = [[(7 * i + k) % 61 + 3 for i in range(5 + 11 * k)] for k in range(4)]
SIZES = {"max_num_seqs": 3, "max_num_batched_tokens": 24, "max_model_len": 96, "seed": 1}
STEPS = {"num_scheduler_steps": 1, "enable_sleep_mode": True}
Folders = Callable[[str], Path]


@pytest.fixture(scope="module", autouse=True)
def few_quick_compiles() -> Iterator[None]:
    jax.config.update("jax_disable_most_optimizations", True)
    with pytest.MonkeyPatch.context() as patch:
        few_programs(patch)
        yield
    jax.config.update("jax_disable_most_optimizations", False)


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory, tiny_folder: Path) -> Folders:
    def folder(name: str) -> Path:
        made = tmp_path_factory.mktemp(name)
        if name == "states":
            write_slow(made, "bamba")
        elif name == "encoder":
            write_case(made, CASES["t5"], read("t5", FOLDER))
        else:
            return tiny_folder
        return made

    return folder


KINDS: dict[str, dict[str, Any]] = {
    "everything": {
        "load_format": "dummy", "tensor_parallel_size": 2, "enable_lora": True, "max_loras": 2,
        "max_lora_rank": 4, "kv_offloading_size": 0.001, "num_gpu_blocks_override": 16,
        "speculative_config": {"num_speculative_tokens": 2},
    },
    "states": {"quantization": "int8"},
    "encoder": {},
}  # fmt: skip


@pytest.fixture(scope="module", params=KINDS)
def llm(request: pytest.FixtureRequest, folders: Folders) -> Iterator[LLM]:
    kind = request.param
    with LLM(str(folders(kind)), **SIZES, **STEPS, **KINDS[kind]) as made:
        yield made


@pytest.fixture(scope="module")
def adapters(llm: LLM, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """Of each prompt, or of none: more than there are slots."""
    if not llm.core.config.enable_lora:
        return None
    folder, found = tmp_path_factory.mktemp("adapters"), []
    for number, name in enumerate("abc", 1):
        path = write_adapter(folder / name, halves(SHAPES, 3, number), 3, lora_alpha=9)
        found.append(LoRARequest(name, number, str(path)))
    return [*found, None]


def enqueue(llm: LLM, adapters: Any) -> None:
    llm.enqueue([{"prompt_token_ids": each} for each in PROMPTS], GREEDY, lora_request=adapters)


def finish(llm: LLM) -> list[list[int]]:
    return [each.outputs[0].token_ids for each in llm.wait_for_completion(use_tqdm=False)]


def run(llm: LLM, adapters: Any = None) -> list[list[int]]:
    enqueue(llm, adapters)
    return finish(llm)


def live_bytes() -> int:
    return sum(array.nbytes for array in jax.live_arrays())


@contextmanager
def nothing_compiled() -> Iterator[None]:
    compiled, here = [], threading.get_ident()

    def listen(event: str, _: float, **__: Any) -> None:
        if "backend_compile" in event and threading.get_ident() == here:
            compiled.append(event)

    jax.monitoring.register_event_duration_secs_listener(listen)
    try:
        yield
    finally:
        jax.monitoring.unregister_event_duration_listener(listen)
    assert compiled == []


@pytest.mark.parametrize("level", [1, 2])
def test_answers_are_the_same_behind_a_sleep(llm: LLM, adapters: Any, level: int) -> None:
    """Also of requests that were in the middle of theirs, and of those that had not begun."""
    want = run(llm, adapters)
    assert run(llm, adapters) == want  # all that is found is used, too
    held, info = live_bytes(), llm.info
    enqueue(llm, adapters)
    for _ in range(9):
        llm._loop.turn()
    with nothing_compiled():
        llm.sleep(level, mode="keep")
        assert held - live_bytes() >= info.parameter_bytes + info.kv_cache_bytes
        assert llm.core.sleeps and not llm.core.has_work
        llm.wake_up(["weights"])
        assert llm.core.sleeps
        llm.wake_up(["kv_cache"])
        assert not llm.core.sleeps and finish(llm) == want
        assert run(llm, adapters) == want
    stats = llm.core.stats
    assert stats.num_compiles_after_warmup == 0 and stats.num_free_pages == stats.num_pages
    assert live_bytes() <= held + (1 << 16)


def test_what_the_host_has_of_the_cache_is_lost_with_the_weights_only(llm: LLM) -> None:
    tier = llm.core._tier
    if tier is None:
        pytest.skip("has no memory of the host")
    run(llm)
    run(llm, None)
    llm.generate([{"prompt_token_ids": [each] * 40} for each in range(3, 9)], GREEDY)
    kept, pool = len(tier), llm.core._scheduler.pool
    assert kept
    pool.release(pool.allocate(pool.num_free) or [])  # what was idle is to go to the host
    leaving = [copy.host for copy in tier.copies]
    assert leaving
    llm.sleep(1)
    assert any(host.content is not None for host in leaving) and not tier.copies
    assert all(host.dropped or np.asarray(host.content.k).any() for host in leaving)
    llm.wake_up()
    assert len(tier) >= kept
    want = run(llm)
    llm.sleep(2)
    assert not len(tier)
    llm.wake_up()
    assert run(llm) == want


@pytest.fixture(scope="module")
def one(tiny_folder: Path) -> Iterator[LLM]:
    with LLM(str(tiny_folder), load_format="dummy", **SIZES, **STEPS) as made:
        yield made


def test_a_pause_keeps_everything(one: LLM) -> None:
    want = run(one)
    held = live_bytes()
    enqueue(one, None)
    for _ in range(5):
        one._loop.turn()
    one.sleep(0, mode="keep")
    before = one.core.stats.num_preemptions
    assert one.core.sleeps and live_bytes() >= held
    asleep = (
        lambda: one.generate({"prompt_token_ids": [3]}),
        lambda: next(one.stream({"prompt_token_ids": [3]})),
        lambda: one.wait_for_completion(use_tqdm=False),
    )
    for ask in asleep:
        with pytest.raises(RequestError, match=r"sleeps; call wake_up\(\) first"):
            ask()
    one.wake_up()
    assert finish(one) == want and one.core.stats.num_preemptions == before


def test_what_is_at_work_ends_or_is_waited_for(one: LLM) -> None:
    want = run(one)
    stream = one.stream({"prompt_token_ids": [3, 4]}, GREEDY)
    first = next(stream)
    enqueue(one, None)
    one.sleep()
    ended = one.wait_for_completion(use_tqdm=False)
    assert [each.outputs[0].finish_reason for each in ended] == ["abort"] * 4
    assert first.finish_reason is None and [each.finish_reason for each in stream][-1] == "abort"
    assert one.core.stats.weights == "offloaded" and not one.core._scheduler.has_requests
    one.wake_up()
    enqueue(one, None)
    one.sleep(2, mode="wait")
    assert finish(one) == want and one.core.stats.weights == "discarded"
    one.wake_up()
    assert run(one) == want


def test_what_a_pause_has_kept_may_be_waited_for(one: LLM) -> None:
    want = run(one)
    enqueue(one, None)
    one.sleep(0, mode="keep")
    one.sleep(1, mode="wait")
    assert not one.core.has_requests and finish(one) == want
    one.wake_up()
    enqueue(one, None)
    one.sleep(1, mode="keep")
    with pytest.raises(RequestError, match="cannot end while the engine sleeps") as told:
        one.sleep(2, mode="wait")
    assert told.value.param == "mode" and one.core.stats.weights == "offloaded"
    one.wake_up()
    assert finish(one) == want


def test_levels_may_follow_one_another(one: LLM) -> None:
    want = run(one)
    for levels in ([1, 1], [1, 2], [2, 1], [0, 1, 0]):
        for level in levels:
            one.sleep(level)
        one.wake_up(["kv_cache", "weights"])
        assert run(one) == want
    one.wake_up()
    assert run(one) == want


def test_threads_share_steps_and_sleep_one_after_the_other(one: LLM) -> None:
    want, told, asked = run(one), [], {"prompt_token_ids": PROMPTS[3]}
    going = threading.Semaphore(0)

    def write() -> None:
        for place, piece in enumerate(one.stream(asked, GREEDY)):
            told.append(piece)
            if not place:
                going.release()
            time.sleep(0.001)  # others turn the loop meanwhile

    def sleep() -> None:
        for level in (1, 2):
            one.sleep(level, mode="wait")
            one.wake_up()

    with ThreadPoolExecutor(4) as threads:
        writers = [threads.submit(write) for _ in range(2)]
        for _ in writers:
            assert going.acquire(timeout=60)
        sleepers = [threads.submit(sleep) for _ in range(2)]
        for each in (*writers, *sleepers):
            each.result()
    assert [each.finish_reason for each in told].count("length") == 2
    assert run(one) == want


def test_the_cache_alone_may_go(one: LLM) -> None:
    want, held = run(one), live_bytes()
    enqueue(one, None)
    for _ in range(5):
        one._loop.turn()
    one.release_kv_cache_memory()
    stats = one.core.stats
    assert held - live_bytes() >= one.info.kv_cache_bytes
    assert (stats.weights, stats.kv_cache) == ("resident", "discarded") and one.core.sleeps
    one.wake_up(["kv_cache"])
    assert finish(one) == want


def test_weights_that_cannot_be_read_any_more_leave_the_engine_asleep(
    one: LLM, monkeypatch: pytest.MonkeyPatch
) -> None:
    want = run(one)
    one.sleep(2)

    def fail(*_: Any) -> None:
        raise ModelError("The disk is gone.")

    with monkeypatch.context() as patch:
        patch.setattr("engine.model_reading.read_model", fail)
        with pytest.raises(RequestError, match="The disk is gone"):
            one.wake_up()
        assert one.core.sleeps and one.core.stats.weights == "discarded"
    one.wake_up()
    assert run(one) == want


@pytest.mark.parametrize("what", ["weights", "KV cache"])
def test_room_that_somebody_else_has_is_missed_at_waking(
    one: LLM, monkeypatch: pytest.MonkeyPatch, what: str
) -> None:
    want = run(one)
    one.sleep(1)

    def fail(*_: Any) -> None:
        raise jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: Out of memory.")

    with monkeypatch.context() as patch:
        if what == "weights":
            patch.setattr("jax.device_put", fail)
        else:
            patch.setattr(one.core._runner, "_new_state", fail)
        with pytest.raises(RequestError, match=f"no room for the {what}; whoever took"):
            one.wake_up()
        assert one.core.sleeps
    one.wake_up()
    assert run(one) == want


def test_a_host_without_room_is_not_sent_the_weights(
    one: LLM, tiny_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    want, residence = run(one), one.core._residence
    with monkeypatch.context() as patch:
        patch.setattr(residence, "_on_cpu", False)
        patch.setattr("engine.residence.host_free_bytes", lambda: 1000)
        for begin in (
            lambda: one.sleep(1),
            lambda: one.update_weights_from_disk(tiny_folder, load_format="dummy"),
        ):
            with pytest.raises(RequestError, match=r"take 0\.0 GiB and the host has 0\.0 GiB .* 2"):
                begin()
            assert run(one) == want and one.core.stats.weights == "resident"
        one.sleep(2)
    one.wake_up()
    assert run(one) == want


def test_who_is_closed_asleep_keeps_nothing(tiny_folder: Path) -> None:
    llm = LLM(str(tiny_folder), load_format="dummy", **SIZES, **STEPS)
    llm.sleep(1)
    assert llm.core._residence._host
    llm.close()
    assert not llm.core._residence._host


def test_an_answer_that_an_interrupt_left_behind_is_nobody_s(one: LLM) -> None:
    one.core.change_memory(Restore())
    with pytest.raises(RequestError, match="no folder '/nowhere'"):
        one.update_weights_from_disk("/nowhere")


def test_what_cannot_be_is_said(
    one: LLM, tiny_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sleeps = ({"level": 3}, {"level": "1"}, {"mode": "retract"}, {"mode": 1})
    for wrong in (*sleeps, {"tags": "weights"}, {"tags": 3}):
        with pytest.raises(RequestError) as told:
            (one.wake_up if "tags" in wrong else one.sleep)(**wrong)
        assert told.value.param in wrong
    with pytest.raises(RequestError, match="weights, kv_cache and scheduling"):
        one.wake_up(["cuda_graph"])
    one.sleep(1)
    with pytest.raises(RequestError, match="name weights and kv_cache, too"):
        one.wake_up(["scheduling"])
    one.wake_up()
    with pytest.raises(ConfigError, match="--enable-sleep-mode is for models that write text"):
        LLM(str(tiny_folder), runner="pooling", load_format="dummy", enable_sleep_mode=True)
    without = replace(one.core.config, enable_sleep_mode=False)
    monkeypatch.setattr(one.core, "config", without)
    for refused in (one.sleep, one.release_kv_cache_memory):
        with pytest.raises(RequestError, match="without --enable-sleep-mode"):
            refused()
    one.sleep(0)
    one.wake_up([])
    assert len(one.generate({"prompt_token_ids": [3]}, GREEDY)) == 1
