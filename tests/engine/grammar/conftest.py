"""The demo model's vocabulary, and an engine with it on few random weights."""

import json
import shutil
from concurrent.futures import wait
from pathlib import Path

import numpy as np
import pytest

from engine.core import EngineCore
from engine.grammar.matcher import Constraint, Vocabulary, compile_grammar, make_vocabulary
from engine.grammar.params import StructuredOutputsParams
from engine.grammar.source import grammar_source
from engine.tokenizers.tokenizer import Tokenizer
from models.demo import DEMO_FOLDER
from tests.engine.checked_step import checked_sample_late, checked_step
from tests.engine.conftest import CONFIG, make_core

EOS = 2
SIZES = [
    "hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads",
    "num_key_value_heads", "head_dim",
]  # fmt: skip
# pages for two full rows; few and equal shapes, since compiling them is what takes time
SETTINGS = {
    "max_num_seqs": 4, "max_num_batched_tokens": 32, "max_model_len": 256,
    "num_gpu_blocks_override": 33,
}  # fmt: skip


@pytest.fixture(scope="session")
def tokenizer() -> Tokenizer:
    return Tokenizer.load(DEMO_FOLDER)


@pytest.fixture(scope="session")
def vocabulary(tokenizer) -> Vocabulary:
    return make_vocabulary(tokenizer, tokenizer.vocab_size, [EOS])


@pytest.fixture(scope="session")
def narrow(tmp_path_factory) -> Path:
    """The demo model's tokenizer and vocabulary, with few weights: a step takes a third."""
    folder = tmp_path_factory.mktemp("narrow")
    for path in DEMO_FOLDER.glob("*.json"):
        shutil.copy(path, folder)
    config = json.loads((DEMO_FOLDER / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {name: CONFIG[name] for name in SIZES}))
    return folder


@pytest.fixture(scope="session")
def engine(narrow) -> EngineCore:
    """4 rows of random weights, which write anything that they may; each step is checked."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("engine.compiling.lowering.step", checked_step)
        patch.setattr("engine.compiling.lowering.sample_late", checked_sample_late)
        core = make_core(narrow, **SETTINGS)
        core.wait_for_programs()
    yield core
    assert core.stats.num_compiles_after_warmup == 0
    core.close()


@pytest.fixture
def built_at_once(engine, monkeypatch):
    """Requests that are added together begin together."""
    build = engine._constraints.build

    def built(request, text):
        build(request, text)
        wait(engine._constraints._building)

    monkeypatch.setattr(engine._constraints, "build", built)


@pytest.fixture(scope="session")
def source(tokenizer):
    """`source(json=...)`: what the engine is given for these structured outputs."""

    def make(**options) -> str:
        return grammar_source(StructuredOutputsParams(**options), tokenizer.mark_ids)

    return make


@pytest.fixture(scope="session")
def accepts(vocabulary, tokenizer):
    """`accepts(source, text)`: "whole", "beginning" or "no"."""

    def judge(source: str, text: str) -> str:
        matcher = compile_grammar(vocabulary, source)
        ids = tokenizer.encode(text, add_special_tokens=False)
        if matcher.try_consume_tokens(ids) < len(ids):
            return "no"
        return "whole" if matcher.is_accepting() else "beginning"

    return judge


def allowed(constraint: Constraint) -> list[int]:
    """The tokens in its mask."""
    return np.nonzero(np.unpackbits(constraint.mask.view(np.uint8), bitorder="little"))[0].tolist()
