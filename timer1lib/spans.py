"""Segments on a time line: the one IoU of the project, and its relatives."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from timer1lib.schema import Window

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


def iou(a: Window | None, b: Window | None) -> float:
    """Intersection over union of two segments (start, end) in seconds, in [0, 1].

    Reversed, empty or non-finite segments, and None, score 0: an answer that is no segment overlaps nothing.
    """
    if a is None or b is None:
        return 0.0
    if not all(map(math.isfinite, (*a, *b))) or a[1] <= a[0] or b[1] <= b[0]:
        return 0.0
    intersection = min(a[1], b[1]) - max(a[0], b[0])
    if intersection <= 0:
        return 0.0
    hull = max(a[1], b[1]) - min(a[0], b[0])
    return intersection / hull if math.isfinite(hull) else 0.0  # only beyond 1e308 seconds


def best_window(span: Window | None, windows: Sequence[Window]) -> Window | None:
    """The window that counts where a query has several: the one that the answer overlaps best by IoU.

    The first of several equal ones, so the first window where the answer overlaps none; None where there is no window.
    Selection, rewards, filters, metrics and views all take this one.
    """
    return max(windows, key=lambda window: iou(span, window), default=None)


def best_iou(span: Window | None, windows: Sequence[Window]) -> float:
    """IoU with the best window, in [0, 1]; 0 where there is no answer or no window."""
    return iou(span, best_window(span, windows))


def iou_many(a: NDArray[np.float64], b: NDArray[np.float64]) -> NDArray[np.float64]:
    """`iou` row by row for arrays of shape (..., 2) that broadcast; NaN marks a missing segment."""
    import numpy as np

    with np.errstate(invalid="ignore", divide="ignore", over="ignore"):
        intersection = np.minimum(a[..., 1], b[..., 1]) - np.maximum(a[..., 0], b[..., 0])
        hull = np.maximum(a[..., 1], b[..., 1]) - np.minimum(a[..., 0], b[..., 0])
        valid = (a[..., 1] > a[..., 0]) & (b[..., 1] > b[..., 0]) & np.isfinite(a).all(-1) & np.isfinite(b).all(-1)
        return np.where(valid & (intersection > 0) & np.isfinite(hull), intersection / hull, 0.0)


def merge(windows: Iterable[Window]) -> list[Window]:
    """Union of segments as sorted, disjoint segments; touching ones are joined. Reversed or NaN ones cover nothing."""
    merged: list[Window] = []
    for start, end in sorted((start, end) for start, end in windows if start <= end):
        if merged and start <= merged[-1][1]:
            merged[-1] = (merged[-1][0], max(merged[-1][1], end))
        else:
            merged.append((start, end))
    return merged


def intersect(a: Iterable[Window], b: Iterable[Window]) -> list[Window]:
    """Where both unions of segments hold, as sorted, disjoint segments."""
    second = merge(b)
    pairs = ((max(s, t), min(e, f)) for s, e in merge(a) for t, f in second)
    return [(start, end) for start, end in pairs if end > start]
