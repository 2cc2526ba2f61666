"""What a table of temporal grounding results holds: R1@m, mIoU, and what hides behind them.

Percent: R1@m, mIoU, parse_rate, coverage, form_rate. Shares of the video (0 to 1): mean_relative_length,
true_relative_length, boundary_error_relative. Seconds: boundary_error_s.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from timer1lib.errors import Timer1Error
from timer1lib.evaluation import columns as listed
from timer1lib.evaluation.columns import paired_keys
from timer1lib.evaluation.intervals import RESAMPLES, bootstrap_means, paired_difference, percentile
from timer1lib.evaluation.scored import Bools, Floats, Scored
from timer1lib.schema import Sample, Window

Comparison = Literal[">=", ">"]
THRESHOLDS = (0.3, 0.5, 0.7)

COMPARISONS: dict[str, Comparison] = {"reaches": ">=", "exceeds": ">"}
"""The names of the comparisons in params files, whose values must not hold an equals sign (papermill)."""

PERCENT = ("R1@0.3", "R1@0.5", "R1@0.7", "mIoU")
GROUPINGS = ("type", "video_length", "window_length", "window_position", "source")


def reaches(iou: Floats, threshold: float, comparison: Comparison = ">=") -> Bools:
    """Which rows count for R1@threshold. Most papers count IoU >= m, Time-R1's script IoU > m."""
    if comparison not in get_args(Comparison):
        raise Timer1Error(f"comparison {comparison!r}: one of {', '.join(get_args(Comparison))}")
    return iou > threshold if comparison == ">" else iou >= threshold


def columns(scored: Scored, comparison: Comparison = ">=") -> dict[str, Floats]:
    """Every metric as one number a row, (N,), NaN where the row has none; a metric is the mean of its column.

    Lengths and boundary errors are of proper answers only (a span with end after start). An answer is cut to the video
    before its length is taken, and a boundary is at most one video length off, so that one absurd number cannot
    carry a mean.
    """
    start, end = scored.span[:, 0], scored.span[:, 1]
    true_start, true_end = scored.window[:, 0], scored.window[:, 1]
    with np.errstate(invalid="ignore"):
        proper = scored.parsed & (end > start)
        limit = np.where(np.isnan(scored.duration), np.inf, scored.duration)
        cut = np.clip(np.minimum(end, limit) - np.clip(start, 0, limit), 0, None)
        error = (np.minimum(abs(start - true_start), limit) + np.minimum(abs(end - true_end), limit)) / 2
        true_length = np.where(true_end > true_start, np.minimum(true_end - true_start, limit), np.nan)
    result: dict[str, Floats] = {f"R1@{t}": 100.0 * reaches(scored.iou, t, comparison).astype(np.float64) for t in THRESHOLDS}
    result["mIoU"] = 100.0 * scored.iou
    result["parse_rate"] = np.where(scored.answered, 100.0 * scored.parsed, np.nan)
    result["coverage"] = 100.0 * scored.answered.astype(np.float64)
    result["form_rate"] = np.where(scored.answered, 100.0 * scored.form, np.nan)
    result["mean_relative_length"] = np.where(proper, cut / scored.duration, np.nan)
    result["true_relative_length"] = np.asarray(true_length / scored.duration, dtype=np.float64)
    result["boundary_error_s"] = np.where(proper, error, np.nan)
    result["boundary_error_relative"] = np.where(proper, error / scored.duration, np.nan)
    own = {column: column.of(scored) for column in listed.COLUMNS if column.of is not None}
    return result | {column.key: values for column, values in own.items() if column.paired or np.isfinite(values).any()}


def counts(scored: Scored, rows: Bools) -> dict[str, int]:
    """Of the chosen rows (N,): n asked; answered (a prediction came back); unparsable (of those, without a span); missing.

    Missing and unparsable rows count as wrong in every R1@m and in mIoU.
    """
    n, answered, parsed = int(rows.sum()), int((scored.answered & rows).sum()), int((scored.parsed & rows).sum())
    return {"n": n, "answered": answered, "unparsable": answered - parsed, "missing": n - answered}


def mean(values: Floats) -> float | None:
    """Mean of what is known; None where nothing is."""
    known = values[np.isfinite(values)]
    return float(known.mean()) if len(known) else None


def summary(
    scored: Scored, comparison: Comparison = ">=", *, resamples: int = RESAMPLES, seed: int = 0, groups: Sequence[str] = GROUPINGS
) -> dict[str, Any]:
    """All metrics of one set of predictions, JSON-ready, with intervals over videos and by group.

    Returns:
        counts, every column's mean (None where no row has one), `comparison`, `interval` {metric: [low, high]} and
        `by_<grouping>` {group: {n, answered, unparsable, missing, R1@m, mIoU, interval}}. No intervals where
        `resamples` is 0.
    """
    table = columns(scored, comparison)
    names = list(table)
    values = np.stack([table[name] for name in names], axis=1) if len(scored) else np.zeros((0, len(names)))
    grouped = {name: members(scored.samples, name) for name in groups}
    keys = [(grouping, group) for grouping, parts in grouped.items() for group in parts]
    result: dict[str, Any] = {**counts(scored, np.ones(len(scored), dtype=np.bool_)), "comparison": comparison}
    result.update({name: mean(table[name]) for name in names})
    wide = [values] + [np.where(grouped[g][k][:, None], values[:, : len(PERCENT)], np.nan) for g, k in keys]
    low = high = np.full(sum(part.shape[1] for part in wide), np.nan)
    if resamples and len(scored):
        low, high = percentile(bootstrap_means(np.concatenate(wide, axis=1), scored.video, resamples, seed))
        result["interval"] = _intervals(names, low, high, 0)
    result |= {f"by_{grouping}": {} for grouping in groups}
    for index, (grouping, group) in enumerate(keys):
        rows = grouped[grouping][group]
        entry: dict[str, Any] = counts(scored, rows) | {name: mean(table[name][rows]) for name in PERCENT}
        if resamples:
            entry["interval"] = _intervals(list(PERCENT), low, high, len(names) + index * len(PERCENT))
        result[f"by_{grouping}"][group] = entry
    return result


def _intervals(names: Sequence[str], low: Floats, high: Floats, offset: int) -> dict[str, list[float]]:
    ends = {name: [float(low[offset + i]), float(high[offset + i])] for i, name in enumerate(names)}
    return {name: pair for name, pair in ends.items() if np.isfinite(pair).all()}


def members(samples: Sequence[Sample], grouping: str) -> dict[str, NDArray[np.bool_]]:
    """Rows of each group, as masks (N,), in reading order; rows that the grouping says nothing about are in none.

    A grouping that is not known is a Timer1Error.
    """
    if grouping not in _LABELS:
        raise Timer1Error(f"grouping {grouping!r}: one of {', '.join(_LABELS)}")
    labels = np.array([_LABELS[grouping](sample) or "" for sample in samples], dtype=object)
    present = set(labels) - {""}
    order = [label for _, label in _BINS.get(grouping, ())] or sorted(present)
    return {name: labels == name for name in order if name in present}


_SECONDS = ((15, "< 15 s"), (30, "15-30 s"), (60, "30-60 s"), (120, "60-120 s"), (300, "120-300 s"), (np.inf, ">= 300 s"))
_SHARES = ((0.1, "< 10%"), (0.25, "10-25%"), (0.5, "25-50%"), (np.inf, ">= 50%"))
_PLACES = ((1 / 3, "first third"), (2 / 3, "middle third"), (np.inf, "last third"))


def _bin(value: float, bins: tuple[tuple[float, str], ...]) -> str:
    if not math.isfinite(value):
        return ""
    return next(label for limit, label in bins if value < limit or limit == np.inf)


def _share(sample: Sample, seconds: Callable[[Window], float]) -> float:
    """A time of the sample's window as a share of its video; NaN where either is not known."""
    known = sample.windows and sample.duration and sample.duration > 0
    return seconds(sample.window) / sample.duration if known and sample.duration else math.nan


_LABELS: dict[str, Callable[[Sample], str]] = {
    "type": lambda sample: sample.type,
    "video_length": lambda sample: _bin(sample.duration or math.nan, _SECONDS),
    "window_length": lambda sample: _bin(_share(sample, lambda window: window[1] - window[0]), _SHARES),
    "window_position": lambda sample: _bin(_share(sample, lambda window: sum(window) / 2), _PLACES),
    "source": lambda sample: sample.source,
}
_BINS = {"video_length": _SECONDS, "window_length": _SHARES, "window_position": _PLACES}


def paired(
    first: Scored, second: Scored, comparison: Comparison = ">=", *, resamples: int = RESAMPLES, seed: int = 0
) -> dict[str, dict[str, Any]]:
    """{metric: {difference, interval, p, n}}: second minus first, over the rows that both have a value for.

    Percent points for mIoU and R1@m, shares of the video for lengths, seconds for the boundary error. The rows of the
    two must be the same samples in the same order.
    """
    assert first.ids == second.ids, "paired comparison needs the same samples"
    one, two = columns(first, comparison), columns(second, comparison)
    return {name: as_json(paired_difference(one[name], two[name], first.video, resamples, seed)) for name in paired_keys()}


def as_json(row: dict[str, float]) -> dict[str, Any]:
    """`intervals.paired_difference`'s row with None for what is not known."""
    if not math.isfinite(row["difference"]):
        return {"difference": None, "interval": None, "p": None, "n": int(row["n"])}
    return {"difference": row["difference"], "interval": [row["low"], row["high"]], "p": row["p"], "n": int(row["n"])}
