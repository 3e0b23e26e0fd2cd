"""Ctrl-C at any moment of a command's start: one line and exit code 130, and never a crash."""

import os
import subprocess
import sys
from pathlib import Path

from tests.fake_server import ROOT

MOMENTS = (0.1, 0.7, 2.0)  # seconds; the last compiles, or closes what has compiled
PROGRAM = """
import os, signal, sys, threading
from serve.__main__ import main
signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background ignores it
timer = threading.Timer(float(sys.argv.pop()), os.kill, (os.getpid(), signal.SIGINT))
timer.daemon = True
timer.start()
main()
"""


def test_a_command_ends_cleanly_where_it_is_interrupted(tmp_path: Path) -> None:
    command = [sys.executable, "-c", PROGRAM, "generate", "a", "--max-tokens", "9"]
    command += ["--compilation-cache-dir", str(tmp_path)]
    environment = {**os.environ, "PYTHONPATH": ROOT}
    started = [
        subprocess.Popen(
            [*command, str(moment)], env=environment, text=True,
            stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        )
        for moment in MOMENTS
    ]  # fmt: skip
    ends = [(process.communicate(timeout=120)[1], process.returncode) for process in started]
    assert ends[:2] == [("interrupted\n", 130)] * 2
    assert ends[2] in (("interrupted\n", 130), ("", 0))  # 0: an answer is ended and kept
