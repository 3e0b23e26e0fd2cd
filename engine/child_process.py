"""What a Python process that is started from this one needs to find the same code."""

import os
from pathlib import Path


def child_environment() -> dict[str, str]:
    """Ours, with the folder in which the package lies."""
    home = str(Path(__file__).resolve().parent.parent)
    known = os.environ.get("PYTHONPATH")
    return {**os.environ, "PYTHONPATH": os.pathsep.join([home, known] if known else [home])}
