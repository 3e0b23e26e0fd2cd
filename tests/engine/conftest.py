"""A tiny random model, and engines on it that several tests share."""

import json
from pathlib import Path

import pytest

from engine.config import EngineConfig
from engine.core import EngineCore
from engine.messages import AddRequest
from engine.sampling.params import SamplingParams

VOCAB = 97
CONFIG = {
    "architectures": ["LlamaForCausalLM"], "model_type": "llama", "vocab_size": VOCAB,
    "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2,
    "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 8, "hidden_act": "silu",
    "max_position_embeddings": 128, "rms_norm_eps": 1e-5, "rope_theta": 10000.0,
    "tie_word_embeddings": False, "eos_token_id": 2, "bos_token_id": 1,
}  # fmt: skip


@pytest.fixture(scope="session")
def tiny_folder(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("tiny")
    (folder / "config.json").write_text(json.dumps(CONFIG))
    return folder


def make_core(folder: Path, **settings) -> EngineCore:
    defaults = {
        "load_format": "dummy", "max_num_seqs": 4, "max_num_batched_tokens": 32, "seed": 1,
        "num_scheduler_steps": 1,  # of several compile for seconds more
    }  # fmt: skip
    return EngineCore(EngineConfig(model=str(folder), **{**defaults, **settings}))


def go_on_when_interrupted(engine: EngineCore, patch: pytest.MonkeyPatch) -> None:
    """A step that Ctrl-C ends is taken once more."""
    step = engine.step

    def patient_step():
        try:
            return step()
        except KeyboardInterrupt:
            return step()

    patch.setattr(engine, "step", patient_step)


def few_programs(patch: pytest.MonkeyPatch) -> None:
    """Of decode and of mixed steps one each, whatever the rows: compiling is what takes time."""
    patch.setattr("engine.compiling.shapes.decode_rows", lambda largest: [largest])
    patch.setattr("engine.compiling.shapes.mixed_tokens", lambda rows, largest: [largest])


@pytest.fixture(scope="session")
def core(tiny_folder):
    """An engine of 4 rows and 32 tokens a step; every program is compiled."""
    engine = make_core(tiny_folder)
    engine.wait_for_programs()
    yield engine
    engine.close()


class Text:
    """What an engine said about one request."""

    def __init__(self):
        self.ids, self.logprobs, self.prompt_logprobs = [], [], []
        self.finish_reason = self.stop_token_id = None
        self.external_tokens = self.preemptions = 0

    def add(self, delta):
        self.ids += delta.new_token_ids
        self.logprobs += delta.logprobs or []
        self.prompt_logprobs += delta.prompt_logprobs or []
        self.finish_reason, self.stop_token_id = delta.finish_reason, delta.stop_token_id
        self.external_tokens += delta.num_external_tokens
        self.preemptions = max(self.preemptions, delta.num_preemptions)


def run(engine: EngineCore, prompts, params=None, *, steps_between=0, **options) -> list[Text]:
    """Continue `prompts`, a new one every `steps_between` steps, to the end."""
    params = params or SamplingParams(**{"temperature": 0, "max_tokens": 12, **options})
    each = params if isinstance(params, list) else [params] * len(prompts)
    texts = [Text() for _ in prompts]

    def step():
        for delta in engine.step().deltas:
            texts[delta.request_id].add(delta)

    for number, prompt in enumerate(prompts):
        engine.add(AddRequest(request_id=number, prompt_token_ids=prompt, params=each[number]))
        for _ in range(steps_between):
            step()
    while engine.has_work:
        step()
    return texts
