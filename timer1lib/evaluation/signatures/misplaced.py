"""Answers at the wrong place: too early, too late, too long, on another event; and queries unlike the training set's."""

from __future__ import annotations

import re
from collections.abc import Sequence

import numpy as np

from timer1lib.evaluation.scored import Bools, Floats, Scored
from timer1lib.evaluation.signatures.signature import Signature, estimate, unmeasured, worst
from timer1lib.schema import Sample
from timer1lib.spans import iou_many

DRIFT_SHARE = 0.02
SCALE = 1.15
FEWEST = 20
"""Answers without which nothing is said."""
ALIKE = "explained by one answer for all questions"


def proper(scored: Scored) -> Bools:
    """Rows with a segment answered for a segment asked, on a video of known length."""
    with np.errstate(invalid="ignore"):
        answered = scored.parsed & (scored.span[:, 1] > scored.span[:, 0])
        return answered & (scored.window[:, 1] > scored.window[:, 0]) & np.isfinite(scored.duration)


def cut(scored: Scored) -> tuple[Floats, Floats]:
    """Answers and windows (N, 2) cut to the video, so that times outside it cannot carry a mean."""
    limit = scored.duration[:, None]
    return np.clip(scored.span, 0, limit), np.clip(scored.window, 0, limit)


def temporal_drift(scored: Scored, seed: int = 0, one_answer: bool = False) -> Signature:
    """Signed offset of the answer's centre from the window's; positive is late.

    `one_answer`: every question gets the same answer, which is off by itself and no drift.
    """
    rule = (
        f"centre and both edges off to the same side by {DRIFT_SHARE:.0%} of the video or more, intervals without 0, "
        "and mIoU rises when all answers are moved back by the median offset"
    )
    rows = proper(scored)
    if rows.sum() < FEWEST:
        return unmeasured("temporal_drift", "seconds", rule, f"fewer than {FEWEST} answers with a segment")
    span, window = cut(scored)
    off = np.where(rows[:, None], span - window, np.nan)
    centre = off.mean(axis=1)
    places = {"centre": centre, "start": off[:, 0], "end": off[:, 1]}
    share = {name: estimate([values / scored.duration], scored.video, seed) for name, values in places.items()}
    seconds = {name: estimate([values], scored.video, seed) for name, values in places.items()}
    median = float(np.nanmedian(centre))
    gain = 100.0 * (iou_many(scored.span - median, scored.window) - iou_many(scored.span, scored.window))
    corrected = estimate([np.where(rows, gain, np.nan)], scored.video, seed)
    same_side = len({np.sign(part.value) for part in share.values()}) == 1
    sure = all(part.excludes_zero for part in share.values()) and corrected.low > 0
    found = same_side and sure and abs(share["centre"].value) >= DRIFT_SHARE
    side = np.sign(share["centre"].value)
    with np.errstate(invalid="ignore"):
        drifting = rows & (side * off > abs(seconds["centre"].value) / 2).all(axis=1)
    flagged = found and not one_answer
    return seconds["centre"].signature(
        "temporal_drift", "seconds", rule, flagged, rows.sum(),
        worst(scored, side * centre / scored.duration, drifting) if flagged else [],
        {
            "seconds": {name: part.to_json() for name, part in seconds.items()},
            "share_of_video": {name: part.to_json() for name, part in share.items()},
            "mIoU_gained_by_moving_back": corrected.to_json()
        },
        ALIKE if found and one_answer else ""
    )  # fmt: skip


def scale_bias(scored: Scored, seed: int = 0, one_answer: bool = False) -> Signature:
    """Mean length of answers over mean length of windows, both as shares of the video; above 1 is too long."""
    rule = f"{SCALE:g} times as long or more, or as short, and an interval without 1"
    rows = proper(scored)
    if rows.sum() < FEWEST:
        return unmeasured("scale_bias", "times", rule, f"fewer than {FEWEST} answers with a segment")
    span, window = cut(scored)
    length = np.where(rows, (span[:, 1] - span[:, 0]) / scored.duration, np.nan)
    true = np.where(rows, (window[:, 1] - window[:, 0]) / scored.duration, np.nan)
    ratio = estimate([length, true], scored.video, seed, lambda means: means[..., 0] / means[..., 1])
    long, short = ratio.value >= SCALE and ratio.low > 1, ratio.value <= 1 / SCALE and ratio.high < 1
    flagged = (long or short) and not one_answer
    with np.errstate(invalid="ignore", divide="ignore"):
        off = np.log(np.maximum(length, 1e-6) / np.maximum(true, 1e-6)) * (1 if ratio.value >= 1 else -1)
    return ratio.signature(
        "scale_bias", "times", rule, flagged, rows.sum(),
        worst(scored, off, rows & (np.nan_to_num(off) > np.log(1.5))) if flagged else [],
        {
            "answered_share": estimate([length], scored.video, seed).to_json(),
            "true_share": estimate([true], scored.video, seed).to_json()
        },
        ALIKE if (long or short) and one_answer else ""
    )  # fmt: skip


OTHER, OWN, APART = 0.5, 0.3, 0.3
LEAST_MISALIGNED = 5.0
LEAST_DROP = 5.0


def semantic_misalignment(scored: Scored, seed: int = 0) -> Signature:
    """Share of answers that fit another event of the same video and not their own.

    A wrong answer meets another event by chance, often where events are dense. How often is measured with answers to
    questions on other videos, stretched to this one's length; wrong answers must meet other events more often than that.
    """
    rule = (
        f"{LEAST_MISALIGNED:g}% of the answers or more have IoU >= {OTHER} with another event and < {OWN} with their own, "
        "and wrong answers meet another event more often than answers borrowed from other videos do"
    )
    events = _other_events(scored)
    rows = proper(scored) & np.isfinite(events).any(axis=(1, 2))
    if rows.sum() < FEWEST:
        why = f"fewer than {FEWEST} answers on videos with another event in the same split"
        return unmeasured("semantic_misalignment", "percent", rule, why)
    wrong, other = _misaligned(scored.span, scored, events)
    share = scored.span / scored.duration[:, None]
    index = np.flatnonzero(rows)
    chance_wrong, chance_other = np.zeros(len(scored)), np.zeros(len(scored))
    for step in _steps(scored.video[index]):
        borrowed = scored.span.copy()
        borrowed[index] = share[np.roll(index, step)] * scored.duration[index, None]
        missed, met = _misaligned(borrowed, scored, events)
        chance_wrong += missed
        chance_other += met
    columns = [np.where(rows, 100.0 * values, np.nan) for values in (other, wrong, chance_other, chance_wrong)]
    value = estimate(columns[:1], scored.video, seed)
    among_wrong = estimate(columns, scored.video, seed, lambda m: 100 * m[..., 0] / m[..., 1])
    by_chance = estimate(columns, scored.video, seed, lambda m: 100 * m[..., 2] / m[..., 3])
    excess = estimate(columns, scored.video, seed, lambda m: 100 * (m[..., 0] / m[..., 1] - m[..., 2] / m[..., 3]))
    found = value.value >= LEAST_MISALIGNED and excess.low > 0
    samples = worst(scored, other, rows & (other > 0)) if found else []
    parts = {
        "of_wrong_answers": among_wrong.to_json(),
        "of_wrong_answers_by_chance": by_chance.to_json(),
        "beyond_chance": excess.to_json(),
    }
    return value.signature("semantic_misalignment", "percent", rule, found, rows.sum(), samples, parts)


def _other_events(scored: Scored) -> Floats:
    """(N, K, 2) windows of other samples on the same clip that lie apart from the row's own, padded with NaN."""
    clips: dict[tuple[str, float | None, float | None], list[int]] = {}
    for i, sample in enumerate(scored.samples):
        clips.setdefault((sample.video, sample.video_start, sample.video_end), []).append(i)
    result = []
    for i, sample in enumerate(scored.samples):
        mates = clips[(sample.video, sample.video_start, sample.video_end)]
        windows = [w for j in mates if j != i for w in scored.samples[j].windows]
        own = np.array(sample.windows or [(np.nan, np.nan)], dtype=np.float64)
        others = np.array(windows, dtype=np.float64).reshape(-1, 2)
        apart = iou_many(others[:, None], own[None]).max(axis=1) < APART if len(others) else np.zeros(0, dtype=np.bool_)
        result.append(others[apart])
    padded = np.full((len(result), max(1, *map(len, result), 1), 2), np.nan)
    for i, found in enumerate(result):
        padded[i, : len(found)] = found
    return padded


def _misaligned(span: Floats, scored: Scored, events: Floats) -> tuple[Floats, Floats]:
    """(N,) 1 where a span misses the row's own window, and (N,) 1 where it moreover fits another event."""
    wrong = iou_many(span, scored.window) < OWN
    other = wrong & (iou_many(span[:, None], events).max(axis=1) >= OTHER)
    return wrong.astype(np.float64), other.astype(np.float64)


def _steps(video: np.typing.NDArray[np.int64], count: int = 8) -> list[int]:
    """Rotations of the rows that (nearly) never give a row an answer to its own video."""
    longest = int(np.bincount(video).max())
    room = len(video) - 2 * longest
    return sorted({longest + (room * i) // count for i in range(count)}) if room > 0 else [max(1, len(video) // 2)]


def out_of_distribution(
    scored: Scored, train: Sequence[Sample] | None, seed: int = 0, reference: Scored | None = None
) -> Signature:
    """How much lower mIoU is on queries unlike the training set's: words or types it has not, or longer videos.

    `reference`: another split's answers whose in-distribution rows are compared with, beside those of `scored`.
    """
    rule = f"mIoU lower by {LEAST_DROP:g} points or more than on other queries, and an interval below 0"
    name = "out_of_distribution"
    if not train:
        return unmeasured(name, "points of mIoU", rule, "the training samples are not known")
    reasons = unlike(scored.samples, train)
    outside = np.array([reason != "" for reason in reasons], dtype=np.bool_)
    inside_iou, inside_video = [100.0 * scored.iou[~outside]], [scored.video[~outside]]
    if reference is not None:
        known = np.array([reason == "" for reason in unlike(reference.samples, train)], dtype=np.bool_)
        inside_iou.append(100.0 * reference.iou[known])
        inside_video.append(reference.video[known] + scored.videos)
    iou_in, video_in = np.concatenate(inside_iou), np.concatenate(inside_video)
    if outside.sum() < FEWEST or len(iou_in) < FEWEST:
        few = "queries unlike training" if outside.sum() < FEWEST else "queries like training"
        return unmeasured(name, "points of mIoU", rule, f"fewer than {FEWEST} {few}")
    out = np.concatenate([100.0 * scored.iou[outside], np.full(len(iou_in), np.nan)])
    within = np.concatenate([np.full(int(outside.sum()), np.nan), iou_in])
    video = np.unique(np.concatenate([scored.video[outside], video_in]), return_inverse=True)[1].astype(np.int64)
    drop = estimate([out, within], video, seed, lambda means: means[..., 0] - means[..., 1])
    found = drop.value <= -LEAST_DROP and drop.high < 0
    counts = {kind: sum(reason.startswith(kind) for reason in reasons) for kind in ("word", "type", "length")}
    samples = worst(scored, 1 - scored.iou, outside & (scored.iou < 0.3)) if found else []
    parts = {
        "mIoU_outside": estimate([out], video, seed).to_json(),
        "mIoU_inside": estimate([within], video, seed).to_json(),
        "reasons": counts,
    }
    return drop.signature(name, "points of mIoU", rule, found, outside.sum(), samples, parts)


def unlike(samples: Sequence[Sample], train: Sequence[Sample]) -> list[str]:
    """Why each sample is unlike the training set ("word: sits"), "" where it is not.

    A word counts when no training query has it, a type when no training sample has it, a length when the video is
    shorter or longer than every training video by a tenth.
    """
    words = {word for sample in train for word in _words(sample.query)}
    types = {sample.type for sample in train}
    lengths = [sample.duration for sample in train if sample.duration]
    result = []
    for sample in samples:
        new = next((word for word in _words(sample.query) if word not in words), None)
        if new is not None:
            result.append(f"word: {new}")
        elif sample.type and sample.type not in types:
            result.append(f"type: {sample.type}")
        elif sample.duration and lengths and not 0.9 * min(lengths) <= sample.duration <= 1.1 * max(lengths):
            result.append(f"length: {sample.duration:g} s")
        else:
            result.append("")
    return result


def _words(query: str) -> list[str]:
    return re.findall(r"[^\W\d_]+", query.lower())
