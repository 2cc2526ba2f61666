"""Multiple choice: accuracy beside chance, and window and answer scored together."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from timer1lib.evaluation.intervals import RESAMPLES, bootstrap_means, paired_difference, percentile
from timer1lib.evaluation.metrics import THRESHOLDS, Comparison, mean, members, reaches
from timer1lib.evaluation.scored import Bools, Floats, numbered, score_pairs
from timer1lib.forms.reading import letter, parse_letter
from timer1lib.schema import Prediction, Sample


def chosen(row: Prediction | None, sample: Sample) -> int | None:
    """The option that a prediction chose: its `answer`, or the letter in its text."""
    if row is None or row.error is not None:
        return None
    if row.answer is not None:
        return row.answer if 0 <= row.answer < len(sample.options or ()) else None
    return parse_letter(row.completion, sample.options or ()) if row.completion else None


def correct(samples: Sequence[Sample], rows: Sequence[Prediction | None]) -> Floats:
    """(N,) 1 where the right option was chosen, 0 where another or none, NaN where no right answer is known."""
    pairs = zip(samples, rows, strict=True)
    right = [np.nan if sample.answer is None else float(chosen(row, sample) == sample.answer) for sample, row in pairs]
    return np.array(right, dtype=np.float64)


def accuracy(
    samples: Sequence[Sample], rows: Sequence[Prediction | None], *, resamples: int = RESAMPLES, seed: int = 0
) -> dict[str, Any]:
    """Accuracy in percent of multiple-choice samples, JSON-ready, with intervals over videos.

    Returns:
        n (with a known answer), unknown (without), answered, unparsable, missing, accuracy, chance (the mean of
        1 / options), always (the best accuracy of one letter for every question), interval, `by_type`. Missing and
        unparsable count as wrong.
    """
    known = [i for i, sample in enumerate(samples) if sample.answer is not None]
    asked, given = [samples[i] for i in known], [rows[i] for i in known]
    picked = [chosen(row, sample) for row, sample in zip(given, asked, strict=True)]
    answered = sum(row is not None and row.error is None for row in given)
    values = 100.0 * correct(asked, given)
    truth = [sample.answer for sample in asked]
    letters = {letter: 100.0 * sum(answer == letter for answer in truth) / len(truth) for letter in set(truth)}
    groups = members(asked, "type")
    wide = np.stack([values] + [np.where(mask, values, np.nan) for mask in groups.values()], axis=1)
    low = high = np.full(wide.shape[1], np.nan)
    if resamples and asked:
        low, high = percentile(bootstrap_means(wide, numbered(s.video for s in asked), resamples, seed))
    ends = [{"accuracy": [float(a), float(b)]} if np.isfinite(a) else {} for a, b in zip(low, high, strict=True)]
    chance = np.array([100.0 / len(sample.options or [""]) for sample in asked])
    return {
        "n": len(asked),
        "unknown": len(samples) - len(asked),
        "answered": answered,
        "unparsable": answered - sum(index is not None for index in picked),
        "missing": len(asked) - answered,
        "accuracy": mean(values),
        "chance": mean(chance),
        "always": max(letters.values(), default=None),
        "interval": ends[0],
        "by_type": {
            name: {"n": int(mask.sum()), "accuracy": mean(values[mask]), "chance": mean(chance[mask]), "interval": interval}
            for (name, mask), interval in zip(groups.items(), ends[1:], strict=True)
        },
    }


def grounded(
    samples: Sequence[Sample],
    rows: Sequence[Prediction | None],
    *,
    comparison: Comparison = ">=",
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> dict[str, Any]:
    """Answer and window together, in percent, of samples with options and windows.

    IoU as everywhere; IoP is the intersection over the answered span's length (NExT-GQA, arXiv 2309.01327), each the best
    over the sample's windows. `Acc@IoU>=0.5` (ReXTime, arXiv 2406.19392) and `Acc@IoP>=0.5` (NExT-GQA's Acc@GQA) count
    a sample whose option is right and whose span reaches 0.5.

    Returns:
        `accuracy`'s keys, mIoU, R1@m, mIoP, IoP@0.3, IoP@0.5, Acc@IoU>=0.5, Acc@IoP>=0.5, each with its interval.
    """
    usable = [i for i, s in enumerate(samples) if s.windows and s.answer is not None]
    asked, given = [samples[i] for i in usable], [rows[i] for i in usable]
    result = accuracy(asked, given, resamples=resamples, seed=seed)
    scored = score_pairs(asked, given)
    precision = np.where(scored.answered, iop(scored.span, asked), 0.0)
    right = correct(asked, given) == 1
    table: dict[str, Floats] = {f"R1@{t}": _percent(reaches(scored.iou, t, comparison)) for t in THRESHOLDS}
    table |= {"mIoU": 100.0 * scored.iou, "mIoP": 100.0 * precision}
    table |= {f"IoP@{t}": _percent(reaches(precision, t, comparison)) for t in (0.3, 0.5)}
    table[f"Acc@IoU{comparison}0.5"] = _percent(right & reaches(scored.iou, 0.5, comparison))
    table[f"Acc@IoP{comparison}0.5"] = _percent(right & reaches(precision, 0.5, comparison))
    result |= {name: mean(values) for name, values in table.items()} | {"comparison": comparison}
    if resamples and asked:
        low, high = percentile(bootstrap_means(np.stack(list(table.values()), axis=1), scored.video, resamples, seed))
        result["interval"] |= {name: [float(a), float(b)] for name, a, b in zip(table, low, high, strict=True)}
    return result


def _percent(rows: Bools) -> Floats:
    return 100.0 * rows.astype(np.float64)


def iop(span: Floats, samples: Sequence[Sample]) -> Floats:
    """(N,) intersection over the length of the predicted span (N, 2), the best over each sample's windows, in [0, 1]."""
    result = np.zeros(len(samples))
    for i, sample in enumerate(samples):
        start, end = span[i]
        if np.isfinite(span[i]).all() and end > start:
            shared = [min(end, e) - max(start, s) for s, e in sample.windows if e > s]
            result[i] = max(0.0, *shared, 0.0) / (end - start)
    return result


def compare(
    samples: Sequence[Sample],
    first: Sequence[Prediction | None],
    second: Sequence[Prediction | None],
    *,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> dict[str, float]:
    """Second minus first accuracy on the same questions, in percent points: difference, low, high, p, n."""
    video = numbered(sample.video for sample in samples)
    return paired_difference(100.0 * correct(samples, first), 100.0 * correct(samples, second), video, resamples, seed)


def by_letter(samples: Sequence[Sample], rows: Sequence[Prediction | None]) -> Mapping[str, int]:
    """How often each letter was chosen: a model that always says A shows here."""
    picked = [chosen(row, sample) for sample, row in zip(samples, rows, strict=True)]
    counts = Counter("none" if index is None else letter(index) for index in picked)
    return dict(sorted(counts.items()))
