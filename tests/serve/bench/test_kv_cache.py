"""Kinds of KV cache on trained weights: smaller ones hold more, and hardly differ."""

import json

import pytest

from engine.errors import ConfigError
from serve.bench import kv_cache


def test_smaller_caches_hold_more_and_answer_alike(shared_data, monkeypatch):
    monkeypatch.setattr(kv_cache, "KINDS", ("auto", "bfloat16"))
    folder = shared_data / "weights" / "stories260K"
    text = json.loads((folder / "golden_greedy.json").read_text())["greedy_ids"]
    settings = {
        "model": str(folder), "max_model_len": 112, "max_num_seqs": 2,
        "max_num_batched_tokens": 16,
    }  # fmt: skip
    found = kv_cache.measure_kv_cache(settings, [text[:100]], output_len=40)
    wide, narrow = found["auto"], found["bfloat16"]
    assert wide["bytes_per_token"] == 2 * narrow["bytes_per_token"]
    assert narrow["pages_per_gib"] // wide["pages_per_gib"] == 2
    assert wide["mean_logprob_difference"] == 0 and wide["same_tokens"] == 1
    assert 0 < narrow["mean_logprob_difference"] < 0.05 and narrow["same_tokens"] > 0.2
    assert wide["perplexity"] < 3  # it wrote the text
    assert kv_cache.table(found | {"fp8": {"error": "no"}}).row_count == 3


def test_a_text_is_cut_into_whole_pieces(tmp_path):
    path = tmp_path / "text.txt"
    path.write_text("The old dog sleeps. " * 20)
    pieces = kv_cache.read_pieces("demo", path, length=16, count=3)
    assert [len(piece) for piece in pieces] == [16] * 3
    assert len(kv_cache.read_pieces("demo", path, length=16, count=99)) < 99
    with pytest.raises(ConfigError, match=r"fewer than one piece of 5000"):
        kv_cache.read_pieces("demo", path, length=5000, count=1)
    with pytest.raises(ConfigError, match="Cannot read"):
        kv_cache.read_pieces("demo", tmp_path / "no", length=16, count=1)
