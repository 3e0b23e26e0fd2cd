"""The front's log records: to stderr, and the last ones to the admin page."""

import logging
from collections import deque
from collections.abc import Mapping, Sequence

from engine.logs import LogSettings

ADMIN_STATE = "/admin/state"  # asked for every second while somebody looks
_RECENT = 200  # lines


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
    """Ingot's own records, and each request if `requests`.

    Returns the last lines, which go on changing.
    """
    root = logging.getLogger("ingot")
    recent = RecentLines()
    recent.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
    root.handlers = [settings.handler(), recent]
    root.propagate = False
    root.setLevel(settings.level.upper())
    logging.getLogger("ingot.requests").setLevel(logging.INFO if requests else logging.WARNING)
    return recent.lines
