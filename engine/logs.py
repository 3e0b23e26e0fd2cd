"""How log records are written, as text or as lines of JSON; the same in both processes."""

import logging
from typing import Literal

import msgspec

LogFormat = Literal["text", "json"]
LogLevel = Literal["critical", "error", "warning", "info", "debug"]
_TEXT = "%(levelname)s %(message)s"
_OURS = ("engine", "models", "pallas_kernels")


class LogSettings(msgspec.Struct, frozen=True):
    """From which level on, and in which form."""

    level: LogLevel = "info"
    form: LogFormat = "text"

    def handler(self) -> logging.Handler:
        """What writes records to stderr."""
        handler = logging.StreamHandler()
        handler.setFormatter(JsonFormatter() if self.form == "json" else logging.Formatter(_TEXT))
        return handler


class JsonFormatter(logging.Formatter):
    """Each record as one line of JSON; what a record was given by name are members."""

    def format(self, record: logging.LogRecord) -> str:
        fields: dict[str, object] = {
            "time": self.formatTime(record, "%Y-%m-%dT%H:%M:%S%z"),
            "level": record.levelname.lower(),
            "logger": record.name,
        }
        if isinstance(record.args, dict):
            fields |= record.args
        else:
            fields["message"] = record.getMessage()
        if record.exc_info:
            fields["exception"] = self.formatException(record.exc_info)
        return msgspec.json.encode(fields).decode()


def log_engine(settings: LogSettings) -> None:
    """Show the records of the engine and what is below it; others are left as they are."""
    handler = settings.handler()
    for name in _OURS:
        logger = logging.getLogger(name)
        logger.handlers, logger.propagate = [handler], False
        logger.setLevel(settings.level.upper())
