"""The run on a GPU, without one: its records survive, its tables say only what was measured."""

import json
import os
import re
import subprocess
import time
from pathlib import Path
from unittest.mock import Mock

import jax
import pytest

from models.checkpoints.loading import load
from models.sharding import make_mesh
from pallas_kernels.cases import CASES
from tests.gpu import report, torch_peers, torch_products, tuning, whole_engine, workloads
from tests.gpu.parts import parts
from tests.gpu.records import Log, newest_result, write_result
from tests.gpu.run import ended, main

CEILINGS = {"part": "ceilings", "copy_gb_s": 4000.0, "bf16_tflop_s": 800.0}
FACTS = {"part": "facts", "device": "NVIDIA H200"}
KERNEL = {
    "part": "kernels", "kernel": "paged_decode", "case": "gpt2",
    "us": 50.0, "gb_s": 3000.0, "tflop_s": 8.0,
}  # fmt: skip


needs_interpreter = pytest.mark.skipif(
    jax.__version_info__ < (0, 11), reason="a dry run takes JAX 0.11"
)


@pytest.mark.skipif(jax.__version_info__ >= (0, 11), reason="JAX 0.11 is here")
def test_an_older_jax_is_named(capsys):
    assert main(["--dry-run"]) == 2
    assert "takes JAX 0.11" in capsys.readouterr().err


@needs_interpreter
def test_a_part_runs_on_the_cpu(capsys):
    assert main(["--dry-run", "--only", "facts"]) == 0
    assert "0 wrong or failed" in capsys.readouterr().out


@needs_interpreter
def test_some_parts_are_chosen_by_their_names(monkeypatch, tmp_path):
    """The command that the README gives for whole models."""
    done = []
    monkeypatch.setattr("tests.gpu.run._do", lambda part, *_: done.append(part.name))
    [command] = re.findall(r"tests\.gpu\.run --only (\S+)`", report.NOT_MEASURED)
    assert main(["--dry-run", "--only", command]) == 0
    assert {"facts", "engine 1", "engine 256", *report.WORKLOADS} <= {*done}
    assert not [name for name in done if name.startswith(("correctness", "kernels", "tiles"))]


@needs_interpreter
def test_a_part_that_dies_fails_the_run(monkeypatch, capsys):
    monkeypatch.setenv("PYTHONPATH", "nowhere")
    monkeypatch.setattr("sys.executable", "/bin/false")
    assert main(["--dry-run", "--only", "facts"]) == 1
    assert "'status': 1" in capsys.readouterr().err


@needs_interpreter
def test_no_time_left_is_said(capsys):
    assert main(["--dry-run", "--only", "facts", "--budget", "0"]) == 0
    assert "skipped: facts, for the time of this run was up" in capsys.readouterr().out


@pytest.mark.parametrize("then, limit", [("wait", 2), ("exit 3", 60)])
def test_what_a_part_started_ends_with_it(tmp_path, then, limit):
    """Whether it took too long or has ended by itself."""
    number = tmp_path / "pid"
    command = ["sh", "-c", f"sleep 600 2> /dev/null & echo $! > {number}; echo bad >&2; {then}"]
    if then == "wait":
        with pytest.raises(subprocess.TimeoutExpired):
            ended(command, {**os.environ}, limit)
    else:
        assert ended(command, {**os.environ}, limit) == (3, "bad\n")
    while runs(int(number.read_text())):
        time.sleep(0.01)


def runs(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except OSError:
        return False


def test_names_of_parts_are_unique():
    names = [part.name for part in parts()]
    assert len(set(names)) == len(names)


def test_peers_are_of_cases_that_exist():
    names = {(case.kernel, case.name) for case in CASES}
    peers = {"quant_matmul": torch_products.INT4, "experts": torch_products.EXPERTS}
    assert all((kernel, name) in names for kernel in peers for name in peers[kernel])


def test_peers_run_small_on_a_cpu(tmp_path):
    pytest.importorskip("torch", reason="the peers are PyTorch's")
    log = Log(tmp_path / "log")
    torch_peers.kernels(log, tmp_path, quick=True)
    records = list(log.records())
    assert {record["peer"] for record in records} == {
        "PyTorch int4", "cuBLAS bf16", "PyTorch grouped_mm", "PyTorch SDPA",
    }  # fmt: skip
    assert [record for record in records if "failed" in record] == []


def test_half_a_line_is_no_record(tmp_path):
    log = Log(tmp_path / "log")
    log.add("facts", device="x")
    with log.path.open("a") as file:
        file.write('{"part": "kern')
    assert list(log.records()) == [{"part": "facts", "device": "x"}]


def test_the_newest_result(tmp_path):
    assert newest_result(tmp_path) is None
    for name in ("nvidia-h200-2026-01-02", "nvidia-h100-2026-03-01", "nvidia-h200-2026-02-01"):
        write_result(tmp_path / f"{name}.json", [{"part": "facts", "device": name}])
    name, records = newest_result(tmp_path)
    assert name == "nvidia-h100-2026-03-01" and records[0]["device"] == name


def test_shares_are_of_the_same_runs_ceilings():
    table = report.markdown("nvidia-h200-2026-01-02", [FACTS, CEILINGS, KERNEL])
    assert "| paged_decode | gpt2 | 50.0 | 3000 | 75% | 8.0 | 1% |" in table


def test_a_workload_gives_every_number_it_has(tmp_path):
    log = Log(tmp_path / "log")
    workloads.known_beginning(log, tmp_path, quick=True)
    (record,) = log.records()
    assert record["cached"] == record["tokens"] == 64
    assert record["first_token_ms"] > 0
    table = report.markdown("nvidia-h200-2026-01-02", [FACTS, record])
    assert f"| known beginning | 64 | cached 64, unknown_ms {record['unknown_ms']:.4g}, " in table


def test_what_a_prediction_saves_is_told_by_how_much_of_it_is_right(tmp_path, monkeypatch):
    found = {"tokens": 12, "ratios": {1.0: [0.2, 0.4, 0.3]}, "steps": {1.0: [0.1]}}
    monkeypatch.setattr(workloads, "measure_predicted", lambda settings, load: found)
    log = Log(tmp_path / "log")
    workloads.predicted_answer(log, tmp_path, quick=True)
    (record,) = log.records()
    assert record["ratios_100%"] == 0.3 and record["steps_100%"] == 0.1
    assert "| predicted answer | 12 | ratios_100% 0.3, " in report.markdown("x", [FACTS, record])


def test_every_field_of_a_load_is_kept(tmp_path, monkeypatch):
    found = dict.fromkeys(("failed", "completed", "p50_e2el_ms", "request_goodput"), 2)
    monkeypatch.setattr(workloads, "HttpPeer", Mock())
    monkeypatch.setattr(workloads, "run", lambda options: Mock(result={**found, "date": "2026"}))
    log = Log(tmp_path / "log")
    workloads.served(log, tmp_path, quick=True)
    (record,) = log.records()
    del found["failed"]
    assert record == {
        "part": "served", "rows": 2, "date": "2026", **found, "failed_requests": 2,
    }  # fmt: skip
    assert "| served | 2 | completed 2, p50_e2el_ms 2, " in report.markdown("x", [FACTS, record])


def test_the_hosts_share_is_of_decode_steps():
    core = Mock(stats=Mock(host_seconds=100.0))

    def step():
        core.stats.host_seconds += 1e-4
        return Mock(deltas=[Mock(request_id=0, new_token_ids=[7])])

    core.step, core.has_work = step, False
    decoded = whole_engine._run(core, 1, 4, 10)
    assert decoded.steps == 8 and decoded.host_seconds == pytest.approx(8e-4)
    engine = {"part": "engine", "rows": 1, "graphs": True, "tokens_per_s": 9.0, "decode_ms": 1.0}
    run = {**engine, "host_share": 0.029, "read_gb_s": 0.8 * CEILINGS["copy_gb_s"]}
    assert "| ingot | 1 | 9 | 1.00 | 2.9% | 80% |" in report.markdown("x", [FACTS, CEILINGS, run])
    assert "| ingot | 1 | 9 | 1.00 |  |  |" in report.markdown("x", [FACTS, engine])


def test_what_a_decode_step_reads():
    """All matrices but the table of embeddings, of which it reads a row."""
    folder = whole_engine.model_folder(whole_engine.TINY)
    model = load(folder, make_mesh(1), load_format="dummy")
    leaves = zip(model.layout.leaves, model.leaves, strict=True)
    expected = sum(array.nbytes for leaf, array in leaves if leaf.paths != ("embedding",))
    assert 1e6 < whole_engine.read_bytes(model, 1) == expected


def test_a_start_is_told_cold_and_warm():
    start = {"part": "start", "rows": 256, "cold": [{"load": 9.0}], "warm": [{"load": 2.0}]}
    table = report.markdown("nvidia-h200-2026-01-02", [FACTS, start])
    assert "| start | 256 | load s 9.0, warm 2.0 |" in table


def test_the_readme_has_the_newest_result():
    text = report.README.read_text()
    assert report.rewrite(text, report.readme_table()) == text


@pytest.mark.skipif(newest_result() is not None, reason="there is a result")
def test_no_number_without_a_measurement():
    assert report.readme_table() == report.NOT_MEASURED


def test_the_fastest_tiling_of_a_case_that_still_exists():
    case = next(case for case in CASES if len(case.tilings()) > 1)
    slow, fast = case.tilings()[:2]
    about = {"part": "tiles", "kernel": case.kernel, "case": case.name}
    records = [
        {**about, "tiling": dict(slow), "us": 9.0},
        {**about, "tiling": dict(fast), "us": 5.0},
        {**about, "case": "one that was renamed", "tiling": {}, "us": 1.0},
        {**about, "tiling": {}, "failed": "too large"},
    ]
    best = tuning.fastest(json.loads(json.dumps(records)))
    assert best == {case.kernel: [{"facts": dict(case.facts()), "tiling": dict(fast)}]}
