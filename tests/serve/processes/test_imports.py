"""The front runs where JAX cannot be imported."""

import subprocess
import sys

from tests.fake_server import ROOT

PROGRAM = """
import sys

class NoJax:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in ("jax", "jaxlib", "flax", "torch"):
            raise ImportError(f"{name} was imported")

sys.meta_path.insert(0, NoJax())
import engine.process, serve.cli, serve.commands.run, serve.commands.terminal, serve.commands.env
print("imported")
"""


def test_the_front_imports_no_jax() -> None:
    result = subprocess.run(
        [sys.executable, "-c", PROGRAM], capture_output=True, text=True, cwd=ROOT, timeout=90
    )
    assert result.stdout == "imported\n", result.stderr


def test_a_command_imports_only_what_it_needs() -> None:
    program = "import serve.cli, sys; print({'numpy', 'starlette'} & {*sys.modules})"
    result = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, cwd=ROOT, timeout=90
    )
    assert result.stdout == "set()\n", result.stderr
