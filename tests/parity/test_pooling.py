"""Pooling models against what transformers recorded: mixed lengths, batched and padded, in float32.

`record_pooling.py` makes the goldens; PyTorch is not needed here.
"""

import json
from pathlib import Path

import numpy as np
import pytest

from engine.config import EngineConfig, PoolerConfig
from engine.cores import make_core
from engine.messages import PoolRequest
from engine.pooling.core import PoolingCore
from engine.pooling_params import PoolingParams
from models.architectures import bert
from models.registry import supported_encoders
from tests.models.checkpoints.safetensors_files import write_checkpoint
from tests.parity.pooling_cases import CASES, LENGTHS
from tests.parity.pooling_goldens import FOLDER, read
from tests.parity.weights import tensor

TOLERANCE = 1e-5  # of a vector's length
IN_ALL_SHAPES = ("bert_cross_encoder", "qwen3_embedding")


def write_case(folder: Path, name: str) -> None:
    case, golden = CASES[name], read(name)
    tensors = {n: tensor(case.seed, n, shape, case.spread) for n, shape in golden.tensors}
    write_checkpoint(folder, case.config, tensors)


def vectors(core: PoolingCore, inputs: list[list[int]], types: list[list[int]]) -> np.ndarray:
    """What the engine gives for all inputs at once, as the model left it."""
    raw = PoolingParams(use_activation=False)
    for number, (ids, kinds) in enumerate(zip(inputs, types, strict=True)):
        core.add(
            PoolRequest(request_id=number, prompt_token_ids=ids, params=raw, token_type_ids=kinds)
        )
    found = {}
    while core.has_work:
        for delta in core.step().deltas:
            assert delta.vector is not None
            found[delta.request_id] = np.frombuffer(delta.vector, "<f4")
    width = core.info.embedding_size
    return np.concatenate([found[number].reshape(-1, width) for number in range(len(inputs))])


@pytest.mark.parametrize("name", CASES)
def test_vectors_are_those_of_transformers(name: str, tmp_path: Path) -> None:
    case, golden = CASES[name], read(name)
    write_case(tmp_path, name)
    config = EngineConfig(
        model=str(tmp_path), dtype="float32", max_num_seqs=4, max_num_batched_tokens=128,
        pooler_config=PoolerConfig(
            pooling_type=None if case.body else case.pooling, step_tag_id=case.step_tag_id
        ),
    )  # fmt: skip
    core = make_core(config)
    assert isinstance(core, PoolingCore)
    try:
        together = vectors(core, case.inputs(), case.types())
        compare(together, golden.vectors)
        if name not in IN_ALL_SHAPES:
            return
        core.wait_for_programs()
        again = vectors(core, case.inputs()[::-1], case.types()[::-1])  # other batches and shapes
        compare(again[::-1], golden.vectors)
        assert core.stats.num_compiles_after_warmup == 0
        assert core.stats.num_steps < 2 * len(LENGTHS)
    finally:
        core.close()


def compare(ours: np.ndarray, theirs: np.ndarray) -> None:
    lengths = np.linalg.norm(theirs, axis=1)
    if theirs.shape[1] < 3:  # few scores may be close to 0
        lengths = np.sqrt((lengths**2).mean())
    distance = np.linalg.norm(ours - theirs, axis=1) / lengths
    assert distance.max() <= TOLERANCE, distance


def test_each_case_has_its_golden_and_nothing_else_lies_there() -> None:
    assert {path.stem for path in FOLDER.iterdir()} == set(CASES)
    for name, case in CASES.items():
        assert read(name).config == json.loads(json.dumps(case.config))


def test_every_family_of_encoders_has_a_case() -> None:
    models = {case.config["architectures"][0] for case in CASES.values()}
    same = {"RobertaForSequenceClassification", "XLMRobertaModel", "MT5EncoderModel"}  # as others
    assert set(supported_encoders()) - same - models == {
        name for name in supported_encoders() if name.endswith("ForMaskedLM")
    }
    assert bert.ENCODERS[0] in models
