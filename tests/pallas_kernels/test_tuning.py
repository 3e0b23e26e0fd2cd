"""Measured tilings: the nearest one is taken, a far one is not."""

import json

import pytest

from pallas_kernels.tuning import distance, tuned

MEASURED = {
    "decode": [
        {"facts": {"rows": 64, "H": 128}, "tiling": {"splits": 4}},
        {"facts": {"rows": 1, "H": 128}, "tiling": {"splits": 16}},
    ]
}


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "nvidia-h200.json").write_text(json.dumps(MEASURED))
    return tmp_path


def test_the_nearest_shape_decides(folder):
    assert tuned("decode", {"rows": 48, "H": 128}, "NVIDIA H200", folder) == {"splits": 4}
    assert tuned("decode", {"rows": 2, "H": 128}, "NVIDIA H200", folder) == {"splits": 16}


@pytest.mark.parametrize(
    "kernel, facts, kind",
    [
        ("decode", {"rows": 1024, "H": 128}, "NVIDIA H200"),  # four octaves away
        ("decode", {"rows": 64}, "NVIDIA H200"),  # other facts
        ("prefill", {"rows": 64, "H": 128}, "NVIDIA H200"),  # never measured
        ("decode", {"rows": 64, "H": 128}, "NVIDIA H100"),  # another GPU
    ],
)
def test_nothing_near_is_none(folder, kernel, facts, kind):
    assert tuned(kernel, facts, kind, folder) is None


def test_distance_counts_doublings():
    assert distance({"a": 8, "b": 3}, {"a": 2, "b": 3}) == 2
    assert distance({"a": 0}, {"a": 1}) == 1


@pytest.mark.parametrize(
    "content",
    [
        "",
        "garbage \x00",
        "[1, 2]",
        '{"decode": [{"facts": {"rows": 64}}]}',
        '{"decode": 3}',
        '{"decode": [{"facts": {"rows": 64, "H": 128}, "tiling": {"splits": "many"}}]}',
        json.dumps(MEASURED)[:-20],
    ],
)
def test_a_damaged_file_is_one_warning_and_no_tilings(tmp_path, caplog, content):
    (tmp_path / "nvidia-h200.json").write_text(content)
    for _ in range(3):
        assert tuned("decode", {"rows": 64, "H": 128}, "NVIDIA H200", tmp_path) is None
    assert [record.getMessage() for record in caplog.records] == [
        f"{tmp_path}/nvidia-h200.json is damaged; kernels choose their tiles by rule"
    ]
