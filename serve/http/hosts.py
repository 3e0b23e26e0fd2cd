"""By which names this server may be called: the Host headers that it takes.

A web page can give its own name the address 127.0.0.1 (DNS rebinding), and then it is no other
origin to the browser. Its Host header is still its name, so a server that listens on this machine
only takes no names but this machine's. Where everybody may connect, any name is taken, unless
`--allowed-hosts` says otherwise.
"""

import ipaddress
import re
from collections.abc import Sequence

from starlette.types import ASGIApp, Receive, Scope, Send

from serve.errors import ForbiddenError, TransportError, early_response
from serve.http.server_address import bracketed
from serve.settings import ServerSettings

ANY = "*"
_HOST = re.compile(r"(\[[0-9a-f:.]+\]|[^:\[\]]+)(?::\d*)?")
LOCAL = ("localhost", "127.0.0.1", "[::1]")


def allowed_hosts(settings: ServerSettings) -> tuple[str, ...]:
    """Names without ports; "*" is any, "*.a.org" any below a.org."""
    if settings.allowed_hosts is not None:
        return settings.allowed_hosts
    if settings.uds is not None or not _is_local(settings.host):
        return (ANY,)
    return tuple(dict.fromkeys((*LOCAL, bracketed(settings.host.lower()))))


def check_operator(settings: ServerSettings, what: str, instead: str = "") -> None:
    """Raise ForbiddenError where who is on another machine may be the operator, whose `what` is:
    no key says who is."""
    keys = settings.admin_api_key or settings.api_keys
    if not keys and settings.uds is None and not _is_local(settings.host):
        raise ForbiddenError(
            f"{what} is the operator's, and anybody who reaches this server could say to be that; "
            f"start it with --admin-api-key{instead}."
        )


class AllowedHosts:
    """ASGI middleware that answers 403 to requests for other names. One without a Host header
    (HTTP/1.0) is no browser's."""

    def __init__(self, app: ASGIApp, hosts: Sequence[str]) -> None:
        self._app = app
        self._names = {host.lower() for host in hosts}
        self._suffixes = tuple(host.lower()[1:] for host in hosts if host.startswith("*."))

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        given = [value for name, value in scope.get("headers", ()) if name == b"host"]
        wrong = next((host for host in given if not self._allows(host)), None)
        if wrong is None:
            await self._app(scope, receive, send)
            return
        shown = ascii(wrong[:100].decode("latin-1"))
        message = (
            f"The Host header {shown} names no host of this server; its flag --allowed-hosts says "
            "which it takes, and without that localhost."
        )
        refusal = early_response(scope["path"], TransportError(403, message))
        await refusal(scope, receive, send)

    def _allows(self, header: bytes) -> bool:
        name = _without_port(header.decode("latin-1").lower())
        return name in self._names or name.endswith(self._suffixes)


def _without_port(host: str) -> str:
    """The name in `a.org:80`, `a.org.` or `[::1]:80`; "" in what is no host."""
    match = _HOST.fullmatch(host)
    return match[1].removesuffix(".") if match else ""


def _is_local(host: str) -> bool:
    if host.lower() == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
