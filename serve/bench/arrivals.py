"""When requests are sent: gaps drawn from a gamma distribution, or all at once.

Burstiness 1 is a Poisson process; below 1 requests come in bursts, above 1 more evenly.
"""

import math
import random
from dataclasses import dataclass

from engine.errors import ConfigError

STRATEGIES = ("linear", "exponential")


@dataclass(frozen=True)
class Arrivals:
    """How fast requests come, in requests a second."""

    request_rate: float = math.inf
    burstiness: float = 1.0
    ramp_up_strategy: str | None = None  # the rate goes from `start` to `end`
    ramp_up_start_rps: float = 1.0
    ramp_up_end_rps: float = 1.0

    def __post_init__(self) -> None:
        if not self.request_rate > 0:
            raise ConfigError(f"--request-rate must be above 0, got {self.request_rate}.")
        if not self.burstiness > 0:
            raise ConfigError(f"--burstiness must be above 0, got {self.burstiness}.")
        if self.ramp_up_strategy not in (None, *STRATEGIES):
            names = " or ".join(STRATEGIES)
            raise ConfigError(f"--ramp-up-strategy is {names}, not {self.ramp_up_strategy!r}.")
        if min(self.ramp_up_start_rps, self.ramp_up_end_rps) <= 0:
            raise ConfigError("--ramp-up-start-rps and --ramp-up-end-rps must be above 0.")

    def described(self) -> dict[str, float | str]:
        """The result fields of it; JSON knows no infinity."""
        rate: float | str = "inf" if math.isinf(self.request_rate) else self.request_rate
        found = {"request_rate": rate, "burstiness": self.burstiness}
        if self.ramp_up_strategy is not None:
            found |= {
                "ramp_up_strategy": self.ramp_up_strategy,
                "ramp_up_start_rps": self.ramp_up_start_rps,
                "ramp_up_end_rps": self.ramp_up_end_rps,
            }
        return found

    def times(self, count: int, seed: int) -> list[float]:
        """Seconds from the start at which each of `count` requests is sent, in order.

        At a constant rate the last one is sent at count / rate, however the gaps were drawn.
        """
        if math.isinf(self.request_rate) and self.ramp_up_strategy is None:
            return [0.0] * count
        rng, now, times = random.Random(seed), 0.0, []
        for number in range(count):
            rate = self._rate(number / max(1, count - 1))
            now += rng.gammavariate(self.burstiness, 1 / (rate * self.burstiness))
            times.append(now)
        if self.ramp_up_strategy is None and times:
            stretch = count / self.request_rate / times[-1]
            times = [time * stretch for time in times]
        return times

    def _rate(self, done: float) -> float:
        """Requests a second when this share of them was sent."""
        first, last = self.ramp_up_start_rps, self.ramp_up_end_rps
        if self.ramp_up_strategy == "linear":
            return first + (last - first) * done
        if self.ramp_up_strategy == "exponential":
            return float(first * (last / first) ** done)
        return self.request_rate
