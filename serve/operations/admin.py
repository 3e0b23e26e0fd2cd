"""The playground at `/`, the admin page at `/admin`, and the state that it draws.

The pages are files and hold nothing secret; what they show they ask for with a key. They may load
nothing that does not come from this server, and no other page may frame them.
"""

import time
from importlib.resources import files
from typing import Any

import msgspec
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Send

from engine.cache.page_map import PageMap
from engine.errors import NotFoundError
from serve import pages
from serve.http.endpoint import GenerationRoute, send_json
from serve.protocol.decoding import CheckedRequest
from serve.service import Service
from serve.version import ingot_version

_TYPES = {"html": "text/html", "css": "text/css", "js": "text/javascript"}
_HEADERS = {
    "content-security-policy": "default-src 'self'; img-src 'self' data:; "
    "style-src 'self' 'unsafe-inline'; frame-ancestors 'none'; base-uri 'none'; form-action 'self'",
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cache-control": "no-cache",
}
PAGES = {"/": "playground.html", "/admin": "admin.html"}
FILES = ("style.css", "common.js", "playground.js", "admin.js")


class Pages:
    """The files, read once; `root_path` goes before all that they link to and ask for."""

    def __init__(self, root_path: str = "") -> None:
        folder = files(pages)
        names = [*PAGES.values(), *FILES]
        self._files = {name: folder.joinpath(name).read_bytes() for name in names}
        for name in PAGES.values():
            self._files[name] = _below(self._files[name], root_path)

    async def __call__(self, request: Request) -> Response:
        """GET of a page or of a file that it needs."""
        path = request.url.path
        name = PAGES.get(path, path.removeprefix("/pages/"))
        kind = f"{_TYPES[name.rpartition('.')[2]]}; charset=utf-8"
        return Response(self._files[name], headers={**_HEADERS, "content-type": kind})


def _below(page: bytes, root_path: str) -> bytes:
    """A page whose links, which begin with a slash, are below `root_path`."""
    for attribute in (b'href="', b'src="', b'data-root="'):
        page = page.replace(attribute + b"/", attribute + root_path.encode() + b"/")
    return page


class AdminState:
    """GET /admin/state."""

    def __init__(self, service: Service) -> None:
        self._service = service
        self._started = time.monotonic()

    async def __call__(self, _: Request) -> Response:
        service, client = self._service, self._service.client
        now = time.monotonic()
        state: dict[str, Any] = {
            "state": client.state,
            "uptime": now - self._started,
            "version": ingot_version(),
            "names": service.model.names,
            "model": client.info,
            "stats": client.stats,
            "pages": _picture(client.look_at_pages()),
            "totals": service.metrics.totals,
            "log": list(service.recent_log),
            "requests": [
                {
                    "id": name,
                    "prompt_tokens": prompt_tokens,
                    "generated_tokens": sum(each.tokens for each in timelines),
                    "seconds": now - timelines[0].arrival,
                }
                for name, prompt_tokens, timelines in client.flights.in_flight()
            ],
        }
        return Response(msgspec.json.encode(state), media_type="application/json")


def _picture(pages: PageMap | None) -> dict[str, Any] | None:
    return None if pages is None else msgspec.structs.asdict(pages)


class AbortRequest(CheckedRequest, frozen=True, kw_only=True):
    """Which request is to end."""

    id: str


class Aborted(msgspec.Struct):
    """The request that ended."""

    id: str


class AbortRoute(GenerationRoute[AbortRequest]):
    """POST /admin/abort: its client gets an error."""

    kind = AbortRequest
    computes = False

    async def answer(self, request: AbortRequest, request_id: str, send: Send) -> None:
        if not self.service.client.flights.end(request.id):
            raise NotFoundError(f"No request {request.id[:80]!a} is in flight.", "id")
        await send_json(send, Aborted(request.id))
