"""Where log records go: stderr, as text or as lines of JSON."""

import logging
from typing import Literal

import msgspec

LogFormat = Literal["text", "json"]
_TEXT = "%(levelname)s %(message)s"


def set_up_logs(form: LogFormat, *, requests: bool) -> None:
    """Ingot's own records from warnings up, and each request if `requests`."""
    handler = logging.StreamHandler()
    handler.setFormatter(JsonFormatter() if form == "json" else logging.Formatter(_TEXT))
    root = logging.getLogger("ingot")
    root.handlers = [handler]
    root.propagate = False
    logging.getLogger("ingot.requests").setLevel(logging.INFO if requests else logging.WARNING)


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
