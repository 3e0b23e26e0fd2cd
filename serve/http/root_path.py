"""`--root-path`: the server is at a path of some other server's, as https://host/models/small.

    /models/small/v1/models ──▶ /v1/models     a proxy that passes paths on as they are
    /v1/models              ──▶ /v1/models     one that leaves its own part out

Every layer inside sees paths without it, so none can be walked around.
"""

from starlette.types import ASGIApp, Receive, Scope, Send


class RootPath:
    """ASGI middleware around everything that looks at paths."""

    def __init__(self, app: ASGIApp, path: str) -> None:
        """`path` begins with a slash and does not end with one."""
        self._app = app
        self._path = path

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] in ("http", "websocket"):
            scope["path"] = self._without(scope["path"])
            if raw := scope.get("raw_path"):
                scope["raw_path"] = self._without(raw.decode("latin-1")).encode("latin-1")
        await self._app(scope, receive, send)

    def _without(self, path: str) -> str:
        if path == self._path:
            return "/"
        return path[len(self._path) :] if path.startswith(self._path + "/") else path
