"""The host's benchmark on small loads: what must be so whatever the machine's speed."""

import json

import pytest
from typer.testing import CliRunner

from engine.errors import ConfigError
from engine.messages import AddRequest
from engine.sampling.params import SamplingParams
from serve.bench import host
from serve.bench.cli import app
from serve.bench.fake_device import make_fake_core
from serve.bench.host import measure_host


def test_the_command_prints_and_writes_what_it_found(tmp_path, monkeypatch):
    monkeypatch.setattr(host, "_WAITING", 150)
    target = tmp_path / "host.json"
    options = ["--rows", "2", "--num-steps", "20", "--output-json", str(target)]
    done = CliRunner().invoke(app, ["host", *options])
    assert done.exit_code == 0, done.output
    for part in ("rows that decode", "150 wait", "with pipeline", "p99 itl"):
        assert part in done.output
    found = json.loads(target.read_text())
    assert all(row["host_us"] > 0 for load in ("decode", "renewed") for row in found[load])
    assert [row["policy"] for row in found["waiting"]] == ["fcfs", "lpm"]
    beside = found["long_prompt"]  # a prompt of 32k tokens delays others by a step at most
    assert beside["p99_itl_ms"] <= beside["limit_ms"]
    assert beside["max_itl_ms"] > 10 * beside["p50_itl_ms"]  # it was there


def test_a_part_by_itself_or_one_that_there_is_not():
    done = CliRunner().invoke(app, ["host", "--rows", "2", "--num-steps", "5", "--parts", "decode"])
    assert done.exit_code == 0 and "rows that decode" in done.output
    assert "end and begin" not in done.output and "wait" not in done.output
    with pytest.raises(ConfigError, match=r"--parts takes decode, .* got 'speed'"):
        measure_host([1], device_seconds=1.0, steps=1, parts=["speed"])


@pytest.mark.parametrize("on", [True, False])
def test_the_pipeline_hides_the_host(on):
    """Eight steps of a device that takes a second: with the pipeline it never waits."""
    core, clock = make_fake_core(lambda plan: 1.0, async_scheduling=on, max_num_seqs=2,
                                 max_model_len=64, num_gpu_blocks_override=8)  # fmt: skip
    core.add(AddRequest(request_id=0, prompt_token_ids=[5], params=SamplingParams(max_tokens=8)))
    begin, launch, host = clock.now(), core._runner.launch, 0.1

    def slow_launch(plan):
        clock.waited += host
        return launch(plan)

    core._runner.launch = slow_launch
    while core.has_work:
        core.step()
    core.close()
    work = 8 * 1.0 + (host if on else 8 * host)
    assert clock.now() - begin == pytest.approx(work, abs=0.3)
