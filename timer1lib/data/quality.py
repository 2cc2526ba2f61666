"""What a data set covers, and what a model that never looks at the video would score on it: the floor of any result.

Three answers that need no video: all of it; the one relative window that is best on the training split (its prior);
and the window of highest expected IoU given the query's words and the video's length. Otani et al. (BMVC 2020) showed
that such answers come close to published models on popular benchmarks.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from timer1lib.schema import Sample
from timer1lib.spans import iou_many

BINS = 10
_WORD = re.compile(r"[^\W_]+")


def quality_report(
    samples: Sequence[Sample], train: Sequence[Sample] | None = None, *, limit: float = 25.0, seed: int = 0
) -> dict[str, Any]:
    """Coverage and bias of one split.

    Args:
        train: the training split, from which blind answers are fitted and against which words are called new.
        limit: percent R1@0.5 that a blind answer must not surely pass.

    Returns:
        n, videos, questions; `seconds` and `share` (numbers for histograms); `cells` (BINS x BINS counts of window centre
        by window length), `cells_filled` (share), `evenness` (entropy of the cells over its maximum, 0 to 1); `types`,
        `sources` (counts); `words`; `bias` (see `blind_report`); `warnings` (sentences, shown in red).
    """
    grounded = usable(samples)
    report: dict[str, Any] = {
        "n": len(samples),
        "videos": len({s.video for s in samples}),
        "questions": sum(s.is_question for s in samples),
        "without_duration": sum(s.duration is None for s in samples),
        "types": dict(Counter(s.type or "(none)" for s in samples).most_common()),
        "sources": dict(Counter(s.source or "(none)" for s in samples).most_common()),
        "seconds": {
            "video": [_round(s.duration) for s in grounded],
            "window": [_round(w[1] - w[0]) for s in grounded for w in s.windows],
        },
        "words": words(samples, train),
        **_cells(grounded),
        "bias": blind_report(samples, train, limit=limit, seed=seed),
    }
    return {**report, "warnings": _warnings(report)}


def _round(value: float | None) -> float | None:
    return None if value is None or not math.isfinite(value) else round(value, 3)


def _cells(samples: Sequence[Sample]) -> dict[str, Any]:
    """How window centres and lengths, as shares of the video, fill a square."""
    cells = [[0] * BINS for _ in range(BINS)]
    centres, lengths = [], []
    for sample in samples:
        for start, end in sample.windows:
            duration = sample.duration or 1.0
            first, last = max(0.0, start) / duration, min(end, duration) / duration
            centre, length = (first + last) / 2, last - first
            if math.isfinite(centre) and length >= 0:
                centres.append(round(centre, 4))
                lengths.append(round(length, 4))
                row, column = (min(BINS - 1, max(0, int(value * BINS + 1e-9))) for value in (length, centre))
                cells[row][column] += 1
    flat = [n for row in cells for n in row if n]
    total = sum(flat)
    entropy = -sum(n / total * math.log(n / total) for n in flat) if total else 0.0
    # A window of length l has its centre in [l/2, 1 - l/2]: cells outside that triangle cannot be filled.
    possible = sum(1 for i in range(BINS) for j in range(BINS) if i < 2 * (j + 1) and 2 * j <= 2 * BINS - i)
    return {
        "share": {"centre": centres, "length": lengths},
        "cells": cells,
        "cells_filled": min(1.0, len(flat) / possible),
        "evenness": min(1.0, entropy / math.log(possible)),
    }


def words(samples: Sequence[Sample], train: Sequence[Sample] | None = None, top: int = 30) -> dict[str, Any]:
    """Vocabulary of the queries: size, length of a query in words, the most frequent, and what training never showed."""
    said = [_WORD.findall(sample.query.lower()) for sample in samples]
    counts = Counter(word for query in said for word in query)
    report: dict[str, Any] = {
        "vocabulary": len(counts),
        "words": sum(counts.values()),
        "words_a_query": [len(query) for query in said],
        "once": sum(n == 1 for n in counts.values()),
        "top": dict(counts.most_common(top)),
    }
    if train is not None:
        known = {word for sample in train for word in _WORD.findall(sample.query.lower())}
        report["new_words"] = sum(word not in known for word in counts)
        report["queries_with_new_words"] = sum(any(word not in known for word in query) for query in said)
        asked = {" ".join(_WORD.findall(sample.query.lower())) for sample in train}
        report["queries_seen_in_training"] = sum(" ".join(query) in asked for query in said)
    return report


def _warnings(report: dict[str, Any]) -> list[str]:
    warnings = []
    bias = report["bias"]
    if bias["strong"]:
        name, best = max(bias["answers"].items(), key=lambda item: item[1]["R1@0.5"])
        low, high = best["interval"]["R1@0.5"]
        warnings.append(
            f"A model that never sees the video ({name}) reaches R1@0.5 = {best['R1@0.5']:.1f} % "
            f"[{low:.1f}, {high:.1f}] and mIoU {best['mIoU']:.1f}: results on this split say little about looking."
        )
    if report["n"] and report["cells_filled"] < 0.3:
        warnings.append(f"Windows fill only {100 * report['cells_filled']:.0f} % of the possible places and lengths.")
    if 0 < report["videos"] < 30:
        warnings.append(f"Only {report['videos']} videos: intervals over videos will be wide.")
    return warnings


Floats = NDArray[np.float64]

STEPS = 20
"""Candidate windows have their ends on a grid of 1 / STEPS of the video."""

THRESHOLDS = (0.3, 0.5, 0.7)
RIDGES = (3.0, 30.0, 300.0, 3000.0)
FEATURES = 500
TUNED = 3000
FOLDS = 5
NAMES = ("whole video", "window prior", "query words + prior")


def candidates() -> Floats:
    """(C, 2) relative windows: every pair of grid points with start before end."""
    grid = np.linspace(0, 1, STEPS + 1)
    first, last = np.triu_indices(STEPS + 1, 1)
    return np.stack([grid[first], grid[last]], axis=1)


def relative_windows(samples: Sequence[Sample]) -> Floats:
    """(N, 2) first windows as shares of the video, cut to it; a broken one stays broken, so that nothing meets it."""
    return np.array([[w / (s.duration or np.nan) for w in s.window] for s in samples], dtype=np.float64).reshape(-1, 2)


def usable(samples: Sequence[Sample]) -> list[Sample]:
    """Samples on which a blind answer can be scored: a window and a duration."""
    return [s for s in samples if s.windows and s.duration is not None and 0 < s.duration < math.inf]


@dataclass(slots=True)
class BlindModel:
    """Ridge regression from a query's words (and the video's length) to the IoU of every candidate window.

    The answer is the candidate of the highest predicted IoU, so an infinite ridge is the window prior itself.
    """

    words: dict[str, int]
    centre: Floats
    mean: Floats
    slopes: Floats

    @property
    def prior(self) -> tuple[float, float]:
        """The relative window with the highest mean IoU over the training windows."""
        best = candidates()[int(np.argmax(self.mean))]
        return float(best[0]), float(best[1])

    def picks(self, x: Floats) -> NDArray[np.int64]:
        """(N,) the candidates of highest predicted IoU for `features` x."""
        return np.asarray(np.argmax((x - self.centre) @ self.slopes + self.mean, axis=1), dtype=np.int64)


def features(samples: Sequence[Sample], words: dict[str, int]) -> Floats:
    """(N, W + 2): which words stand in the query, then the logarithm of the duration (s) and its square."""
    table = np.zeros((len(samples), len(words) + 2))
    for i, sample in enumerate(samples):
        for word in tokens(sample.query):
            if word in words:
                table[i, words[word]] = 1.0
        length = np.log(max(sample.duration or 1.0, 1e-3)) - 3.5
        table[i, -2:] = length, length**2
    return table


def tokens(query: str) -> set[str]:
    """Words of a query, and its first word marked as such (how phrasing begins tells what is asked)."""
    found = _WORD.findall(query.lower())
    return {*found, *(f"^{word}" for word in found[:1])}


def _sums(x: Floats, t: Floats) -> list[Any]:
    """What a ridge regression needs of some rows: n and the sums of x, t, x'x, x't; those of disjoint rows subtract."""
    return [len(x), x.sum(axis=0), t.sum(axis=0), x.T @ x, x.T @ t]


def _solve(sums: Sequence[Any], words: dict[str, int], ridge: float, less: Sequence[Any] = (0,) * 5) -> BlindModel:
    """Centred ridge regression on the rows of `sums` without those of `less`."""
    n, x, t, xx, xt = (whole - part for whole, part in zip(sums, less, strict=True))
    centre, mean = x / n, t / n
    gram, right = xx - n * np.outer(centre, centre), xt - n * np.outer(centre, mean)
    slopes = np.asarray(np.linalg.solve(gram + ridge * np.eye(len(gram)), right), dtype=np.float64)
    return BlindModel(words, centre, mean, slopes)


def _common_words(samples: Sequence[Sample]) -> dict[str, int]:
    counts = Counter(word for sample in samples for word in tokens(sample.query))
    common = sorted((word for word, n in counts.items() if n >= 3), key=lambda word: (-counts[word], word))[:FEATURES]
    return {word: i for i, word in enumerate(common)}


def _targets(samples: Sequence[Sample]) -> Floats:
    """(N, C) IoU of every candidate with every sample's window."""
    return np.asarray(iou_many(candidates()[None, :, :], relative_windows(samples)[:, None, :]), dtype=np.float64)


def _folds(samples: Sequence[Sample], count: int) -> NDArray[np.int64]:
    """(N,) fold numbers, the same for all samples of one video."""
    which, videos = _numbered([sample.video for sample in samples])
    return (np.random.default_rng(0).permutation(videos) % count)[which]


def _numbered(videos: Sequence[str]) -> tuple[NDArray[np.int64], int]:
    """(N,) each video's number in the order of appearance, and how many there are."""
    number: dict[str, int] = {}
    return np.array([number.setdefault(video, len(number)) for video in videos], dtype=np.int64), len(number)


def _best_ridge(samples: Sequence[Sample], x: Floats, t: Floats, words: dict[str, int]) -> float:
    """The ridge whose answers reach the most IoU on videos that it was not fitted on: 3 folds of at most `TUNED` samples."""
    x, t, fold = x[:TUNED], t[:TUNED], _folds(samples, 3)[:TUNED]
    total = _sums(x, t)
    reached = np.zeros(len(RIDGES))
    for k in np.unique(fold):
        here = fold == k
        if here.all():
            return RIDGES[-1]
        part = _sums(x[here], t[here])
        for i, ridge in enumerate(RIDGES):
            picks = _solve(total, words, ridge, part).picks(x[here])
            reached[i] += float(t[here][np.arange(len(picks)), picks].sum())
    return RIDGES[int(np.argmax(reached))]


def fit_blind(samples: Sequence[Sample]) -> BlindModel:
    """Fit on a training split."""
    words = _common_words(samples)
    x, t = features(samples, words), _targets(samples)
    return _solve(_sums(x, t), words, _best_ridge(samples, x, t, words))


def blind_answers(samples: Sequence[Sample], train: Sequence[Sample] | None = None) -> dict[str, Floats]:
    """Answers (N, 2) in seconds of each of `NAMES` to samples that are `usable`.

    Without a training split the blind model is fitted on the other videos of the same samples (5 folds).
    """
    seconds = np.array([sample.duration for sample in samples], dtype=np.float64)[:, None]
    answers = {name: np.zeros((len(samples), 2)) for name in NAMES}
    answers["whole video"][:, 1] = 1.0
    if train:
        model = fit_blind(usable(train))
        answers["window prior"][:] = model.prior
        answers["query words + prior"] = candidates()[model.picks(features(samples, model.words))]
    elif len({sample.video for sample in samples}) >= 2:
        words = _common_words(samples)
        x, t, fold = features(samples, words), _targets(samples), _folds(samples, FOLDS)
        total, ridge = _sums(x, t), _best_ridge(samples, x, t, words)
        for k in np.unique(fold):
            here = fold == k
            model = _solve(total, words, ridge, _sums(x[here], t[here]))
            answers["window prior"][here] = model.prior
            answers["query words + prior"][here] = candidates()[model.picks(x[here])]
    else:
        answers = {"whole video": answers["whole video"]}
    return {name: relative * seconds for name, relative in answers.items()}


def blind_report(
    samples: Sequence[Sample], train: Sequence[Sample] | None = None, *, limit: float = 25.0, resamples: int = 2000, seed: int = 0
) -> dict[str, Any]:
    """Scores of the blind answers in percent, each with its 95% interval from resampling videos.

    A benchmark on which the lower end of a blind R1@0.5 lies above `limit` percent is `strong`: results on it say little
    about looking. A sample with several windows counts the best.

    Returns:
        n, videos, fitted_on, answers {name: {mIoU, R1@0.3, R1@0.5, R1@0.7, interval {metric: [low, high]}}}, strong, limit.
    """
    scored = usable(samples)
    own = train is None or not usable(train)
    report: dict[str, Any] = {"n": len(scored), "videos": len({s.video for s in scored}), "limit": limit, "strong": False}
    report["answers"] = {}
    report["fitted_on"] = "the other videos of this split (5 folds)" if own else f"{len(usable(train or []))} training samples"
    for name, spans in (blind_answers(scored, None if own else train) if scored else {}).items():
        overlap = _best_overlap(spans, scored)
        table = np.stack([overlap, *(overlap >= t for t in THRESHOLDS)], axis=1) * 100.0
        low, high = video_interval(table, [s.video for s in scored], resamples, seed)
        metrics = ("mIoU", *(f"R1@{t}" for t in THRESHOLDS))
        means = dict(zip(metrics, map(float, table.mean(axis=0)), strict=True))
        ends = {metric: [float(low[i]), float(high[i])] for i, metric in enumerate(metrics)}
        report["answers"][name] = {**means, "interval": ends}
        if ends["R1@0.5"][0] > limit:
            report["strong"] = True
    return report


def _best_overlap(spans: Floats, samples: Sequence[Sample]) -> Floats:
    """(N,) IoU with the best of each sample's windows."""
    rows = np.repeat(np.arange(len(samples)), [len(s.windows) for s in samples])
    windows = np.array([window for s in samples for window in s.windows], dtype=np.float64)
    best = np.zeros(len(samples))
    np.maximum.at(best, rows, iou_many(spans[rows], windows))
    return best


def video_interval(values: Floats, videos: Sequence[str], resamples: int, seed: int) -> tuple[Floats, Floats]:
    """95% percentile intervals (M,), (M,) of the means of `values` (N, M), resampling videos with all their rows."""
    which, count = _numbered(videos)
    sums = np.stack([np.bincount(which, values[:, m], count) for m in range(values.shape[1])], axis=1)
    sizes = np.bincount(which, minlength=count).astype(np.float64)
    rng = np.random.default_rng([seed, 1])
    means = []
    for start in range(0, resamples, 200):
        draws = rng.multinomial(count, np.full(count, 1 / count), size=min(200, resamples - start))
        means.append((draws @ sums) / (draws @ sizes)[:, None])
    low, high = np.percentile(np.concatenate(means), [2.5, 97.5], axis=0)
    return low, high
