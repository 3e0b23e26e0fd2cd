"""API keys: everything needs one but the routes listed here, whatever is added later.

Keys are compared as SHA-256 digests in constant time, so neither a key's length nor its prefix can
be guessed from timing. Who starts the server may give the digest only: `sha256:` and 64 hexadecimal
digits, as `printf %s KEY | sha256sum` prints them. The path is the server's own `scope["path"]`: no
header has a say in it.

`serve.http.owner` tells the clients of different keys apart afterwards.
"""

import hashlib
import hmac
from collections.abc import Sequence

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Receive, Scope, Send

from serve.errors import CLOSE, ErrorBody, ErrorDetail, error_response, of_path
from serve.http.owner import set_owner
from serve.operations.admin import FILES, PAGES
from serve.operations.operator_routes import OPERATOR_PATHS
from serve.settings import DIGEST

PUBLIC_PATHS = (
    frozenset({"/health", "/livez", "/readyz", "/ready", "/ping", "/version", "/metrics"})
    | set(PAGES)
    | {f"/pages/{name}" for name in FILES}
)

_ADMIN = "/admin/"
_REFUSAL = ErrorBody(
    ErrorDetail(
        "A valid API key is needed: send the header 'Authorization: Bearer KEY'.",
        "authentication_error",
        code="invalid_api_key",
    )
)


class ApiKeys:
    """ASGI middleware that answers 401 unless the request carries one of `keys`."""

    def __init__(self, app: ASGIApp, keys: Sequence[str], admin_key: str | None = None) -> None:
        self._app = app
        self._digests = [_digest(key) for key in keys]
        self._admin = [_digest(admin_key)] if admin_key else self._digests

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan" or self._allows(scope):
            await self._app(scope, receive, send)
        else:
            body, headers = of_path(scope["path"], _REFUSAL), {"www-authenticate": "Bearer"}
            refusal = error_response(401, body, CLOSE | headers)
            await refusal(scope, receive, send)

    def _allows(self, scope: Scope) -> bool:
        path = scope["path"]
        for_admin = path.startswith(_ADMIN) or path in OPERATOR_PATHS
        known_keys = self._admin if for_admin else self._digests
        if path in PUBLIC_PATHS or not known_keys:
            return True
        headers = Headers(scope=scope)
        scheme, _, key = headers.get("authorization", "").partition(" ")
        if scheme.lower() != "bearer":
            key = headers.get("x-api-key", "")  # Anthropic's clients
        # no other blanks: byte A0, at the end of "à" in UTF-8, is one of Latin-1's
        digest = hashlib.sha256(key.strip(" \t").encode("latin-1")).digest()
        allowed = any([hmac.compare_digest(digest, known) for known in known_keys])
        if allowed:
            set_owner(scope, digest.hex())
        return allowed


def _digest(key: str) -> bytes:
    """Of a key as the settings have it."""
    if key.startswith(DIGEST):
        return bytes.fromhex(key.removeprefix(DIGEST))
    return hashlib.sha256(key.encode()).digest()
