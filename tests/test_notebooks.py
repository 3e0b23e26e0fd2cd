"""Every notebook runs from top to bottom, and the outputs that are stored are those it gives."""

from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

FOLDER = Path(__file__).resolve().parent.parent / "notebooks"


@pytest.mark.parametrize("path", sorted(FOLDER.glob("*.ipynb")), ids=lambda path: path.stem)
def test_notebook_runs(path, monkeypatch):
    monkeypatch.setenv("JAX_PLATFORMS", "cpu")
    notebook, stored = (nbformat.read(path, as_version=4) for _ in range(2))
    assert all(cell.outputs for cell in _code(notebook)[:2]), "the notebook is stored executed"
    NotebookClient(notebook, timeout=300, kernel_name="python3").execute(cwd=str(FOLDER.parent))
    for given, kept in zip(_code(notebook), _code(stored), strict=True):
        assert _lines(given) == _lines(kept), "it prints more or less than what is stored"
    printed = "".join(output.get("text", "") for cell in _code(notebook) for output in cell.outputs)
    assert "Traceback" not in printed
    if path.stem == "01_first_tokens":
        assert "decode 1 rows" in printed and "mixed 64 tokens" in printed
        assert any("image/png" in o.get("data", {}) for c in _code(notebook) for o in c.outputs)


def _lines(cell):
    return len("".join(output.get("text", "") for output in cell.outputs).splitlines())


def _code(notebook):
    return [cell for cell in notebook.cells if cell.cell_type == "code"]
