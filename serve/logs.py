"""Where log records go: stderr, as text or as lines of JSON."""

import logging
from collections import deque
from collections.abc import Sequence
from typing import Literal

import msgspec

LogFormat = Literal["text", "json"]
_RECENT = 200  # lines
_TEXT = "%(levelname)s %(message)s"


class RecentLines(logging.Handler):
    """The last lines, for the admin page."""

    def __init__(self) -> None:
        super().__init__()
        self.lines: deque[str] = deque(maxlen=_RECENT)

    def emit(self, record: logging.LogRecord) -> None:
        self.lines.append(self.format(record))


def set_up_logs(form: LogFormat, *, requests: bool) -> Sequence[str]:
    """Ingot's own records from warnings up, and each request if `requests`.

    Returns the last lines, which go on changing.
    """
    handler = logging.StreamHandler()
    handler.setFormatter(JsonFormatter() if form == "json" else logging.Formatter(_TEXT))
    root = logging.getLogger("ingot")
    recent = RecentLines()
    recent.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
    root.handlers = [handler, recent]
    root.propagate = False
    logging.getLogger("ingot.requests").setLevel(logging.INFO if requests else logging.WARNING)
    return recent.lines


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
