"""Which program this is, and how it was started."""

from functools import cache
from hashlib import sha256
from importlib.metadata import PackageNotFoundError, version

import msgspec

from engine.config import EngineConfig


@cache
def ingot_version() -> str:
    """Of the installed distribution; "unknown" when run from files that are not installed."""
    try:
        return version("ingot")
    except PackageNotFoundError:
        return "unknown"


def fingerprint(config: EngineConfig) -> str:
    """OpenAI's `system_fingerprint`: another one where the version or the settings are others, so
    that a seed need not give the same text. Of a secret it says only whether there is one."""
    mark = config.watermark_config
    told = msgspec.structs.replace(config, watermark_config=mark and mark.without_key)
    known = msgspec.json.encode([ingot_version(), told], enc_hook=str)
    return f"fp_{sha256(known).hexdigest()[:10]}"
