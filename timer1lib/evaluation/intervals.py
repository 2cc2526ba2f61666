"""Intervals and p-values by resampling videos.

Queries on one video share its footage and its annotator, so rows are not independent: a resample draws videos with
their rows (the cluster bootstrap; Field & Welsh 2007, J. R. Statist. Soc. B 69). A mean over rows is a ratio of two sums
over videos, so that all resamples of all columns are two matrix products of the counts.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from timer1lib.evaluation.scored import Floats

RESAMPLES = 2000
LEVEL = 0.95
_CHUNK = 250


def by_video(values: Floats, video: NDArray[np.int64]) -> tuple[Floats, Floats]:
    """(V, M) sums and (V, M) counts per video of `values` (N, M) that are not NaN; `video` (N,) has numbers 0 .. V-1."""
    videos = int(video.max()) + 1 if len(video) else 0
    known = np.isfinite(values)
    sums = np.empty((videos, values.shape[1]))
    counts = np.empty_like(sums)
    for column in range(values.shape[1]):
        sums[:, column] = np.bincount(video, np.where(known[:, column], values[:, column], 0.0), videos)
        counts[:, column] = np.bincount(video, known[:, column].astype(np.float64), videos)
    return sums, counts


def draws(videos: int, resamples: int, seed: int) -> Iterator[NDArray[np.float64]]:
    """How often each resample draws each video: chunks of (B, V)."""
    rng = np.random.default_rng(seed)
    for start in range(0, resamples, _CHUNK):
        rows = min(_CHUNK, resamples - start)
        picks = rng.integers(0, videos, size=(rows, videos), dtype=np.int32)
        picks += np.arange(rows, dtype=np.int32)[:, None] * np.int32(videos)
        yield np.bincount(picks.ravel(), minlength=rows * videos).reshape(rows, videos).astype(np.float64)


def bootstrap_means(values: Floats, video: NDArray[np.int64], resamples: int = RESAMPLES, seed: int = 0) -> Floats:
    """Means of each column of `values` (N, M) in each resample: (resamples, M); NaN where a resample has no row."""
    sums, counts = by_video(values, video)
    if not len(sums):
        return np.full((resamples, values.shape[1]), np.nan)
    # Columns that leave no row out share one denominator, which is most of the work.
    columns: dict[bytes, int] = {}
    which = np.array([columns.setdefault(column.tobytes(), len(columns)) for column in counts.T])
    distinct = np.stack([np.frombuffer(column) for column in columns], axis=1)
    parts = []
    for weight in draws(len(sums), resamples, seed):
        with np.errstate(invalid="ignore", divide="ignore"):
            parts.append((weight @ sums) / (weight @ distinct)[:, which])
    return np.concatenate(parts)


def mean_interval(
    values: Floats, video: NDArray[np.int64], resamples: int = RESAMPLES, seed: int = 0
) -> tuple[float, float, float]:
    """Mean of (N,) values with its percentile interval over videos: (mean, low, high); NaN values are left out."""
    known = np.isfinite(values)
    if not known.any():
        return float("nan"), float("nan"), float("nan")
    low, high = percentile(bootstrap_means(values[:, None], video, resamples, seed))
    return float(values[known].mean()), float(low[0]), float(high[0])


def percentile(means: Floats) -> tuple[Floats, Floats]:
    """Lower and upper end (M,) of the central `LEVEL` of resampled means (B, M)."""
    tail = 50 * (1 - LEVEL)
    finite = np.isfinite(means).any(axis=0)
    low, high = np.full(means.shape[1], np.nan), np.full(means.shape[1], np.nan)
    if finite.any():
        low[finite], high[finite] = np.nanpercentile(means[:, finite], [tail, 100 - tail], axis=0)
    return low, high


def paired_difference(
    first: Floats, second: Floats, video: NDArray[np.int64], resamples: int = RESAMPLES, seed: int = 0
) -> dict[str, float]:
    """Second minus first on the same rows: mean, interval, p-value.

    The interval is the percentile interval over videos. The p-value is two-sided, from flipping the sign of a whole
    video's differences: under the null hypothesis the two answers to a video could change places (Fisher's
    randomisation test on clusters); (1 + hits) / (1 + flips), so it is never 0.

    `first`, `second`: (N,) values of the same rows; a row where either is NaN is left out. Returns difference, low, high
    (in the values' unit), p, n.
    """
    delta = second - first
    known = np.isfinite(delta)
    n = int(known.sum())
    if not n:
        return {**dict.fromkeys(("difference", "low", "high", "p"), float("nan")), "n": 0}
    mean, low, high = mean_interval(delta, video, resamples, seed)
    sums, _ = by_video(delta[:, None], video)
    rng = np.random.default_rng(seed + 1)
    observed = abs(float(sums.sum()))
    hits = 0
    for start in range(0, resamples, _CHUNK):
        rows = min(_CHUNK, resamples - start)
        signs = rng.integers(0, 2, size=(rows, len(sums)), dtype=np.int8).astype(np.float64) * 2 - 1
        hits += int((np.abs(signs @ sums[:, 0]) >= observed * (1 - 1e-12)).sum())
    return {"difference": mean, "low": low, "high": high, "p": (1 + hits) / (1 + resamples), "n": n}
