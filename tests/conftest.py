"""What all tests share: a CPU with four virtual devices, the shapes in signatures executed, and
where the outside test data lies."""

import os
from collections.abc import Iterator
from pathlib import Path

os.environ.setdefault("JAX_PLATFORMS", "cpu")
os.environ.setdefault("JAX_NUM_CPU_DEVICES", "4")

import pytest
from hypothesis import settings
from jaxtyping import install_import_hook

# no deadlines, for machines are busy; the same examples in every run, for one that fails once in
# hundreds of runs says nothing of the change it is seen with. To look for others:
# pytest --hypothesis-profile=default
settings.register_profile("tests", deadline=None, derandomize=True)
settings.load_profile("tests")

REPOSITORY = Path(__file__).resolve().parent.parent
WITH_ARRAYS = (
    "pallas_kernels/**/*.py", "models/**/*.py", "engine/sampling/*.py", "engine/step.py",
    "engine/packing.py",
)  # fmt: skip


def modules_with_shapes() -> Iterator[str]:
    """Whose signatures name axes. To check all others there as well takes every process half a
    second, and ten each test that reads the 128,256 words of a GGUF file."""
    for pattern in WITH_ARRAYS:
        for path in REPOSITORY.glob(pattern):
            if "jaxtyping" in path.read_text(encoding="utf-8"):
                yield ".".join(path.relative_to(REPOSITORY).with_suffix("").parts)


install_import_hook([*modules_with_shapes()], "beartype.beartype")


def pytest_collection_finish() -> None:
    """Python's collector looked at all that 5,000 tests have imported whenever one traced a model:
    a twentieth of the time."""
    from engine.collector import keep_what_is_here

    keep_what_is_here()


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Folder of trained weights, tokenizers and texts that are not part of the project."""
    folder = Path(os.environ.get("INGOT_TEST_DATA", REPOSITORY.parent / "shared" / "data"))
    if not folder.is_dir():
        pytest.skip(f"no test data at {folder}; set INGOT_TEST_DATA to a folder that has it")
    return folder


@pytest.fixture(scope="session", autouse=True)
def programs_on_demand() -> Iterator[None]:
    from tests.programs_on_demand import compile_on_demand

    with pytest.MonkeyPatch.context() as patch:
        compile_on_demand(patch)
        yield
