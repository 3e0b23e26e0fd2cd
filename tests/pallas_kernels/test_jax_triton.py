"""The worked example of a kernel in Triton compiles for a GPU that is not there."""

import importlib

import pytest

from pallas_kernels.compile_check import check
from pallas_kernels.deviceless import load_target, missing_plugin

pytest.importorskip("jax_triton", reason="jax-triton and triton, 1 GB unpacked, are not installed")
pytestmark = pytest.mark.skipif(missing_plugin() is not None, reason=missing_plugin() or "")


def test_the_example_compiles():
    target = load_target("a100")
    for case in importlib.import_module("notebooks.triton_kernel").CASES:
        report = check(case, target, target.mesh("x"))
        assert report.error is None
        assert (report.launches, report.spilled_bytes) == (1, 0)
        assert report.registers > 0
