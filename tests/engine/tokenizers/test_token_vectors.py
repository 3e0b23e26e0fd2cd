"""A vector a token, or a token that ends a step: the pooling types ALL and STEP, and rewards."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from engine import LLM, PoolingParams
from engine.config import PoolerConfig
from engine.errors import RequestError
from models.errors import UnsupportedError
from tests.engine.pooling_folders import write_folder
from tests.models.checkpoints.safetensors_files import write_checkpoint
from tests.parity import cases, goldens
from tests.parity.weights import tensor

SMALL: dict[str, Any] = {
    "max_num_seqs": 4, "max_num_batched_tokens": 64, "max_model_len": 48, "dtype": "float32",
}  # fmt: skip
RAW = PoolingParams(use_activation=False)
PROMPTS = [[5, 9, 3], [7, 8, 9, 9, 4, 6, 8], [9]]


def pooled(folder: Path, prompts: list[list[int]], params: PoolingParams, **pooling: Any) -> Any:
    with LLM(str(folder), runner="pooling", pooler_config=PoolerConfig(**pooling), **SMALL) as llm:
        return [output.outputs.data for output in llm.encode(prompts, params)], llm.info


def test_all_tokens_of_an_encoder_average_to_its_mean(tmp_path: Path) -> None:
    folder = write_folder(tmp_path, "bert")
    each, info = pooled(folder, PROMPTS, RAW, pooling_type="ALL")
    assert [one.shape for one in each] == [(3, 40), (7, 40), (1, 40)] and info.per_token
    means, _ = pooled(folder, PROMPTS, RAW, pooling_type="MEAN")
    for rows, mean in zip(each, means, strict=True):
        np.testing.assert_allclose(rows.mean(0), mean, atol=2e-6)
    lengths, _ = pooled(folder, PROMPTS, PoolingParams(), pooling_type="ALL")
    assert np.concatenate([np.linalg.norm(one, axis=1) for one in lengths]) == pytest.approx(1)


def test_steps_are_scored_by_tokens_of_the_vocabulary(tmp_path: Path) -> None:
    case, golden = cases.CASES["llama2"], goldens.read("llama2")
    tensors = {n: tensor(case.seed, n, s, case.spread) for n, s in golden.tensors}
    write_checkpoint(tmp_path, case.config, tensors)
    prompt, good_and_bad = golden.tokens[: case.prompt_length], [31, 5]
    tag = prompt[4]
    places = [place for place, token in enumerate(prompt) if token == tag]
    want = golden.logits[places][:, good_and_bad]
    settings = {"pooling_type": "STEP", "step_tag_id": tag, "returned_token_ids": good_and_bad}
    (raw,), info = pooled(tmp_path, [prompt], RAW, **settings)
    np.testing.assert_allclose(raw, want, atol=2e-5 * golden.scale)
    assert info.labels == ["31", "5"] and 0 < len(places) < len(prompt)
    (shares,), _ = pooled(tmp_path, [prompt], PoolingParams(), **settings)
    np.testing.assert_allclose(shares.sum(1), 1, atol=1e-6)
    with pytest.raises(UnsupportedError, match="returned_token_ids holds 67; the classes"):
        pooled(tmp_path, [prompt], RAW, pooling_type="LAST", returned_token_ids=[67])
    with pytest.raises(UnsupportedError, match="step_tag_id is for the pooling_type STEP"):
        pooled(tmp_path, [prompt], RAW, pooling_type="ALL", step_tag_id=tag)


def test_a_reward_model_is_asked_for_rewards(tmp_path: Path) -> None:
    folder = write_folder(tmp_path, "qwen2_process_reward")
    with LLM(str(folder), pooler_config=PoolerConfig(step_tag_id=9), **SMALL) as llm:
        rewards = [output.outputs.data for output in llm.reward(PROMPTS)]
        assert [one.shape for one in rewards] == [(1, 2), (2, 2), (1, 2)]
        np.testing.assert_allclose(np.concatenate(rewards).sum(1), 1, atol=1e-6)
        assert llm.reward([[5]])[0].outputs.data.shape == (0, 2)  # no step has ended
        for ask in (llm.embed, llm.classify):
            with pytest.raises(RequestError, match="a vector a token or step: ask /pooling"):
                ask(PROMPTS)
    with LLM(str(folder), pooler_config=PoolerConfig(pooling_type="LAST"), **SMALL) as llm:
        last = [output.outputs.data for output in llm.reward(PROMPTS)]
    for row, ids, one in zip(rewards, PROMPTS, last, strict=True):
        if ids[-1] == 9:
            np.testing.assert_allclose(row[-1], one, atol=1e-6)
    with (
        LLM(str(folder), convert="embed", **SMALL) as llm,
        pytest.raises(RequestError, match="gives embeddings and no classes"),
    ):
        llm.reward(PROMPTS)
