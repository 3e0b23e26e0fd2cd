"""Where another server is: what its URL says to whoever asks it."""

import ssl
from dataclasses import dataclass
from functools import cache
from typing import Self
from urllib.parse import urlsplit

from engine.errors import ConfigError


@dataclass(frozen=True)
class ServerAddress:
    """Host and port to connect to, and the path that goes before every endpoint."""

    host: str
    port: int
    tls: bool
    path: str

    @classmethod
    def parse(cls, url: str) -> Self:
        """Raises ConfigError for what is no http:// or https:// URL."""
        try:
            parts = urlsplit(url)
            port = parts.port
        except ValueError:
            raise ConfigError(f"{url!r} is no URL; write http://127.0.0.1:8000.") from None
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise ConfigError(f"{url!r} is no URL; write http://127.0.0.1:8000.")
        tls = parts.scheme == "https"
        return cls(parts.hostname, port or (443 if tls else 80), tls, parts.path.rstrip("/"))

    @property
    def host_header(self) -> str:
        """`a.org:80`, and `[::1]:80` of an address of IPv6."""
        return f"{bracketed(self.host)}:{self.port}"

    @property
    def trusted(self) -> ssl.SSLContext | None:
        """The certificates that it is known by; None without TLS."""
        return _of_the_system() if self.tls else None


def bracketed(host: str) -> str:
    """As a URL has it: `a.org`, `[::1]`."""
    return f"[{host}]" if ":" in host else host


@cache
def _of_the_system() -> ssl.SSLContext:
    """Reading them takes milliseconds."""
    return ssl.create_default_context()
