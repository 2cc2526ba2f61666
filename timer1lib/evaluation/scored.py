"""Samples and predictions side by side, as arrays: what every metric, interval and signature is computed from."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from timer1lib.forms import FORMS, AnswerForm
from timer1lib.schema import Prediction, Sample
from timer1lib.spans import best_window, iou_many

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class Scored:
    """One row a sample, in the samples' order. Times in seconds; NaN where there is no value.

    A sample without a prediction (or whose prediction failed) is `answered` False; one whose text holds no span is
    `answered` but not `parsed`. Both have IoU 0 and stay in every mean.
    """

    samples: tuple[Sample, ...]
    predictions: tuple[Prediction | None, ...]
    span: Floats
    """(N, 2) predicted start and end."""
    window: Floats
    """(N, 2) the ground truth window that the prediction overlaps most (the first where it overlaps none)."""
    duration: Floats
    """(N,) of the video or clip."""
    iou: Floats
    """(N,) in [0, 1]; the best over the sample's windows."""
    answered: Bools
    parsed: Bools
    form: Bools
    """Whether the whole completion has the form that was asked for; False where there is no completion."""
    video: NDArray[np.int64]
    """(N,) number of the row's video, 0 .. V-1: intervals are drawn over videos."""

    def __len__(self) -> int:
        return len(self.samples)

    @property
    def videos(self) -> int:
        return int(self.video.max()) + 1 if len(self.video) else 0

    @property
    def ids(self) -> list[str]:
        return [sample.id for sample in self.samples]


def numbered(names: Iterable[str]) -> NDArray[np.int64]:
    """(N,) the number of each row's name, 0 .. V-1 in the order of appearance."""
    numbers: dict[str, int] = {}
    return np.array([numbers.setdefault(name, len(numbers)) for name in names], dtype=np.int64)


def pair(samples: Sequence[Sample], predictions: Iterable[Prediction]) -> list[Prediction | None]:
    """Each sample's prediction by id; the first of two with one id counts."""
    table: dict[str, Prediction] = {}
    for prediction in predictions:
        table.setdefault(prediction.id, prediction)
    return [table.get(sample.id) for sample in samples]


def join(samples: Sequence[Sample], predictions: Iterable[Prediction], form: AnswerForm = FORMS["timer1"]) -> Scored:
    """Put each sample's prediction beside it, by id (`pair`); `form` is what the completions are held against.

    Samples without a window score 0 for every answer.
    """
    return score_pairs(samples, pair(samples, predictions), form)


def score_pairs(samples: Sequence[Sample], rows: Sequence[Prediction | None], form: AnswerForm = FORMS["timer1"]) -> Scored:
    """`join` where the pairs are already made: `rows[i]` answers `samples[i]`, None where nothing does."""
    missing = (np.nan, np.nan)
    span = np.array([row.span or missing if row is not None else missing for row in rows], dtype=np.float64).reshape(-1, 2)
    span[~np.isfinite(span).all(axis=1)] = np.nan
    best = [best_window((float(s), float(e)), sample.windows) for (s, e), sample in zip(span, samples, strict=True)]
    window = np.array([pair or missing for pair in best], dtype=np.float64).reshape(-1, 2)
    iou = iou_many(span, window)
    answered = np.array([row is not None and row.error is None for row in rows], dtype=np.bool_)
    parsed = np.isfinite(span).all(axis=1) & answered
    texts = [row.completion if row is not None else "" for row in rows]
    forms = (form.of_sample(sample, grounded=False) for sample in samples)
    fits = np.array([text != "" and own.fits(text) for text, own in zip(texts, forms, strict=True)], dtype=np.bool_)
    video = numbered(sample.video for sample in samples)
    duration = np.array([np.nan if s.duration is None else s.duration for s in samples], dtype=np.float64)
    duration[~(duration > 0)] = np.nan
    iou = np.where(answered, iou, 0.0)
    return Scored(tuple(samples), tuple(rows), span, window, duration, iou, answered, parsed, fits, video)
