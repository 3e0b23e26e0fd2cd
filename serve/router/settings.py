"""Settings of the router."""

from typing import Any

import msgspec

from engine.errors import ConfigError
from engine.settings import convert_settings
from serve.fallback.apis import FallbackApi, check_spending, check_timeout
from serve.http.server_address import ServerAddress
from serve.settings import ServerSettings, UvicornLogLevel


class RouterSettings(msgspec.Struct, kw_only=True, frozen=True):
    """Raises ConfigError naming the setting that is wrong."""

    backends: tuple[str, ...]
    host: str = "127.0.0.1"
    port: int = 8080
    allowed_hosts: tuple[str, ...] | None = None  # Host headers; None: as `serve.http.hosts` says
    api_keys: tuple[str, ...] = ()
    try_timeout: float | None = 600.0  # seconds until an answer begins; None waits
    fallbacks: tuple[FallbackApi, ...] = ()  # in the order in which they are asked
    max_body_bytes: int = 8 * 1024 * 1024
    max_audio_clip_filesize_mb: int = 25  # the same, of a form with a file
    shutdown_timeout: float = 30.0
    uvicorn_log_level: UvicornLogLevel = "warning"

    def __post_init__(self) -> None:
        self.for_listener()
        if not self.backends:
            raise ConfigError("--backend is needed: the URL of a server; repeat it for others.")
        for url in self.backends:
            ServerAddress.parse(url)
        if len(set(self.backends)) < len(self.backends):
            raise ConfigError("Two of the backends have the same URL.")
        check_timeout(self.try_timeout)
        check_spending(self.fallbacks, self.api_keys, self.host)

    def for_listener(self) -> ServerSettings:
        """Those that every server of ours has; raises ConfigError."""
        return ServerSettings(
            host=self.host,
            port=self.port,
            allowed_hosts=self.allowed_hosts,
            api_keys=self.api_keys,
            max_body_bytes=self.max_body_bytes,
            max_audio_clip_filesize_mb=self.max_audio_clip_filesize_mb,
            shutdown_timeout=self.shutdown_timeout,
        )


def make_router_settings(**settings: Any) -> RouterSettings:
    """`RouterSettings` from untyped values; a wrong one is a ConfigError."""
    return convert_settings(settings, RouterSettings)
