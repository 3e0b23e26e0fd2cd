"""How long a request took, in its response: `--enable-per-request-metrics`, in vLLM's words."""

from msgspec import Struct

from serve.generation.streams import RequestStream
from serve.operations.metrics import Timeline
from serve.settings import ServerSettings


class TimingMetrics(Struct):
    """Milliseconds; what cannot be said of so few tokens is null.

    The first token's time runs from the row that the request got, not from its arrival.
    """

    time_to_first_token_ms: float | None
    generation_time_ms: float | None
    queue_time_ms: float | None
    mean_itl_ms: float | None
    tokens_per_second: float | None


def timeline_to_tell(settings: ServerSettings, stream: RequestStream) -> Timeline | None:
    """That of a response's only choice, if responses are to tell it."""
    if not settings.enable_per_request_metrics or len(stream.timelines) != 1:
        return None
    return stream.timelines[0]


def timing_of(timeline: Timeline) -> TimingMetrics:
    """Of a choice that has ended."""
    first, last, count = timeline.first_token, timeline.last_token, timeline.tokens
    queued = timeline.queue_seconds
    if first is None:
        return TimingMetrics(None, None, _milliseconds(queued), None, None)
    generating = last - first
    return TimingMetrics(
        _milliseconds(max(0.0, first - timeline.arrival - (queued or 0.0))),
        _milliseconds(generating),
        _milliseconds(queued),
        _milliseconds(generating / (count - 1)) if count > 1 else None,
        round(count / generating, 3) if generating > 0 else None,
    )


def _milliseconds(seconds: float | None) -> float | None:
    return None if seconds is None else round(seconds * 1000, 3)
