"""`ingot serve` before an engine that writes a fixed text.

python -m serve.bench.scripted_server serve demo --port 8000   the server
python -m serve.bench.scripted_server FD                       its engine, which it starts
"""

import socket
import sys
from functools import partial

from engine.beams.core import BeamCore
from engine.process import serve_engine
from serve.bench.scripted import ScriptedCore


def main(arguments: list[str]) -> int:
    """The server, or with a number the engine behind it."""
    if arguments[0].isdigit():
        with socket.socket(fileno=int(arguments[0])) as peer:
            return serve_engine(peer, lambda config: BeamCore(ScriptedCore(config)))
    from serve import cli
    from serve.commands import run

    command = (sys.executable, "-P", "-m", "serve.bench.scripted_server")
    run.run_server = partial(run.run_server, command=command)
    cli.main()
    return 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
