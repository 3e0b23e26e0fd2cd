"""Weights of other checkpoints, read into an engine that runs."""

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest

from engine import LLM, LoRARequest, SamplingParams
from engine.errors import RequestError
from models.checkpoints.hub import HubError
from tests.engine.adapters.test_loading import SHAPES
from tests.engine.conftest import CONFIG, VOCAB, few_programs
from tests.engine.test_sleeping import live_bytes, nothing_compiled
from tests.models.checkpoints.adapter_folders import halves, write_adapter
from tests.models.checkpoints.safetensors_files import write_checkpoint

GREEDY = SamplingParams(temperature=0, max_tokens=16, ignore_eos=True)
PROMPTS = [[(5 * i + k) % 61 + 3 for i in range(4 + 12 * k)] for k in range(3)]
ALL: dict[str, Any] = {
    "max_num_seqs": 2, "max_num_batched_tokens": 24, "max_model_len": 96, "num_scheduler_steps": 1,
    "tensor_parallel_size": 2, "quantization": "int8", "enable_lora": True, "max_lora_rank": 4,
    "kv_offloading_size": 0.001, "num_gpu_blocks_override": 12, "enable_sleep_mode": True,
}  # fmt: skip


def tensors(seed: int, wide: int = CONFIG["intermediate_size"]) -> dict[str, np.ndarray]:
    draw, size = np.random.default_rng(seed), CONFIG["hidden_size"]
    shapes = {"model.embed_tokens": (VOCAB, size), "lm_head": (VOCAB, size), "model.norm": (size,)}
    for layer in range(CONFIG["num_hidden_layers"]):
        shapes |= {
            f"model.layers.{layer}.{name}": shape
            for name, shape in {
                "self_attn.q_proj": (size, size), "self_attn.k_proj": (size // 2, size),
                "self_attn.v_proj": (size // 2, size), "self_attn.o_proj": (size, size),
                "mlp.gate_proj": (wide, size), "mlp.up_proj": (wide, size),
                "mlp.down_proj": (size, wide), "input_layernorm": (size,),
                "post_attention_layernorm": (size,),
            }.items()
        }  # fmt: skip
    return {
        f"{name}.weight": (0.3 * draw.normal(size=shape) + (len(shape) == 1)).astype(np.float32)
        for name, shape in shapes.items()
    }


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("checkpoints")
    for number, name in enumerate("ab"):
        more = {"eos_token_id": [2, 5]} if name == "b" else {}
        write_checkpoint(root / name, CONFIG | more, tensors(number))
    return {name: root / name for name in "ab"}


@pytest.fixture(scope="module")
def llms(folders: dict[str, Path]) -> Iterator[dict[str, LLM]]:
    """An engine of each; the first has others read into it."""
    jax.config.update("jax_disable_most_optimizations", True)
    with pytest.MonkeyPatch.context() as patch:
        few_programs(patch)
        made = {name: LLM(str(folder), **ALL) for name, folder in folders.items()}
        yield made
        for each in made.values():
            each.close()
    jax.config.update("jax_disable_most_optimizations", False)


@pytest.fixture
def llm(llms: dict[str, LLM], folders: dict[str, Path]) -> Iterator[LLM]:
    yield llms["a"]
    llms["a"].wake_up()
    llms["a"].update_weights_from_disk(folders["a"])


@pytest.fixture(scope="module")
def adapter(tmp_path_factory: pytest.TempPathFactory) -> LoRARequest:
    path = write_adapter(tmp_path_factory.mktemp("l") / "x", halves(SHAPES, 3, 1), 3, lora_alpha=9)
    return LoRARequest("x", 1, str(path))


def run(llm: LLM, lora: LoRARequest | None = None) -> list[list[int]]:
    prompts = [{"prompt_token_ids": each} for each in PROMPTS]
    outputs = llm.generate(prompts, GREEDY, use_tqdm=False, lora_request=lora)
    return [each.outputs[0].token_ids for each in outputs]


def test_an_engine_goes_on_as_if_it_had_been_started_with_them(
    llm: LLM, llms: dict[str, LLM], folders: dict[str, Path], adapter: LoRARequest
) -> None:
    old, new = [[run(llms[name]), run(llms[name], adapter)] for name in "ab"]
    assert not any(mine == its for mine, its in zip(old, new, strict=True))
    held = live_bytes()
    with nothing_compiled():
        llm.update_weights_from_disk(folders["b"], weight_version="step 1")
        assert [run(llm), run(llm, adapter)] == new
    stats = llm.core.stats
    assert stats.weight_version == "step 1" and stats.num_compiles_after_warmup == 0
    assert live_bytes() <= held + (1 << 16)
    llm.update_weights_from_disk(folders["a"])
    assert [run(llm), run(llm, adapter)] == old
    assert llm.core.stats.weight_version == str(folders["a"])


def test_nothing_is_found_again_that_others_computed(llm: LLM, folders: dict[str, Path]) -> None:
    prompt = {"prompt_token_ids": [*range(3, 43)]}
    assert [llm.generate(prompt, GREEDY)[0].num_cached_tokens for _ in range(2)][1] >= 32
    run(llm)
    tier = llm.core._tier
    llm.update_weights_from_disk(folders["b"])
    assert tier is not None and not len(tier)
    assert llm.generate(prompt, GREEDY)[0].num_cached_tokens == 0


def test_who_was_at_work_goes_on_with_the_new_ones(
    llm: LLM, llms: dict[str, LLM], folders: dict[str, Path]
) -> None:
    llm.enqueue({"prompt_token_ids": PROMPTS[0]}, GREEDY)
    for _ in range(6):
        llm._loop.turn()
    llm.update_weights_from_disk(folders["b"])
    [output] = llm.wait_for_completion(use_tqdm=False)
    told = output.outputs[0].token_ids
    count = next(n for n, (x, y) in enumerate(zip(told, run(llms["b"])[0], strict=True)) if x != y)
    assert count < 6  # it began as the old ones do
    [rest] = llms["b"].generate({"prompt_token_ids": PROMPTS[0] + told[:6]}, GREEDY)
    assert told[6:] == rest.outputs[0].token_ids[:10]


def test_an_engine_that_sleeps_may_wake_with_others(
    llm: LLM, llms: dict[str, LLM], folders: dict[str, Path]
) -> None:
    want = run(llms["b"])
    for level in (1, 2):
        llm.sleep(level)
        llm.update_weights_from_disk(folders["b"])
        stats = llm.core.stats
        assert (stats.weights, stats.kv_cache) == ("resident", "discarded") and llm.core.sleeps
        llm.wake_up(["kv_cache"])
        assert run(llm) == want
        llm.sleep(2)
        llm.wake_up()
        assert run(llm) == want  # the newest are read again, not the first
        llm.update_weights_from_disk(folders["a"])


def test_what_lies_at_the_same_place_is_read_again(
    llm: LLM, llms: dict[str, LLM], folders: dict[str, Path], tmp_path: Path
) -> None:
    place = tmp_path / "model"
    shutil.copytree(folders["b"], place)
    llm.update_weights_from_disk(place, weight_version="1")
    shutil.rmtree(place)
    shutil.copytree(folders["a"], place)
    llm.sleep(2)
    llm.wake_up(["weights"])
    assert llm.collective_rpc("reload_weights") == [None]
    llm.wake_up(["kv_cache"])
    assert run(llm) == run(llms["a"])
    assert llm.core.stats.weight_version == "1"
    with pytest.raises(RequestError, match=r"only method is reload_weights, got 'sleep'"):
        llm.collective_rpc("sleep")


def spoil(folder: Path, what: str, target: Path) -> str:
    """A copy of a checkpoint with something wrong; what is said of it."""
    shutil.copytree(folder, target)
    changed, wrong = dict(tensors(3)), dict(CONFIG)
    match what:
        case "theta":
            wrong["rope_theta"] = 5000.0
            said = "rope"
        case "width":
            wrong["intermediate_size"], changed = 64, tensors(3, 64)
            said = "intermediate_size is 64, not 48"
        case "shape":
            changed["lm_head.weight"] = changed["lm_head.weight"][:-1]
            said = "lm_head"
        case "missing":
            del changed["model.layers.1.mlp.up_proj.weight"]
            said = r"up_proj"
        case _:
            (target / "model-2.safetensors").write_bytes(b"\x08\0\0\0\0\0\0\0{}      ")
            return "model-2"
    write_checkpoint(target, wrong, changed)
    return said


@pytest.mark.parametrize("what", ["theta", "width", "shape", "missing", "cut"])
def test_what_does_not_fit_is_refused_and_the_old_ones_serve_on(
    llm: LLM, folders: dict[str, Path], tmp_path: Path, what: str
) -> None:
    """Requests that run do not even notice."""
    want, said = run(llm), spoil(folders["b"], what, tmp_path / what)
    llm.enqueue([{"prompt_token_ids": each} for each in PROMPTS], GREEDY)
    for _ in range(4):
        llm._loop.turn()
    before, version = llm.core.stats.num_preemptions, llm.core.stats.weight_version
    with pytest.raises(RequestError, match=said):
        llm.update_weights_from_disk(tmp_path / what)
    assert llm.core.stats.weight_version == version
    outputs = llm.wait_for_completion(use_tqdm=False)
    assert [each.outputs[0].token_ids for each in outputs] == want
    assert llm.core.stats.num_preemptions == before


@pytest.mark.parametrize("level", [0, 1, 2])
def test_a_disk_that_fails_on_the_way_leaves_everything_as_it_was(
    llm: LLM, folders: dict[str, Path], monkeypatch: pytest.MonkeyPatch, level: int
) -> None:
    want, held = run(llm), live_bytes()
    llm.sleep(level)
    states = (llm.core.stats.weights, llm.core.stats.kv_cache)

    def fail(*_: Any, **__: Any) -> None:
        raise OSError(5, "Input/output error")

    with monkeypatch.context() as patch:
        patch.setattr("models.checkpoints.loading._place", fail)
        with pytest.raises(RequestError, match="Input/output error"):
            llm.update_weights_from_disk(folders["b"])
    assert (llm.core.stats.weights, llm.core.stats.kv_cache) == states
    llm.wake_up()
    assert run(llm) == want and live_bytes() <= held + (1 << 16)


def test_what_is_nowhere_is_refused(llm: LLM, folders: dict[str, Path]) -> None:
    with pytest.raises(RequestError, match=r"/nowhere"):
        llm.update_weights_from_disk("/nowhere")
    with pytest.raises(RequestError, match="load_format is auto or dummy"):
        llm.update_weights_from_disk(folders["b"], load_format="flattened_bucket")
    with pytest.raises(HubError):
        llm.update_weights_from_disk("no/such-model-anywhere")
    with pytest.raises(RequestError, match="model_path is empty"):
        llm.update_weights_from_disk("")
    with pytest.raises(RequestError, match="weight_version must hold strings, got 3"):
        llm.update_weights_from_disk(folders["b"], weight_version=3)  # type: ignore[arg-type]
