"""A whole engine with a model of Llama 3.1 8B's shape and dummy weights: tokens a second."""

import json
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter
from typing import Any

import jax

import engine.compiling.lowering
from engine.config import make_config
from engine.core import EngineCore
from engine.messages import AddRequest
from engine.sampling.params import SamplingParams
from models.checkpoints.loading import LoadedModel
from models.config.published import LLAMA_3_1_8B
from serve.bench.family_shapes import count
from tests.gpu.records import Log

TINY = {
    **LLAMA_3_1_8B, "vocab_size": 512, "hidden_size": 128, "intermediate_size": 256,
    "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2,
}  # fmt: skip
PROMPT, GENERATED = 128, 256  # tokens


@dataclass(frozen=True)
class Decoded:
    """Steps that were decoding and nothing else; `host_seconds` the device need not wait for."""

    steps: int
    seconds: float
    host_seconds: float


def throughput(log: Log, folder: Path, quick: bool, rows: int, graphs: bool) -> None:
    """Tokens a second of `rows` streams, with or without command buffers (CUDA graphs)."""
    if not graphs:
        engine.compiling.lowering.COMMAND_BUFFERS = ""
    core = make_engine(rows, quick)
    prompt, generated = (8, 4) if quick else (PROMPT, GENERATED)
    _run(core, rows, prompt, 4)  # everything has run once
    decoded = _run(core, rows, prompt, generated)
    log.add(
        "engine",
        rows=rows,
        graphs=graphs,
        decode_ms=1e3 * decoded.seconds / decoded.steps,
        tokens_per_s=rows * decoded.steps / decoded.seconds,
        read_gb_s=1e-9 * read_bytes(core.model, rows) * decoded.steps / decoded.seconds,
        host_share=decoded.host_seconds / decoded.seconds,
        load_s=core.info.load_seconds,
        compile_s=core.info.compile_seconds,
    )
    core.close()


def read_bytes(model: LoadedModel, rows: int) -> int:
    """Of weights and states, in a decode step; keys and values of so short texts are few beside."""
    return count(model.config, model.layout.leaves, rows).moved * model.leaves[0].dtype.itemsize


def trace(core: EngineCore, rows: int, prompt: int, steps: int, folder: Path) -> None:
    """Write a profile of `steps` decode steps."""
    _start(core, rows, prompt, steps + 8)
    with jax.profiler.trace(str(folder)):
        for _ in range(steps):
            core.step()
    _finish(core)


def make_engine(rows: int, quick: bool) -> EngineCore:
    """An engine for so many rows; `quick` is a model of two small layers."""
    folder = str(model_folder(shape_of(quick)))
    settings: dict[str, Any] = {"dtype": "bfloat16"}
    if quick:
        settings = {"max_num_batched_tokens": max(rows, 64)}
    config = make_config(
        model=folder, load_format="dummy", max_model_len=1024, max_num_seqs=rows, **settings
    )
    return EngineCore(config)


def shape_of(quick: bool) -> Mapping[str, Any]:
    """What config.json says of the model that is run."""
    return TINY if quick else LLAMA_3_1_8B


def model_folder(shape: Mapping[str, Any]) -> Path:
    """A checkpoint without weights."""
    folder = Path(tempfile.mkdtemp())
    (folder / "config.json").write_text(json.dumps(shape))
    return folder


def _run(core: EngineCore, rows: int, prompt: int, generated: int) -> Decoded:
    """Pure decoding: from all rows having a token to the first that ends."""
    _start(core, rows, prompt, generated)
    counts = dict.fromkeys(range(rows), 1)
    start, host, steps = perf_counter(), core.stats.host_seconds, 0
    while max(counts.values()) < generated - 1:
        for delta in core.step().deltas:
            counts[delta.request_id] += len(delta.new_token_ids)
        steps += 1
    found = Decoded(steps, perf_counter() - start, core.stats.host_seconds - host)
    _finish(core)
    return found


def _start(core: EngineCore, rows: int, prompt: int, generated: int) -> None:
    """Requests whose prompts are computed; each has given a token."""
    params = SamplingParams(temperature=0.0, max_tokens=generated, ignore_eos=True)
    for row in range(rows):
        ids = [1 + (row * 31 + place) % 500 for place in range(prompt)]
        core.add(AddRequest(request_id=row, prompt_token_ids=ids, params=params))
    waiting = set(range(rows))
    while waiting:
        waiting -= {delta.request_id for delta in core.step().deltas}


def _finish(core: EngineCore) -> None:
    while core.has_work:
        core.step()
