"""QVHighlights moment retrieval: several windows a query, several ranked answers, as its official evaluation counts.

As published with the data set (Lei et al., arXiv 2107.09609, section 5):
- AP of one query at one IoU threshold: answers in order of falling score (the first 10 submitted); an answer is right where
  a true window with IoU >= threshold is left, the one it overlaps most; then the interpolated area under precision over
  recall, as in ActivityNet's and PASCAL VOC 2011's detection. mAP is the mean over queries, and over 0.5, 0.55, ..., 0.95.
- R1@m asks the first submitted answer, against the true window that it overlaps most.
- short, middle and long count queries with a window of that length, and of their windows only those.

The official script refuses a submission that leaves queries out; here they count as 0, and the table says how many they are.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from timer1lib.evaluation.metrics import THRESHOLDS, Comparison, reaches
from timer1lib.evaluation.scored import Floats
from timer1lib.schema import Prediction, Sample, Window
from timer1lib.spans import iou_many

IOU_THRESHOLDS = tuple(round(0.5 + 0.05 * i, 2) for i in range(10))
LENGTHS: dict[str, tuple[float, float]] = {"short": (0, 10), "middle": (10, 30), "long": (30, 150)}
"""Seconds, (more than, up to)."""
MAX_ANSWERS = 10

Ranked = tuple[float, float, float]


def average_precision(truth: Sequence[Window], answers: Sequence[Ranked], thresholds: Sequence[float] = IOU_THRESHOLDS) -> Floats:
    """AP of one query at each IoU threshold, (T,) in [0, 1]; 0 without a true window. Seconds; answers in any order."""
    result = np.zeros(len(thresholds))
    if not truth or not answers:
        return result
    ranked = sorted(answers, key=lambda answer: -answer[2])
    spans = np.array([answer[:2] for answer in ranked], dtype=np.float64)
    overlap = iou_many(spans[:, None], np.array(truth, dtype=np.float64)[None])
    for index, threshold in enumerate(thresholds):
        free = np.ones(len(truth), dtype=np.bool_)
        right = np.zeros(len(ranked))
        for row, values in enumerate(overlap):
            open_values = np.where(free, values, -1.0)
            best = int(open_values.argmax())
            if open_values[best] >= threshold:
                free[best] = False
                right[row] = 1
        hits = right.cumsum()
        result[index] = interpolated_area(hits / np.arange(1, len(ranked) + 1), hits / len(truth))
    return result


def interpolated_area(precision: Floats, recall: Floats) -> float:
    """Area under the curve in which each precision is raised to the largest one at that recall or beyond."""
    envelope = np.maximum.accumulate(np.append(precision, 0.0)[::-1])[::-1]
    steps = np.diff(np.concatenate([[0.0], recall, [1.0]]))
    return float((steps * envelope).sum())


def evaluate(samples: Sequence[Sample], rows: Sequence[Prediction | None], comparison: Comparison = ">=") -> dict[str, Any]:
    """mAP, mAP@0.5, mAP@0.75 in percent, `mAP_by_threshold`, and `by_length` {short, middle, long: the same, n and R1@m}.

    `rows[i]` answers `samples[i]`, which has a window, by `windows` (start, end, score) or its span alone; None: nothing does.
    """
    answers = [ranked_answers(row) for row in rows]
    result = _retrieval([sample.windows for sample in samples], answers)
    by_length: dict[str, Any] = {}
    for name, (over, up_to) in LENGTHS.items():
        kept = [[w for w in sample.windows if over < w[1] - w[0] <= up_to] for sample in samples]
        chosen = [i for i, windows in enumerate(kept) if windows]
        part = _retrieval([kept[i] for i in chosen], [answers[i] for i in chosen])
        first = [_first_iou(kept[i], answers[i]) for i in chosen]
        recall = {f"R1@{t}": _percent(reaches(np.array(first), t, comparison)) for t in THRESHOLDS}
        by_length[name] = {"n": len(chosen), **part, **recall}
    return {**result, "by_length": by_length}


def ranked_answers(row: Prediction | None) -> list[Ranked]:
    """The first `MAX_ANSWERS` answers as submitted; a prediction with a span alone has that one."""
    if row is None or row.error is not None:
        return []
    return list(row.windows[:MAX_ANSWERS]) if row.windows else [(*row.span, 1.0)] if row.span else []


def _retrieval(truth: Sequence[Sequence[Window]], answers: Sequence[Sequence[Ranked]]) -> Mapping[str, Any]:
    table = np.array([average_precision(t, a) for t, a in zip(truth, answers, strict=True)]).reshape(-1, len(IOU_THRESHOLDS))
    by = {f"{t:g}": _percent(table[:, i]) for i, t in enumerate(IOU_THRESHOLDS)}
    return {"mAP": _percent(table), "mAP@0.5": by["0.5"], "mAP@0.75": by["0.75"], "mAP_by_threshold": by}


def _first_iou(truth: Sequence[Window], answers: Sequence[Ranked]) -> float:
    return float(iou_many(np.array(answers[0][:2])[None], np.array(truth, dtype=np.float64)).max()) if answers else 0.0


def _percent(values: Floats | np.typing.NDArray[np.bool_]) -> float | None:
    return float(100.0 * values.mean()) if values.size else None
