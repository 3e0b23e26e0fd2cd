"""CPU time of a server on this machine: the process that listens on its port, and its children.

Nobody publishes it, and it is what a server costs besides its GPU. Linux only: it reads /proc.
"""

import os
import time
from dataclasses import dataclass
from pathlib import Path
from socket import gaierror, gethostbyname

from serve.bench.http_client import Server

_PROC = Path("/proc")
_LISTENING = "0A"
_LOOK_SECONDS = 2.0
_QUIET = 0.05  # of one core: who uses less while nobody asks is done with starting


@dataclass(frozen=True)
class CpuMeter:
    """A process and all that it started."""

    pid: int

    @classmethod
    def of_server(cls, server: Server) -> "CpuMeter | None":
        """None where the server is elsewhere, or its process is not ours to look at."""
        try:
            if not gethostbyname(server.host).startswith("127.") or not _PROC.is_dir():
                return None
        except gaierror:
            return None
        sockets = _listening(server.port)
        owners = (pid for pid in _pids() if sockets & _sockets(pid))
        pid = min(owners, default=None)
        return None if pid is None else cls(pid)

    def seconds(self) -> float:
        """User and system time so far, of children that have ended too."""
        return sum(seconds for _, seconds in self.family().values())

    def family(self) -> dict[int, tuple[int, float]]:
        """The processes that there are now, each with its parent and its CPU seconds."""
        known = {pid: stat for pid in _pids() if (stat := stat_of(pid))}
        family, grown = {self.pid}, True
        while grown:
            more = {pid for pid, stat in known.items() if stat[0] in family} - family
            family |= more
            grown = bool(more)
        return {pid: known[pid] for pid in family if pid in known}

    def wait_until_quiet(self, timeout: float) -> None:
        """Until it does nothing while nobody asks: some compile behind their first answers."""
        seen, deadline = self.seconds(), time.monotonic() + timeout
        while time.monotonic() < deadline:
            time.sleep(_LOOK_SECONDS)
            now = self.seconds()
            if now - seen < _LOOK_SECONDS * _QUIET:
                return
            seen = now


def _pids() -> list[int]:
    return [int(entry) for entry in os.listdir(_PROC) if entry.isdigit()]


def stat_of(pid: int) -> tuple[int, float] | None:
    """Parent and CPU seconds of a process; None if there is no such one, or no /proc."""
    try:
        # 4242 (name (with) spaces) S parent ... 11 more ... utime stime cutime cstime
        fields = (_PROC / str(pid) / "stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None
    ticks = sum(map(int, fields[11:15]))
    return int(fields[1]), ticks / os.sysconf("SC_CLK_TCK")


def _listening(port: int) -> set[str]:
    """Sockets that wait on this port, as /proc names them."""
    found = set()
    for table in ("tcp", "tcp6"):
        try:
            lines = (_PROC / "net" / table).read_text().splitlines()[1:]
        except OSError:
            continue
        for fields in (line.split() for line in lines):
            if fields[3] == _LISTENING and int(fields[1].rpartition(":")[2], 16) == port:
                found.add(f"socket:[{fields[9]}]")
    return found


def _sockets(pid: int) -> set[str]:
    folder = _PROC / str(pid) / "fd"
    found = set()
    try:
        for name in os.listdir(folder):
            found.add(os.readlink(folder / name))
    except OSError:
        pass
    return found
