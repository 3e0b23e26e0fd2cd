"""The front's log records, uvicorn's among them: to stderr, and the last ones to the admin page."""

import logging
from collections import deque
from collections.abc import Mapping, Sequence

from engine.logs import LogSettings

ADMIN_STATE = "/admin/state"  # asked for every second while somebody looks
_RECENT = 200  # lines
_FAILURES = "ingot.failures"


class RecentLines(logging.Handler):
    """The last lines, for the admin page, without that page's own questions."""

    def __init__(self) -> None:
        super().__init__()
        self.lines: deque[str] = deque(maxlen=_RECENT)

    def emit(self, record: logging.LogRecord) -> None:
        if isinstance(record.args, Mapping) and record.args.get("path") == ADMIN_STATE:
            return
        self.lines.append(self.format(record))


def set_up_logs(settings: LogSettings, *, requests: bool) -> Sequence[str]:
    """Ingot's own records, uvicorn's, and each request if `requests`.

    Returns the last lines, which go on changing.
    """
    recent = RecentLines()
    recent.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
    for name in ("ingot", "uvicorn"):
        logger = logging.getLogger(name)
        logger.handlers, logger.propagate = [settings.handler(), recent], False
    logging.getLogger("ingot").setLevel(settings.level.upper())
    log_requests(requests)
    failures, in_json = logging.getLogger(_FAILURES), settings.form == "json"
    failures.setLevel(logging.ERROR)
    failures.handlers, failures.propagate = [] if in_json else [recent], in_json
    return recent.lines


def log_requests(wanted: bool) -> None:
    """Whether there is a line for each request from now on."""
    logging.getLogger("ingot.requests").setLevel(logging.INFO if wanted else logging.WARNING)


def log_failure(sentence: str) -> None:
    """Why an engine ended: no level hides it. Where logs are texts, stderr has it as `error:`, as
    every command says it."""
    logging.getLogger(_FAILURES).error("%s", sentence)
