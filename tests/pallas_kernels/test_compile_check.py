"""Kernels compile for an H200 that is not there; schedules and HLO are read rightly."""

import importlib
import json
import subprocess
import sys

import pytest

from pallas_kernels.cases import CASES
from pallas_kernels.compile_check import check, main
from pallas_kernels.deviceless import (
    DevicelessError,
    load_target,
    missing_plugin,
    parse_resources,
)
from pallas_kernels.jax_triton_calls import TritonCall, parse_call
from pallas_kernels.ptxas import Kernel, parse_ptxas, triton_shared_bytes
from pallas_kernels.schedule import Written, find_copies, parse_schedule
from tests.pallas_kernels import hopper_cases

SCHEDULE = """
000: kCommandBuffer [source | sink]
    001: kCustomKernel [source | sink] a
    007: kDynamicSliceFusion [source | sink] params=3, results=2
        008: kCustomCall [source | sink] kCustomCall
    002: kConditional [source | sink]
      false_branch:
        003: kWhile [source | sink]
          body:
            004: kCustomKernel [source | sink] b
005: kWhile [source | sink]
  body:
    006: kCopy [source | sink] kCopy
"""
HLO = """HloModule m

%fused (p: bf16[8,4]) -> bf16[8,4] {
  ROOT %scatter.1 = bf16[8,4]{1,0} scatter(%p, %i, %u), to_apply=%r
}

ENTRY %main (p: bf16[8,4]) -> bf16[8,4] {
  %p.1 = bf16[8,4]{1,0} parameter(0)
  %turned = f32[4,8]{1,0} fusion(%p.1), kind=kLoop, calls=%other
  %own = (f32[3]{0}, bf16[8,4]{1,0}) custom-call(%p.1), output_to_operand_aliasing={{1}: (0, {})}
  %others = (f32[4,8]{1,0}, f32[3]{0}) custom-call(%p.1), output_to_operand_aliasing={{1}: (0, {})}
  %copy.1 = bf16[8,4]{1,0} copy(%p.1)
  ROOT %new = bf16[8,4]{1,0} fusion(%copy.1), kind=kInput, calls=%fused
}
"""


@pytest.mark.skipif(missing_plugin() is not None, reason=missing_plugin() or "")
@pytest.mark.parametrize("case", hopper_cases.CASES, ids=lambda case: f"{case.kernel}: {case.name}")
def test_compiles_without_spills(case):
    target = load_target("h200")
    report = check(case, target, target.mesh("x"))
    assert report.error is None
    assert report.registers > 0
    assert report.spilled_bytes == 0


def test_every_kernel_is_compiled():
    assert hopper_cases.unknown() == set()


@pytest.mark.skipif(missing_plugin() is not None, reason=missing_plugin() or "")
@pytest.mark.parametrize("name", ["a100", "rtx4090"])
def test_compiles_for_ampere_and_ada(name):
    """In a process of its own, for the reason that the module says."""
    cases = "tests.pallas_kernels.ampere_cases"
    command = [sys.executable, "-m", "pallas_kernels.compile_check", "--cases", cases]
    done = subprocess.run(
        [*command, "--target", name, "--json"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr[-2000:]
    reports = json.loads(done.stdout)
    assert len(reports) == 10
    for report in reports:
        assert report["registers"] > 0
        assert report["spilled_bytes"] == 0
        assert report["shared_kib"] <= 99
        if report["kernel"] == "qkv_write":  # in place: two norms' weights are one array first
            assert report["launches"] == 2


TUNING = ("attention.mosaic_decode", "mla.splits", "moe.experts", "quantized.quant_matmul")
TUNED = {case.kernel: case for case in CASES if case.tilings()}.values()


@pytest.mark.skipif(missing_plugin() is not None, reason=missing_plugin() or "")
@pytest.mark.parametrize("case", TUNED, ids=lambda case: case.kernel)
def test_a_kernel_asks_for_the_tiling_of_its_case(case, monkeypatch):
    """What a run on a GPU writes down is what the kernel looks up."""
    asked = []
    for module in TUNING:
        found = importlib.import_module(f"pallas_kernels.{module}")
        monkeypatch.setattr(found, "tuned", lambda *facts: asked.append(facts))
    report = check(case, load_target("h200"), load_target("h200").mesh("x"))
    assert report.error is None
    assert asked[0] == (case.kernel, dict(case.facts()), "NVIDIA H200")


def test_schedule():
    found = parse_schedule(SCHEDULE)
    assert (found.command_buffers, found.outside, found.loops) == (1, {"While": 1}, 1)
    assert (found.launches, found.in_branches) == (2, 2)


def test_copies_but_not_updates_in_place():
    found = find_copies(HLO, [(8, 4)])
    assert found == {
        Written("fusion", "f32", (4, 8)): 1,
        Written("custom-call", "f32", (4, 8)): 1,
        Written("copy", "bf16", (8, 4)): 1,
    }


def test_what_ptxas_says():
    said = "0 bytes stack frame, 8 bytes spill stores, 4 bytes spill loads\nUsed 56 registers, x"
    assert parse_ptxas(said) == Kernel(56, 12)
    assert parse_resources("Resources(smem_scratch_bytes=143360, tmem") == 143360


def test_kernels_in_triton_are_told_from_xlas():
    hlo = 'x = custom-call(y), custom_call_target="__gpu$xla.gpu.triton", {ir = "", name = "mine"}'
    shared = "grid: [1, 1, 1] threads: [1, 1, 1]  shared_memory:"
    lines = (("mine", 4), ("mine_1", 8), ("minerals", 16))
    schedule = "\n".join(f"1: kCustomKernel [a | b] {name} {shared} {n} bytes" for name, n in lines)
    assert triton_shared_bytes(schedule, hlo) == 8
    assert triton_shared_bytes(schedule, "") == 0


def test_what_jax_triton_hands_over():
    ptx = b".version 8.0\n" * 20  # as long as to need two bytes for its length, 260
    kernel = b"\x0a\x04mine\x10\x04\x18\x80\x08\x22\x84\x02" + ptx + b"\x30\x50"
    call = b"\x0a" + bytes([len(kernel) & 127 | 128, len(kernel) >> 7]) + kernel + b"\x10\x01"
    message = b"\x0a" + bytes([len(call) & 127 | 128, len(call) >> 7]) + call + b"\x12\x01x"
    assert list(parse_call(message)) == [TritonCall(ptx.decode(), 1024)]
    assert list(parse_call(b"\x12\x01x")) == []


OWN = "import pallas_kernels.moe.cases as all_of\nCASES = all_of.CASES[:1]\n"


@pytest.mark.skipif(missing_plugin() is not None, reason=missing_plugin() or "")
def test_cases_of_ones_own(tmp_path, monkeypatch, capsys):
    (tmp_path / "my_kernels.py").write_text(OWN)
    monkeypatch.syspath_prepend(tmp_path)
    assert main(["--cases", "my_kernels"]) == 0
    assert len(capsys.readouterr().out.splitlines()) == 2
    assert main(["--cases", "my_kernels", "--target", "a100"]) == 2
    assert "No kernel for a100" in capsys.readouterr().err


def test_unknown_target():
    with pytest.raises(DevicelessError, match="use a file, or one of a100, h100, h200, rtx4090"):
        load_target("h300")


def test_a_target_of_ones_own(tmp_path):
    path = tmp_path / "mine.txtpb"
    path.write_text("# dense_flops: 5\nmemory_bandwidth: 7\ndevice_memory_size: 9\n")
    target = load_target(str(path))
    assert (target.bytes_per_second, target.flops_per_second, target.memory_bytes) == (7, 5, 9)
    assert target.seconds(14, 5) == 2 and target.seconds(7, 20) == 4
    path.write_text("memory_bandwidth: 7\n")
    with pytest.raises(DevicelessError, match="has no line '# dense_flops'; add it"):
        load_target(str(path))
