"""How far two traces lie apart, and when that is too far.

Owns the measure: the largest difference of two numbers, and what share of the reference's
deviation that is. Knows neither JAX nor PyTorch.
"""

from dataclasses import dataclass

import numpy as np

from engine.check.trace import Trace


@dataclass(frozen=True)
class Difference:
    """One row: `largest` = max |ours - reference|, and the same divided by the deviation."""

    name: str
    largest: float
    relative: float

    def within(self, tolerance: float) -> bool:
        """False for what is no number, too."""
        return self.relative <= tolerance


def differences(ours: Trace, reference: Trace) -> list[Difference]:
    """Every layer in order, then the logits; layers that one of the two lacks are infinitely far.

    Numbers of one row have no deviation to speak of: they are compared with their root mean square.

    Columns of logits that only one side has (a padded vocabulary) are not compared.
    """
    rows = [
        _difference(name, state, reference.states.get(name)) for name, state in ours.states.items()
    ]
    columns = min(ours.logits.shape[1], reference.logits.shape[1])
    last = _difference(ours.what, ours.logits[:, :columns], reference.logits[:, :columns])
    return [*rows, last]


def first_parting(ours: list[int], reference: list[int]) -> int | None:
    """The place of the first token that differs; None if all are equal."""
    pairs = enumerate(zip(ours, reference, strict=False))
    shorter = min(len(ours), len(reference))
    end = None if len(ours) == len(reference) else shorter
    return next((place for place, (one, other) in pairs if one != other), end)


def _difference(name: str, ours: np.ndarray, reference: np.ndarray | None) -> Difference:
    if reference is None or ours.shape != reference.shape:
        return Difference(name, float("inf"), float("inf"))
    largest = float(np.abs(ours.astype(np.float64) - reference).max())
    spread = reference.std() if len(reference) > 1 else np.sqrt(np.mean(np.square(reference)))
    return Difference(name, largest, largest / max(float(spread), 1e-30))
