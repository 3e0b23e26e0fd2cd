"""Who may call: web pages of other origins, and clients over TLS."""

import ssl
import subprocess
import time
from pathlib import Path

import httpx
import pytest

from engine.errors import ConfigError
from serve.listener import check_certificate
from serve.settings import ServerSettings
from tests.serve.served import Serve
from tests.serve.test_server import running

PAGE = {"origin": "https://a.org"}


@pytest.mark.anyio
async def test_pages_of_other_origins_may_call_only_if_they_are_named(serve: Serve) -> None:
    ask = {**PAGE, "access-control-request-method": "POST"}
    async with serve(ServerSettings(api_keys=("k",))) as served:
        closed = await served.http.get("/health", headers=PAGE)
    settings = ServerSettings(allowed_origins=("https://a.org",), api_keys=("k",))
    async with serve(settings) as served:
        asked = await served.http.options("/v1/chat/completions", headers=ask)
        named = await served.http.get("/health", headers=PAGE)
        other = await served.http.get("/health", headers={"origin": "https://b.org"})
        keyless = await served.http.get("/v1/models", headers=PAGE)
    header = "access-control-allow-origin"
    assert header not in closed.headers and header not in other.headers
    assert asked.status_code == 200 and "POST" in asked.headers["access-control-allow-methods"]
    assert named.headers[header] == "https://a.org"
    assert keyless.status_code == 401 and keyless.headers[header] == "https://a.org"


def certificate(folder: Path) -> tuple[Path, Path]:
    key, cert = folder / "key.pem", folder / "cert.pem"
    made = subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2",
         "-subj", "/CN=localhost", "-addext", "subjectAltName=IP:127.0.0.1",
         "-keyout", str(key), "-out", str(cert)],
        capture_output=True,
    )  # fmt: skip
    assert made.returncode == 0, made.stderr
    return cert, key


def test_tls(model_folder: Path, tmp_path: Path) -> None:
    cert, key = certificate(tmp_path)
    flags = ("--ssl-certfile", str(cert), "--ssl-keyfile", str(key))
    with running(model_folder, *flags) as server:
        url = server.url.replace("http", "https")
        context = ssl.create_default_context(cafile=str(cert))
        transport = httpx.HTTPTransport(verify=context, retries=0)
        with httpx.Client(transport=transport) as client:
            for _ in range(400):
                try:
                    if client.get(f"{url}/health").status_code == 200:
                        break
                except httpx.TransportError:
                    assert server.process.poll() is None
                time.sleep(0.05)
            assert client.get(f"{url}/livez").json() == {"status": "alive"}


def test_a_certificate_that_cannot_be_used(tmp_path: Path) -> None:
    (tmp_path / "x.pem").write_text("no certificate")
    with pytest.raises(ConfigError, match="need each other"):
        ServerSettings(ssl_certfile="x.pem")
    for name in ("x.pem", "missing.pem"):
        file = str(tmp_path / name)
        with pytest.raises(ConfigError, match="--ssl-certfile"):
            check_certificate(ServerSettings(ssl_certfile=file, ssl_keyfile=file))
