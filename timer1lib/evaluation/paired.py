"""Two sets of answers to the same samples: differences with intervals and p-values."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from timer1lib.evaluation.intervals import RESAMPLES, paired_difference
from timer1lib.evaluation.metrics import Comparison, columns
from timer1lib.evaluation.scored import Scored

PAIRED = ("mIoU", "R1@0.3", "R1@0.5", "R1@0.7", "mean_relative_length", "boundary_error_s")


def paired(
    first: Scored,
    second: Scored,
    comparison: Comparison = ">=",
    *,
    metrics: Sequence[str] = PAIRED,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> dict[str, dict[str, Any]]:
    """{metric: {difference, interval, p, n}}: second minus first, over the rows that both have a value for.

    Percent points for mIoU and R1@m, shares of the video for lengths, seconds for the boundary error. The rows of the
    two must be the same samples in the same order.
    """
    assert first.ids == second.ids, "paired comparison needs the same samples"
    one, two = columns(first, comparison), columns(second, comparison)
    result = {}
    for metric in metrics:
        row = paired_difference(one[metric], two[metric], first.video, resamples, seed)
        result[metric] = as_json(row)
    return result


def as_json(row: dict[str, float]) -> dict[str, Any]:
    """`intervals.paired_difference`'s row with None for what is not known."""
    known = math.isfinite(row["difference"])
    interval = [row["low"], row["high"]] if known else None
    p = row["p"] if known else None
    return {"difference": row["difference"] if known else None, "interval": interval, "p": p, "n": int(row["n"])}
