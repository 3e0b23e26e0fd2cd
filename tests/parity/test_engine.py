"""The whole engine writes what transformers recorded, for other kinds of cache and MLP."""

from pathlib import Path

import pytest

from engine.config import EngineConfig
from engine.core import EngineCore
from engine.sampling.params import SamplingParams
from tests.engine.conftest import run
from tests.parity.cases import CASES
from tests.parity.goldens import read
from tests.parity.paged import write_case


@pytest.mark.parametrize("name, num_scheduler_steps", [
    ("deepseek_v3", "auto"), ("gpt_oss", "auto"), ("mamba2", "auto"),
    ("qwen3_next", 1), ("llama4", 1), ("gemma3n", 1), ("gemma4_12b", 1), ("bloom", 1),
])  # fmt: skip
def test_rows_together_write_what_each_writes_alone(
    name: str, num_scheduler_steps: int | str, tmp_path: Path
) -> None:
    case, golden = CASES[name], read(name)
    write_case(tmp_path, case, golden)
    config = EngineConfig(
        model=str(tmp_path), max_num_seqs=4, max_num_batched_tokens=32, max_model_len=128,
        num_scheduler_steps=num_scheduler_steps,
    )  # fmt: skip
    engine = EngineCore(config)
    try:
        prompts = [golden.tokens[: case.prompt_length + more] for more in (0, 11, 22)]
        params = SamplingParams(temperature=0, max_tokens=40, ignore_eos=True)
        for prompt, text in zip(
            prompts, run(engine, prompts, params, steps_between=2), strict=True
        ):
            rest = golden.tokens[len(prompt) :][:40]
            assert text.ids[: len(rest)] == rest
    finally:
        engine.close()
