"""`ingot` with the scripted core: `python -m tests.fake_server serve FOLDER`."""

import os
import sys
from functools import partial
from pathlib import Path

from serve import cli, launcher
from serve.commands import run

ROOT = Path(__file__).resolve().parent.parent
FAKE_ENGINE = (sys.executable, "-P", str(ROOT / "tests" / "fake_engine.py"))

if __name__ == "__main__":
    launcher.LAST_WORDS_SECONDS = float(os.environ.get("LAST_WORDS_SECONDS", "1"))
    run.run_server = partial(run.run_server, command=FAKE_ENGINE)
    cli.main()
