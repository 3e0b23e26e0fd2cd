"""What `--fallback-url` takes: URLs, or JSON that says more about an API.

    --fallback-url http://10.0.0.2:8000/v1
    --fallback-url '{"url": "https://host/v1", "api_key_env": "KEY", "model": "m", "timeout": 20}'

Owns what is wrong with them. Keys are never among settings: an API names the variable of the
environment that has its key.
"""

import os
from collections.abc import Sequence

import msgspec

from engine.errors import ConfigError
from serve.http.server_address import ServerAddress

FLAG = "--fallback-url"
_LOOPBACK = ("127.0.0.1", "localhost", "::1")


class FallbackApi(msgspec.Struct, kw_only=True, frozen=True, forbid_unknown_fields=True):
    """An OpenAI-compatible API; raises ConfigError naming what is wrong with it."""

    url: str
    api_key_env: str | None = None  # the variable of the environment that has its key
    model: str | None = None  # asked for instead of the request's
    timeout: float | None = None  # seconds until an answer begins, instead of --try-timeout

    def __post_init__(self) -> None:
        ServerAddress.parse(self.url)
        if "@" in self.url or "?" in self.url:  # it is shown in /metrics
            raise ConfigError(f"{FLAG}: keys do not belong into URLs; use api_key_env.")
        if self.timeout is not None and not 0 < self.timeout < float("inf"):
            raise ConfigError(f"{FLAG}: the timeout of {self.url} must be more than 0 seconds.")
        if self.api_key_env is not None and not os.environ.get(self.api_key_env, "").strip():
            raise ConfigError(
                f"{FLAG}: the variable {self.api_key_env[:60]!r}, which has the key of {self.url}, "
                "is not set in the environment."
            )

    @property
    def key(self) -> str | None:
        """That of the environment, if the API has one."""
        return None if self.api_key_env is None else os.environ[self.api_key_env].strip()


def parse_fallbacks(texts: Sequence[str] | None) -> tuple[FallbackApi, ...]:
    """In the order in which they are asked; raises ConfigError."""
    apis = tuple(map(_parse, texts or ()))
    if len({api.url for api in apis}) < len(apis):
        raise ConfigError(f"{FLAG}: two of the APIs have the same URL.")
    return apis


def _parse(text: str) -> FallbackApi:
    if not text.lstrip().startswith("{"):
        return FallbackApi(url=text)
    try:
        return msgspec.json.decode(text, type=FallbackApi)
    except msgspec.DecodeError as error:
        raise ConfigError(
            f"{FLAG} takes a URL, or JSON with url, api_key_env, model and timeout: "
            f"{str(error).replace('`', '')[:200]}."
        ) from None


def check_spending(apis: Sequence[FallbackApi], keys: Sequence[str], host: str) -> None:
    """Raise ConfigError if anybody may use a key that is not theirs."""
    if any(api.key for api in apis) and not keys and host not in _LOOPBACK:
        raise ConfigError(
            f"A key for {FLAG} needs --api-key, or everybody who can reach this address could "
            "spend it."
        )


def check_timeout(seconds: float | None) -> None:
    """Raise ConfigError for what is no time."""
    if seconds is not None and not 0 < seconds < float("inf"):
        raise ConfigError("--try-timeout must be more than 0 seconds.")
