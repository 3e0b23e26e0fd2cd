"""Every setting that is wrong is named, with what would work."""

import pytest

from engine.config import EngineConfig, make_config
from engine.errors import ConfigError


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"block_size": 17}, "--block-size must be one of"),
        ({"max_num_seqs": 0}, "--max-num-seqs must be at least 1, got 0"),
        ({"max_model_len": 0}, "--max-model-len must be at least 1, got 0"),
        ({"max_model_len": -2}, "--max-model-len must be at least 1, got -2"),
        ({"max_model_len": "long"}, "--max-model-len must be a number or auto; got .long."),
        ({"max_model_len": 1}, "--max-model-len must be at least 2"),
        ({"gpu_memory_utilization": 1.5}, "--gpu-memory-utilization must be above 0"),
        ({"gpu_memory_utilization": float("nan")}, "--gpu-memory-utilization"),
        ({"kv_offloading_size": 0.0}, "--kv-offloading-size must be above 0 and at most"),
        ({"kv_offloading_size": -1}, "--kv-offloading-size must be above 0"),
        ({"kv_offloading_size": float("nan")}, "--kv-offloading-size must be above 0"),
        ({"kv_offloading_size": float("inf")}, "--kv-offloading-size must be above 0"),
        (
            {"kv_offloading_size": 1.0, "enable_prefix_caching": False},
            "--kv-offloading-size keeps pages of the prefix cache",
        ),
        ({"dtype": "int3"}, "--dtype must be one of auto, float32, bfloat16, float16; got 'int3'"),
        ({"scheduling_policy": "lifo"}, "must be one of fcfs, priority, lpm"),
        ({"max_num_seq": 4}, "no setting 'max_num_seq'; did you mean max_num_seqs[?]"),
        ({"seed": 10**30}, "--seed must be between"),
        ({"tensor_parallel_size": 10**30}, "--tensor-parallel-size must be between"),
        ({"max_num_seqs": "many"}, "--max-num-seqs must be a number; got .many."),
    ],
)
def test_wrong_settings(settings, message):
    with pytest.raises(ConfigError, match=message):
        make_config(**settings)


def test_defaults():
    assert make_config() == EngineConfig()


def test_minus_one_is_auto():
    assert make_config(max_model_len=-1) == make_config(max_model_len="auto")
    assert make_config(max_model_len=-1).asked_model_len is None
