"""What a URL says of a server, and that a client says to it what its URL said."""

import asyncio

import pytest

from engine.errors import ConfigError
from serve.bench.http_client import Server
from serve.http.hosts import LOCAL, AllowedHosts
from serve.http.server_address import ServerAddress


@pytest.mark.parametrize("url", ["127.0.0.1:8000", "ftp://x", "http://", "http://x:port"])
def test_what_is_no_url_is_refused(url):
    with pytest.raises(ConfigError, match="no URL"):
        ServerAddress.parse(url)


@pytest.mark.parametrize(
    "url, header",
    [
        ("http://a.org", "a.org:80"),
        ("https://a.org/v1/", "a.org:443"),
        ("http://[::1]:8000/v1", "[::1]:8000"),
    ],
)
def test_the_host_header_is_one_of_http(url, header):
    assert ServerAddress.parse(url).host_header == header


def test_a_benchmark_may_ask_a_local_server_by_its_address_of_ipv6():
    heard = b""

    async def answer(reader, writer):
        nonlocal heard
        heard = await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
        await writer.drain()
        writer.close()

    async def ask():
        server = await asyncio.start_server(answer, "::1", 0)
        async with server:
            port = server.sockets[0].getsockname()[1]
            assert await Server.parse(f"http://[::1]:{port}").fetch("GET", "/health") == b"ok"

    try:
        asyncio.run(ask())
    except OSError as error:
        pytest.skip(f"this machine has no IPv6: {error}")
    [host] = [line[6:] for line in heard.split(b"\r\n") if line.lower().startswith(b"host: ")]
    assert AllowedHosts(None, LOCAL)._allows(host)
