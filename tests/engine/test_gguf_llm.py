"""A trained model out of a GGUF file, text to text."""

import json

import pytest

from engine.llm import LLM
from engine.sampling_params import SamplingParams
from models.checkpoint import open_tensors
from tests.engine.tokenizers_small import load
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
