"""A new server in the place of a running one, on the same listening socket.

    the one before   SIGUSR2 ▸ start the same command with the socket ▸ "it serves" ▸ drain ▸ exit
    the successor    take the socket ▸ load the model ▸ accept connections ▸ say so

The socket is one and the same, so no connection is refused: what arrives waits in its queue, and
whichever process accepts it answers. Owns how the two find each other; what each does then is the
launcher's. While both live, both need memory for their model.
"""

import asyncio
import os
import socket
import subprocess
import sys
from contextlib import suppress
from dataclasses import dataclass

from engine.errors import ConfigError

_VARIABLE = "INGOT_TAKE_OVER"  # of a successor: the descriptors of its socket and of its line


@dataclass(frozen=True)
class Predecessor:
    """The server that started this one: its listening socket, and a line to tell it."""

    listener: socket.socket
    line: socket.socket

    def relieve(self) -> None:
        """This server accepts connections: the one before may stop."""
        with self.line, suppress(OSError):  # it may have gone
            self.line.send(b"\n")


def predecessor() -> Predecessor | None:
    """The server whose place this process is to take, if it was started to; asked for once.

    Raises ConfigError if the environment names descriptors that are none.
    """
    given = os.environ.pop(_VARIABLE, None)
    if given is None:
        return None
    try:
        found = Predecessor(*(socket.socket(fileno=int(each)) for each in given.split()))
        for each in (found.listener, found.line):
            each.set_inheritable(False)  # the engine process needs neither
    except (OSError, ValueError, TypeError):
        raise ConfigError(f"{_VARIABLE} is for Ingot's own use; unset it.") from None
    return found


async def start_successor(listener: socket.socket) -> int | None:
    """Run this command again with `listener`: its process id once it serves, None if it ended, or
    there can be none.

    Cancelled, it ends what it has started.
    """
    try:
        ours, theirs = socket.socketpair()
    except OSError:  # no descriptors left: clients have them all
        return None
    ours.setblocking(False)
    descriptors = listener.fileno(), theirs.fileno()
    with ours:
        with theirs:
            try:
                process = subprocess.Popen(
                    [sys.executable, *sys.orig_argv[1:]],
                    pass_fds=descriptors,
                    env={**os.environ, _VARIABLE: " ".join(map(str, descriptors))},
                )
            except OSError:  # no memory, no processes left
                return None
        try:
            if await asyncio.get_running_loop().sock_recv(ours, 1):
                return process.pid
        except asyncio.CancelledError:
            process.terminate()
            raise
    await asyncio.to_thread(process.wait)
    return None
