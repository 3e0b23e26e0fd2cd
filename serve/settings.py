"""Settings of the HTTP front; the engine's own are in `engine.config`."""

import re
from collections.abc import Sequence
from typing import Any, Literal

import msgspec

from engine.errors import ConfigError
from engine.logs import LogFormat, LogLevel, LogSettings
from engine.settings import convert_settings
from serve.fallback.apis import FallbackApi, check_spending, check_timeout

_HOST = re.compile(r"\*|(\*\.)?[^\s:/*\[\]]*[^\s:/*\[\].]|\[[0-9a-fA-F:.]+\]")
UvicornLogLevel = Literal["critical", "error", "warning", "info", "debug", "trace"]


class ServerSettings(msgspec.Struct, kw_only=True, frozen=True):
    """Raises ConfigError naming the setting that is wrong."""

    host: str = "127.0.0.1"
    port: int = 8000
    uds: str | None = None  # path of a Unix socket, instead of host and port
    ssl_certfile: str | None = None
    ssl_keyfile: str | None = None
    allowed_origins: tuple[str, ...] = ()  # of web pages that may call this server; "*" is any
    allowed_hosts: tuple[str, ...] | None = None  # Host headers; None: as `serve.hosts` says
    enable_log_requests: bool = False
    enable_per_request_metrics: bool = False  # responses say how long they took
    log_level: LogLevel = "info"
    log_format: LogFormat = "text"
    otlp_traces_endpoint: str | None = None  # URL of a collector for OpenTelemetry's spans
    api_keys: tuple[str, ...] = ()
    admin_api_key: str | None = None  # of /admin, instead of the others
    served_model_names: tuple[str, ...] = ()  # empty: the name that was given for the model
    chat_template: str | None = None  # a file, or the template itself; None is the model's own
    trust_request_chat_template: bool = False
    tool_call_parser: str = "auto"  # how the model writes calls; auto: as its template shows
    reasoning_parser: str = "auto"
    enable_auto_tool_choice: bool = True
    stream_interval: int = 1  # the least that a chunk holds, in tokens; not the first and the last
    generation_config: Literal["auto", "vllm"] = "auto"  # whose sampling defaults apply
    max_num_queued_reqs: int | None = None  # waiting sequences before new ones are refused
    max_concurrent_requests_per_key: int | None = None
    max_body_bytes: int = 8 * 1024 * 1024
    max_audio_clip_filesize_mb: int = 25  # of a file that is to be transcribed
    shutdown_timeout: float = 30.0  # seconds that requests in flight get to finish
    fallbacks: tuple[FallbackApi, ...] = ()  # for what is not answered here, in this order
    try_timeout: float | None = 600.0  # seconds until an answer begins, if there are fallbacks
    watchdog_timeout: float = 300.0  # seconds that a step may take before the engine is replaced
    uvicorn_log_level: UvicornLogLevel = "warning"

    @property
    def logs(self) -> LogSettings:
        return LogSettings(self.log_level, self.log_format)

    def __post_init__(self) -> None:
        if not 0 <= self.port <= 65535:
            raise ConfigError(f"--port must be between 0 and 65535, got {self.port}.")
        if (self.ssl_certfile is None) != (self.ssl_keyfile is None):
            raise ConfigError("--ssl-certfile and --ssl-keyfile need each other.")
        _check_hosts(self.allowed_hosts)
        if any(not key.strip() for key in self.api_keys):
            raise ConfigError("--api-key must not be empty; leave it out to serve without a key.")
        if any(not name.strip() for name in self.served_model_names):
            raise ConfigError("--served-model-name must not be empty.")
        if not 0 <= self.shutdown_timeout < float("inf"):
            raise ConfigError("--shutdown-timeout must be at least 0 seconds.")
        check_timeout(self.try_timeout)
        check_spending(self.fallbacks, self.api_keys, self.host)
        if not 0 < self.watchdog_timeout < float("inf"):
            raise ConfigError("--watchdog-timeout must be more than 0 seconds.")
        if self.max_num_queued_reqs is not None and self.max_num_queued_reqs < 1:
            raise ConfigError("--max-num-queued-reqs must be at least 1.")
        per_key = self.max_concurrent_requests_per_key
        if per_key is not None and (per_key < 1 or not self.api_keys):
            raise ConfigError(
                "--max-concurrent-requests-per-key must be at least 1, and needs --api-key."
            )
        if self.stream_interval < 1:
            raise ConfigError("--stream-interval must be at least 1.")
        if self.max_audio_clip_filesize_mb < 1:
            raise ConfigError("--max-audio-clip-filesize-mb must be at least 1.")
        if self.max_body_bytes < 1024:
            raise ConfigError("--max-body-bytes must be at least 1024.")


def make_settings(**settings: Any) -> ServerSettings:
    """`ServerSettings` from untyped values; a wrong one is a ConfigError."""
    return convert_settings(settings, ServerSettings)


def _check_hosts(hosts: Sequence[str] | None) -> None:
    """Refuse names that no Host header matches."""
    if hosts is None:
        return
    if not hosts:
        raise ConfigError("--allowed-hosts names no host, so nobody could call; leave it out.")
    wrong = next((host for host in hosts if not _HOST.fullmatch(host)), None)
    if wrong is not None:
        raise ConfigError(
            "--allowed-hosts takes names without scheme and port, such as a.org, *.a.org and "
            f"[::1], or *; got {wrong[:100]!r}."
        )
