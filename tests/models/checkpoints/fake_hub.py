"""A Hugging Face hub on this machine: the few routes that a download asks for."""

import hashlib
import json
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

COMMIT = "0123456789abcdef0123456789abcdef01234567"


@dataclass
class FakeHub:
    """One model, "org/name"; what was asked for is in `log`."""

    files: Mapping[str, bytes]
    gated: bool = False
    broken: set[str] = field(default_factory=set)  # files that the server fails to give
    cut: dict[str, int] = field(default_factory=dict)  # file -> the first answer ends after so much
    log: list[tuple[str, str, str | None]] = field(default_factory=list)  # method, path, range
    url: str = ""

    def fetched(self) -> list[str]:
        """The files whose content was sent."""
        return [path.rsplit(f"{COMMIT}/")[1] for method, path, _ in self.log if _file(method, path)]


def _file(method: str, path: str) -> bool:
    return method == "GET" and f"/resolve/{COMMIT}/" in path


@contextmanager
def fake_hub(hub: FakeHub) -> Iterator[FakeHub]:
    """Serve it."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), _handler(hub))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    hub.url = f"http://127.0.0.1:{server.server_address[1]}"
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()


def _handler(hub: FakeHub) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        def log_message(self, *_: object) -> None: ...

        def do_HEAD(self) -> None:
            self.answer()

        def do_GET(self) -> None:
            self.answer()

        def answer(self) -> None:
            path = self.path.partition("?")[0]
            hub.log.append((self.command, path, self.headers.get("Range")))
            if not path.startswith(("/api/models/org/name", "/org/name/resolve/")):
                self.refuse(404, "RepoNotFound")
            elif hub.gated:
                self.refuse(401, "GatedRepo")
            elif path.startswith("/api/models/org/name/tree/"):
                self.send_json([self.entry(name) for name in hub.files])
            elif path in ("/api/models/org/name", "/api/models/org/name/revision/main"):
                files = [{"rfilename": name} for name in hub.files]
                self.send_json({"id": "org/name", "sha": COMMIT, "siblings": files})
            elif path.rpartition("/")[2] in hub.broken and self.command == "GET":
                self.refuse(500, "Broken")
            elif f"/{COMMIT}/" in path or "/resolve/main/" in path:
                self.send_file(path.split("/", 5)[5])
            else:
                self.refuse(404, "RevisionNotFound")

        def entry(self, name: str) -> dict[str, object]:
            return {
                "type": "file", "path": name, "size": len(hub.files[name]),
                "oid": hashlib.sha1(hub.files[name]).hexdigest(),
            }  # fmt: skip

        def refuse(self, status: int, code: str) -> None:
            self.send_response(status)
            self.send_header("X-Error-Code", code)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def send_json(self, value: object) -> None:
            body = json.dumps(value).encode()
            self.send_response(200)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def send_file(self, name: str) -> None:
            body = hub.files[name]
            start = int((self.headers.get("Range") or "bytes=0-")[6:].partition("-")[0])
            self.send_response(206 if start else 200)
            self.send_header("ETag", f'"{hashlib.sha1(body).hexdigest()}"')
            self.send_header("X-Repo-Commit", COMMIT)
            self.send_header("Content-Length", str(len(body) - start))
            if start:
                self.send_header("Content-Range", f"bytes {start}-{len(body) - 1}/{len(body)}")
            self.end_headers()
            if self.command == "GET":
                end = hub.cut.pop(name, len(body))
                self.wfile.write(body[start:end])

    return Handler
