"""A port for a server that is about to be started, for those who must know it before.

Owns the choice; whoever starts the server finds out whether it could have it.
"""

import socket
from contextlib import suppress
from random import SystemRandom

_PORTS = range(10_000, 16_000)  # below those that systems give to connections and to `--port 0`


def free_port() -> int:
    """One that nobody has on this machine, and that nobody is given by chance until it is used."""
    while True:
        port = SystemRandom().choice(_PORTS)
        with socket.socket() as probe, suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port
