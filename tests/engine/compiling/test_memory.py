"""Sizes that do not fit are errors that say what would."""

import json

import jax
import numpy as np
import pytest

from engine import LLM, SamplingParams, runner
from engine.errors import ConfigError
from models.errors import ModelError
from tests.engine.conftest import make_core
from tests.parity.cases import CASES


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"num_gpu_blocks_override": 5}, r"room for 64 tokens .* --max-model-len 64 or less"),
        (
            {"kv_cache_memory_bytes": 1000},
            r"room for 0 tokens .* may take 128; make it at least 9 pages, 36864 bytes",
        ),
        ({"max_model_len": 129}, "--max-model-len 129 exceeds the 128 tokens"),
        ({"num_gpu_blocks_override": 10**9}, r"need .* GiB on each device .* are free"),
        ({"max_num_seqs": 10**9, "max_num_batched_tokens": 10**9}, r"need .* GiB"),
        ({"max_num_seqs": 64, "max_num_batched_tokens": 8}, "is below --max-num-seqs 64"),
        ({"compilation_cache_size": -1}, "--compilation-cache-size must be from 0 to"),
        ({"compilation_cache_dir": "/proc/nothing"}, "--compilation-cache-dir /proc/nothing"),
        ({"tensor_parallel_size": 99}, "tensor-parallel size of 99 needs as many devices"),
        ({"tensor_parallel_size": 3}, "tensor-parallel"),
    ],
)
def test_what_does_not_fit(tiny_folder, settings, message):
    with pytest.raises((ConfigError, ModelError), match=message):
        make_core(tiny_folder, **settings).close()


def test_the_advice_works(tiny_folder):
    make_core(tiny_folder, kv_cache_memory_bytes=36864).close()
    make_core(tiny_folder, num_gpu_blocks_override=5, max_model_len=64).close()


def test_a_device_that_cannot_give_what_is_free_is_explained(tiny_folder, monkeypatch):
    def no_room(*_):
        raise jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: Out of memory allocating 4 bytes.")

    monkeypatch.setattr(runner, "_state_maker", lambda *_: no_room)
    with pytest.raises(ConfigError, match=r"no room in one piece for 33 pages"):
        make_core(tiny_folder)


def test_a_step_is_no_larger_than_rows_can_fill(tiny_folder):
    core = make_core(tiny_folder, max_num_seqs=1, max_num_batched_tokens=10**6, max_model_len=32)
    assert max(program.shape.tokens for program in core.programs) <= 32
    core.close()


def thoughts(dtype: str) -> tuple[list[float], float]:
    """What the demo model thinks of a text with such a cache, and the bytes of a page."""
    text = [{"role": "user", "content": "What sound does a cow make? Tell me about farms."}]
    params = SamplingParams(max_tokens=1, prompt_logprobs=0)
    settings = {"max_num_seqs": 1, "max_num_batched_tokens": 16, "max_model_len": 128}
    with LLM("demo", kv_cache_dtype=dtype, **settings) as llm:
        [output] = llm.chat(text, params)
        scores = [next(iter(s.values())).logprob for s in output.prompt_logprobs[1:]]
        return scores, llm.core.info.kv_cache_bytes / llm.core.info.num_pages


@pytest.fixture(scope="module")
def exact() -> tuple[list[float], float]:
    return thoughts("auto")


@pytest.mark.parametrize(("name", "most"), [("fp8", 0.06), ("int8_per_token_head", 0.02)])
def test_eight_bits_hold_more_tokens_and_answer_alike(exact, name, most):
    """Trained weights, and steps of 16 tokens: what is read was written in an earlier step."""
    scores, page = thoughts(name)
    difference = np.abs(np.subtract(scores, exact[0]))
    assert 0 < difference.mean() < most
    assert exact[1] / page > 3.5  # float32 against 8 bits and a scale


def test_latents_are_not_quantised(tmp_path):
    (tmp_path / "config.json").write_text(json.dumps(CASES["deepseek_v3"].config))
    with pytest.raises(ConfigError, match="this model caches latents"):
        make_core(tmp_path, kv_cache_dtype="fp8")
