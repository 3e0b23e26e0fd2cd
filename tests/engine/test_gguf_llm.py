"""Models out of GGUF files: a trained one text to text, and an encoder text to vectors."""

import json

import numpy as np
import pytest

from engine.llm import LLM
from engine.sampling.params import SamplingParams
from models.checkpoints.checkpoint import open_tensors
from tests.engine.pooling_folders import WORDS, write_folder, write_modules
from tests.engine.tokenizers_small import load
from tests.models.gguf.families import test_encoders
from tests.models.gguf.files import converted, metadata, write_gguf


def test_a_trained_model_tells_the_story_that_it_tells_elsewhere(shared_data, tmp_path) -> None:
    folder = shared_data / "weights" / "stories260K"
    if not folder.is_dir():
        pytest.skip("no stories260K in the test data")
    config = json.loads((folder / "config.json").read_text())
    model = json.loads((folder / "tokenizer.json").read_text(encoding="utf-8"))["model"]
    tokens = sorted(model["vocab"], key=model["vocab"].__getitem__)
    ranks = {"".join(m.split(" ") if isinstance(m, str) else m): -float(rank)
             for rank, m in reversed(list(enumerate(model["merges"])))}  # fmt: skip
    keys = metadata("llama", config) | {
        "tokenizer.ggml.model": "llama",
        "tokenizer.ggml.tokens": tokens,
        "tokenizer.ggml.token_type": [2, 3, 3, *[6] * 256, *[1] * (len(tokens) - 259)],
        "tokenizer.ggml.scores": [ranks.get(token, -1e9) for token in tokens],
        "tokenizer.ggml.unknown_token_id": 0,
    }
    with open_tensors(folder) as tensors:
        arrays = {name: tensor.read() for name, tensor in tensors.items()}
    path = write_gguf(tmp_path / "a.gguf", "llama", keys, converted("llama", config, arrays))
    golden = json.loads((folder / "golden_greedy.json").read_text())
    params = SamplingParams(temperature=0.0, max_tokens=24, ignore_eos=True)
    llm = LLM(str(path), max_model_len=64, max_num_seqs=2)
    prompts = [{"prompt_token_ids": golden["prompt_ids"]}, "Once upon a time, Lily"]
    first, second = llm.generate(prompts, params)
    start = len(golden["prompt_ids"])
    assert list(first.outputs[0].token_ids) == golden["greedy_ids"][start : start + 24]
    elsewhere = load(folder)
    assert second.prompt_token_ids == elsewhere.encode("Once upon a time, Lily")
    assert first.outputs[0].text.strip() == elsewhere.decode(first.outputs[0].token_ids).strip()


def test_an_encoder_gives_the_vectors_that_its_folder_gives(tmp_path) -> None:
    folder = write_folder(tmp_path / "folder", "bert")
    write_modules(folder, {"pooling_mode_mean_tokens": True}, "Normalize")
    keys = {
        "pooling_type": 1,
        "tokenizer.ggml.model": "bert",
        "tokenizer.ggml.tokens": [
            "[PAD]", "[UNK]", "[CLS]", "[SEP]", *(f"▁{word}" for word in WORDS), "s",
        ],
        "tokenizer.ggml.token_type": [3, 3, 3, 3, *[1] * (len(WORDS) + 1)],
        "tokenizer.ggml.cls_token_id": 2,
        "tokenizer.ggml.seperator_token_id": 3,
    }  # fmt: skip
    path = test_encoders.write("bert", tmp_path, **keys)
    texts = ["the dogs sat on a mat", "far away"]
    found, expected = (
        LLM(str(one), max_num_seqs=2, max_num_batched_tokens=64).embed(texts)
        for one in (path, folder)
    )
    for ours, theirs in zip(found, expected, strict=True):
        assert ours.prompt_token_ids == theirs.prompt_token_ids
        np.testing.assert_allclose(ours.outputs.embedding, theirs.outputs.embedding, atol=1e-6)
    assert len(found[0].prompt_token_ids) == 9  # [CLS] the dog ##s sat on a mat [SEP]
