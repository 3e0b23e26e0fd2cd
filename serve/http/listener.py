"""The listening socket: an address and port, or a path for a Unix socket; and its TLS."""

import errno
import os
import socket
import ssl
import stat
from collections.abc import Callable
from contextlib import suppress

from engine.errors import ConfigError
from serve.http.server_address import bracketed
from serve.settings import ServerSettings

BACKLOG = 2048


def bind(settings: ServerSettings) -> socket.socket:
    """The listening socket; raises ConfigError saying why there can be none."""
    if settings.uds is not None:
        return _bind_path(settings.uds)
    host, port = settings.host, settings.port
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)  # TCP_NODELAY
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((host, port))
        listener.listen(BACKLOG)
    except OSError as error:
        listener.close()
        hint = "; --port 0 picks a free one" if error.errno == errno.EADDRINUSE else ""
        raise ConfigError(f"Cannot listen on {host}:{port}: {_reason(error)}{hint}.") from None
    return listener


def remover(settings: ServerSettings) -> Callable[[], None]:
    """What removes the path of the Unix socket that was bound, unless it is another's by then."""
    path = settings.uds
    if path is None:
        return lambda: None
    bound = os.stat(path)

    def remove() -> None:
        with suppress(OSError):
            if os.path.samestat(os.stat(path), bound):
                os.unlink(path)

    return remove


def url_of(listener: socket.socket, settings: ServerSettings) -> str:
    """Where clients on this machine find the server."""
    if settings.uds is not None:
        return f"unix://{os.path.abspath(settings.uds)}"
    scheme = "http" if settings.ssl_certfile is None else "https"
    host, port = listener.getsockname()[:2]
    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)
    return f"{scheme}://{bracketed(host)}:{port}"


def check_certificate(settings: ServerSettings) -> None:
    """Raise ConfigError if TLS is wanted with files that cannot be used."""
    if settings.ssl_certfile is None:
        return
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    try:
        context.load_cert_chain(settings.ssl_certfile, settings.ssl_keyfile)
    except (OSError, ssl.SSLError) as error:
        raise ConfigError(
            f"Cannot use --ssl-certfile {settings.ssl_certfile} with --ssl-keyfile "
            f"{settings.ssl_keyfile}: {_reason(error)}."
        ) from None


def _bind_path(path: str) -> socket.socket:
    """A path where a server that is gone has left its socket is taken over."""
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        with suppress(FileNotFoundError):
            if stat.S_ISSOCK(os.stat(path).st_mode) and not _is_served(path):
                os.unlink(path)
        listener.bind(path)
        listener.listen(BACKLOG)
    except OSError as error:
        listener.close()
        raise ConfigError(f"Cannot listen on {path}: {_reason(error)}.") from None
    return listener


def _is_served(path: str) -> bool:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        return probe.connect_ex(path) == 0


def _reason(error: OSError) -> str:
    return (error.strerror or str(error)).rstrip(".")
