"""Who may call: web pages of other origins, and clients over TLS."""

import asyncio
import ssl
import subprocess
import time
from pathlib import Path

import httpx
import pytest

from engine.errors import ConfigError
from serve.http.hosts import LOCAL, allowed_hosts
from serve.http.listener import check_certificate
from serve.settings import ServerSettings
from tests.serve.processes.test_server import running
from tests.serve.served import Serve

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


@pytest.mark.anyio
async def test_only_names_of_this_server_are_taken(serve: Serve) -> None:
    """A page whose name was given this machine's address still sends its own name."""
    settings = ServerSettings(allowed_hosts=(*LOCAL, "A.org", "*.b.org"), allowed_origins=("*",))
    good = (
        "localhost", "LOCALHOST:8000", "localhost.", "127.0.0.1:1", "[::1]:8000", "[::1]", "a.org",
        "x.b.org:80", "y.x.b.org",
    )  # fmt: skip
    bad = (
        "evil.org", "evil.org:8000", "localhost.evil.org", "localhost@evil.org",
        "evil.org/localhost",
        "b.org", "xb.org", "127.0.0.1.evil.org", "[::1", "[::1].evil.org", "", ":8000", "0.0.0.0",
        "a.org\r\n", "\x00",
    )  # fmt: skip
    async with serve(settings) as served:
        for host in good:
            answer = await served.http.get("/v1/models", headers={"host": host})
            assert answer.status_code == 200, host
        for host in bad:
            for path in ("/v1/models", "/health", "/", "/admin/state"):
                answer = await served.http.get(path, headers={"host": host, **PAGE})
                assert answer.status_code == 403, (host, path)
        error = answer.json()["error"]
        anthropic = await served.http.post("/v1/messages", headers={"host": "evil"})
    assert error["type"] == "permission_error" and "\x00" not in error["message"]
    assert anthropic.json()["type"] == "error" and "'evil'" in anthropic.json()["error"]["message"]


@pytest.mark.parametrize(
    ("settings", "hosts"),
    [
        ({}, LOCAL),
        ({"host": "localhost"}, LOCAL),
        ({"host": "::1"}, LOCAL),
        ({"host": "127.0.0.2"}, (*LOCAL, "127.0.0.2")),
        ({"host": "0.0.0.0"}, ("*",)),
        ({"host": "::"}, ("*",)),
        ({"host": "10.0.0.5"}, ("*",)),
        ({"host": "a.org"}, ("*",)),
        ({"uds": "/tmp/a"}, ("*",)),
        ({"allowed_hosts": ("a.org",)}, ("a.org",)),
        ({"host": "0.0.0.0", "allowed_hosts": ("a.org",)}, ("a.org",)),
    ],
)
def test_whose_names_are_taken_by_default(settings, hosts) -> None:
    assert allowed_hosts(ServerSettings(**settings)) == hosts


@pytest.mark.parametrize(
    "hosts", [(), ("",), ("a.org:80",), ("http://a.org",), ("::1",), ("*.",), ("a*",), ("a.org.",)]
)
def test_names_that_nobody_could_call_by(hosts: tuple[str, ...]) -> None:
    with pytest.raises(ConfigError, match="--allowed-hosts"):
        ServerSettings(allowed_hosts=hosts)
    ServerSettings(allowed_hosts=("a", "A.org", "*.a.org", "[::1]", "10.0.0.1", "*"))


def test_a_local_server_is_called_by_local_names(model_folder: Path) -> None:
    """Also over a real socket, and before anything else is looked at."""
    with running(model_folder) as server:
        server.wait_until(200)
        evil = httpx.get(f"{server.url}/v1/models", headers={"host": f"evil.org:{server.port}"})
        local = httpx.get(f"{server.url}/v1/models", headers={"host": f"localhost:{server.port}"})
    assert (evil.status_code, local.status_code) == (403, 200)


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
        assert asyncio.run(sending_on(url, context)) == 413


async def sending_on(url: str, context: ssl.SSLContext) -> int:
    """What a client reads that sends a body which is too large to its end."""
    async with httpx.AsyncClient(verify=context) as client:
        kind = {"content-type": "application/json"}
        response = await client.post(f"{url}/v1/completions", content=bytes(2**24), headers=kind)
    return response.status_code


def test_a_certificate_that_cannot_be_used(tmp_path: Path) -> None:
    (tmp_path / "x.pem").write_text("no certificate")
    with pytest.raises(ConfigError, match="need each other"):
        ServerSettings(ssl_certfile="x.pem")
    for name in ("x.pem", "missing.pem"):
        file = str(tmp_path / name)
        with pytest.raises(ConfigError, match="--ssl-certfile"):
            check_certificate(ServerSettings(ssl_certfile=file, ssl_keyfile=file))
