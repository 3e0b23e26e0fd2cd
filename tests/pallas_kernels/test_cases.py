"""Every case, made small, gives what its reference gives: on the CPU, in Mosaic's interpreter."""

from dataclasses import replace

import jax
import numpy as np
import pytest

from pallas_kernels.cases import CASES, find_cases

if jax.__version_info__ < (0, 11):
    pytest.skip("Mosaic's interpreter needs JAX 0.11 for these kernels", allow_module_level=True)
pytest.importorskip("absl", reason="Mosaic GPU needs absl-py")

# cases that differ in name only, once made small, are one
SMALL = {
    (case.kernel, str(replace(case.small(), name=""))): case.small() for case in reversed(CASES)
}.values()


@pytest.mark.parametrize("case", SMALL, ids=lambda case: f"{case.kernel}: {case.name}")
def test_equals_its_reference(case):
    arrays = case.make(jax.random.key(0))
    got, want = case.run(*arrays, interpret=True), case.reference(*arrays)
    for run, right in zip(jax.tree.leaves(got), jax.tree.leaves(want), strict=True):
        run, right = np.asarray(run, np.float64), np.asarray(right, np.float64)
        assert run.shape == right.shape
        assert np.linalg.norm(run - right) <= case.tolerance * np.linalg.norm(right)


def test_names_are_unique():
    names = [(case.kernel, case.name) for case in CASES]
    assert len(set(names)) == len(names)


def test_finds_by_kernel_or_name():
    assert find_cases("gpt2") and all("gpt2" in case.name for case in find_cases("gpt2"))
    assert find_cases("") == CASES
