"""Settings of the HTTP front; the engine's own are in `engine.config`."""

import re
from collections.abc import Sequence
from typing import Any, Literal

import msgspec

from engine.errors import ConfigError
from engine.logs import LogFormat, LogLevel, LogSettings
from engine.sampling.defaults import RECOMMENDED, sampling_defaults
from engine.sampling.params import MAX_LOGPROBS
from engine.settings import convert_settings
from models.errors import CheckpointError
from serve.fallback.apis import FallbackApi, check_spending, check_timeout

_HOST = re.compile(r"\*|(\*\.)?[^\s:/*\[\]]*[^\s:/*\[\].]|\[[0-9a-fA-F:.]+\]")
DIGEST = "sha256:"  # begins a key of which only that is told
_KEY = re.compile(rf"(?!{DIGEST}).*\S.*|{DIGEST}[0-9a-fA-F]{{64}}", re.DOTALL)
_ROOT_PATH = re.compile(r"(/[\w.~-]+)+", re.ASCII)
_GENERATION = (*RECOMMENDED, "do_sample", "max_new_tokens")
UvicornLogLevel = Literal["critical", "error", "warning", "info", "debug", "trace"]


class StructuredOutputsConfig(
    msgspec.Struct, kw_only=True, frozen=True, forbid_unknown_fields=True
):
    """How outputs are constrained: by llguidance, vLLM's backend `guidance`, and no other.

    `disable_any_whitespace` and `disable_additional_properties` hold for all requests for JSON.
    """

    backend: Literal["auto", "guidance"] = "auto"
    disable_any_whitespace: bool = False
    disable_additional_properties: bool = False
    reasoning_parser: str = ""


class ServerSettings(msgspec.Struct, kw_only=True, frozen=True):
    """Raises ConfigError naming the setting that is wrong."""

    host: str = "127.0.0.1"
    port: int = 8000
    uds: str | None = None  # path of a Unix socket, instead of host and port
    ssl_certfile: str | None = None
    ssl_keyfile: str | None = None
    allowed_origins: tuple[str, ...] = ()  # of web pages that may call this server; "*" is any
    allowed_hosts: tuple[str, ...] | None = None  # Host headers; None: as `serve.http.hosts` says
    enable_log_requests: bool = False
    enable_per_request_metrics: bool = False  # responses say how long they took
    log_level: LogLevel = "info"
    log_format: LogFormat = "text"
    otlp_traces_endpoint: str | None = None  # URL of a collector for OpenTelemetry's spans
    root_path: str = ""  # where a proxy has put the server: /models/small
    enable_request_id_headers: bool = False  # a request's own id is repeated in its response
    api_keys: tuple[str, ...] = ()
    admin_api_key: str | None = None  # of /admin, instead of the others
    isolate_prefix_cache: bool = True  # each key finds only its own prompts in the cache
    served_model_names: tuple[str, ...] = ()  # empty: the name that was given for the model
    chat_template: str | None = None  # a file, or the template itself; None is the model's own
    chat_template_content_format: Literal["auto", "string", "openai"] = "auto"
    default_chat_template_kwargs: dict[str, Any] | None = None
    trust_request_chat_template: bool = False
    response_role: str = "assistant"  # of turns that are answered
    tool_call_parser: str = "auto"  # how the model writes calls; auto: as its template shows
    reasoning_parser: str = "auto"
    enable_auto_tool_choice: bool = True
    stream_interval: int = 1  # the least that a chunk holds, in tokens; not the first and the last
    generation_config: Literal["auto", "vllm"] = "auto"  # whose sampling defaults apply
    override_generation_config: dict[str, Any] | None = None  # goes before them
    structured_outputs_config: StructuredOutputsConfig = StructuredOutputsConfig()
    max_logprobs: int = MAX_LOGPROBS  # that a request may ask for
    max_num_queued_reqs: int | None = None  # waiting sequences before new ones are refused
    max_num_queued_tokens: int | None = None  # the same, of prompts that have not begun to answer
    max_concurrent_requests_per_key: int | None = None
    max_body_bytes: int = 8 * 1024 * 1024
    max_audio_clip_filesize_mb: int = 25  # of a file that is to be transcribed
    shutdown_timeout: float = 30.0  # seconds that requests in flight get to finish
    fallbacks: tuple[FallbackApi, ...] = ()  # for what is not answered here, in this order
    try_timeout: float | None = 600.0  # seconds until an answer begins, if there are fallbacks
    watchdog_timeout: float = 300.0  # seconds that a step may take before the engine is replaced
    uvicorn_log_level: UvicornLogLevel = "warning"

    @property
    def parser_of_reasoning(self) -> str:
        """Either of the two settings may name it."""
        return self.structured_outputs_config.reasoning_parser or self.reasoning_parser

    @property
    def logs(self) -> LogSettings:
        return LogSettings(self.log_level, self.log_format)

    def __post_init__(self) -> None:
        if not 0 <= self.port <= 65535:
            raise ConfigError(f"--port must be between 0 and 65535, got {self.port}.")
        if (self.ssl_certfile is None) != (self.ssl_keyfile is None):
            raise ConfigError("--ssl-certfile and --ssl-keyfile need each other.")
        _check_hosts(self.allowed_hosts)
        _check_answers(self)
        _check_keys("--api-key", self.api_keys)
        _check_keys("--admin-api-key", () if self.admin_api_key is None else (self.admin_api_key,))
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
        if self.max_num_queued_tokens is not None and self.max_num_queued_tokens < 1:
            raise ConfigError("--max-num-queued-tokens must be at least 1.")
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


def _check_answers(settings: ServerSettings) -> None:
    root = settings.root_path
    if root and (not _ROOT_PATH.fullmatch(root) or {".", ".."} & set(root.split("/"))):
        raise ConfigError(f"--root-path is a path such as /models/small, got {root[:100]!r}.")
    if not settings.response_role.strip():
        raise ConfigError("--response-role must not be empty.")
    if not 0 <= settings.max_logprobs <= MAX_LOGPROBS:
        raise ConfigError(
            f"--max-logprobs must be from 0 to {MAX_LOGPROBS}, got {settings.max_logprobs}."
        )
    named = {settings.structured_outputs_config.reasoning_parser, settings.reasoning_parser}
    if len(named - {"", "auto"}) > 1:
        raise ConfigError("--structured-outputs-config and --reasoning-parser name two parsers.")
    for name in settings.override_generation_config or {}:
        if name not in _GENERATION:
            raise ConfigError(
                f"--override-generation-config has no {name[:40]!r}; it takes "
                f"{', '.join(_GENERATION)}."
            )
    longest = (settings.override_generation_config or {}).get("max_new_tokens", 1)
    if not isinstance(longest, int) or longest < 1:
        raise ConfigError("--override-generation-config: max_new_tokens must be at least 1.")
    try:
        sampling_defaults(settings.override_generation_config or {})
    except CheckpointError as error:
        wrong = str(error).partition(": ")[2]
        raise ConfigError(f"--override-generation-config: {wrong}") from None


def _check_keys(flag: str, keys: Sequence[str]) -> None:
    for key in keys:
        if not key.strip():
            raise ConfigError(f"{flag} must not be empty; leave it out to serve without a key.")
        if not _KEY.fullmatch(key):
            raise ConfigError(f"{flag}: after {DIGEST} there must be 64 hexadecimal digits.")


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
