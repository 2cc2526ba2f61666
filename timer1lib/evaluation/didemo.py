"""DiDeMo: one answer against several annotators, as its official evaluation counts.

`utils/eval.py` of LisaAnne/LocalizingMoments (Hendricks et al., arXiv 1708.01641): videos are cut into segments of 5 s, an answer
is one of the runs of segments. Its IoU is the mean of the three best over the annotators, its rank the mean of the three best; so
rank@1 holds where at least three annotators (all, where they are fewer) chose exactly that run. An answer in seconds goes to the
nearest edges first. mIoU and R1@m beside these are against the run that most annotators chose.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

from timer1lib.schema import Sample, Window
from timer1lib.spans import iou

if TYPE_CHECKING:
    from timer1lib.evaluation.scored import Floats, Scored

SEGMENT_S = 5.0
SEGMENTS = 6
"""Of a video that does not say: DiDeMo's are cut at 30 s."""

COUNTED = 3
"""Annotators who count for an answer: those it agrees with best."""


def on_segments(span: Window, duration: float | None = None) -> Window:
    """A span in seconds on whole segments of the video: its edges at the nearest ones, one segment at least."""
    count = max(1, math.ceil(duration / SEGMENT_S - 1e-6)) if duration and math.isfinite(duration) else SEGMENTS
    start, end = (min(max(edge / SEGMENT_S, 0.0), float(count)) for edge in span)
    first = min(round(start), count - 1)
    return first * SEGMENT_S, max(round(end), first + 1) * SEGMENT_S


def annotators(sample: Sample) -> list[Window]:
    """Every annotator's window in seconds; empty where the data set has none."""
    return [(float(start), float(end)) for start, end in sample.extra.get("annotators", ())]


def _agreement(scored: Scored) -> list[list[float]]:
    """IoU with the three annotators who agree best, a row each; empty where there are none, zeros without an answer."""
    rows = []
    for sample, span, parsed in zip(scored.samples, scored.span, scored.parsed, strict=True):
        said = on_segments((float(span[0]), float(span[1])), sample.duration) if parsed and span[1] > span[0] else None
        rows.append(sorted((iou(said, window) for window in annotators(sample)), reverse=True)[:COUNTED])
    return rows


def consensus_iou(scored: Scored) -> Floats:
    """(N,) percent: mean IoU with the three best annotators; NaN where a sample has none."""
    return np.array([100 * math.fsum(row) / len(row) if row else math.nan for row in _agreement(scored)])


def rank_1(scored: Scored) -> Floats:
    """(N,) 100 where those annotators all chose the answer's segments, else 0; NaN where a sample has none."""
    return np.array([100.0 * (row[-1] > 1 - 1e-9) if row else math.nan for row in _agreement(scored)])
