"""One failure signature: a number with its interval, whether it is alarming, and the samples to look at."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from timer1lib.evaluation.intervals import RESAMPLES, bootstrap_means, percentile
from timer1lib.evaluation.scored import Floats, Scored

SHOWN = 200
"""Samples listed at most, the worst first."""


@dataclass(slots=True)
class Signature:
    """`value` with its interval over videos, in `unit`; None where it could not be measured, and `note` says why.

    `flagged` needs the whole interval beyond "nothing" and an effect that matters: a healthy model shows every signature
    a little. `rule` says in words what flags it; `n` counts the answers that the value was measured on.
    """

    name: str
    value: float | None
    unit: str
    interval: list[float] | None
    flagged: bool
    n: int
    rule: str
    note: str
    samples: list[str]
    parts: dict[str, Any]

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


def unmeasured(name: str, unit: str, rule: str, why: str) -> Signature:
    return Signature(name, None, unit, None, False, 0, rule, why, [], {})


@dataclass(frozen=True, slots=True)
class Estimate:
    """A mean, or a function of means, with its percentile interval over videos."""

    value: float
    low: float
    high: float

    @property
    def interval(self) -> list[float] | None:
        return [self.low, self.high] if math.isfinite(self.low) and math.isfinite(self.high) else None

    @property
    def excludes_zero(self) -> bool:
        return self.low > 0 or self.high < 0

    def signature(
        self, name: str, unit: str, rule: str, flagged: Any, n: Any, samples: list[str], parts: dict[str, Any], note: str = ""
    ) -> Signature:
        """A signature with this value and interval."""
        return Signature(name, self.value, unit, self.interval, bool(flagged), int(n), rule, note, samples, parts)

    def to_json(self) -> dict[str, Any]:
        return {"value": self.value if math.isfinite(self.value) else None, "interval": self.interval}


def estimate(
    columns: Sequence[Floats],
    video: NDArray[np.int64],
    seed: int,
    combine: Callable[[Floats], Floats] = lambda means: means[..., 0],
) -> Estimate:
    """`combine` of the columns' means, with its interval: from means (..., M) to a number (...,), at first the first one.

    Each column is (N,); NaN leaves a row out of that column's mean.
    """
    values = np.stack(columns, axis=1)
    with np.errstate(invalid="ignore", divide="ignore"):
        known = np.isfinite(values)
        means = np.where(known, values, 0).sum(axis=0) / known.sum(axis=0)
        drawn = combine(bootstrap_means(values, video, RESAMPLES, seed))
        low, high = percentile(drawn[:, None])
        return Estimate(float(combine(means)), float(low[0]), float(high[0]))


def worst(scored: Scored, severity: Floats, rows: NDArray[np.bool_]) -> list[str]:
    """Ids of the chosen rows, the most severe first, `SHOWN` at most."""
    index = np.flatnonzero(rows)
    order = index[np.argsort(-np.nan_to_num(severity[index]), kind="stable")]
    return [scored.samples[i].id for i in order[:SHOWN]]
