"""Answers that are systematically misplaced or of the wrong length: temporal drift and scale bias."""

from __future__ import annotations

import numpy as np

from timer1lib.evaluation.scored import Bools, Floats, Scored
from timer1lib.evaluation.signature import Signature, estimate, unmeasured, worst
from timer1lib.spans import iou_many

DRIFT_SHARE = 0.02
SCALE = 1.15
FEWEST = 20
"""Answers without which nothing is said."""


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

    Args:
        one_answer: every question gets the same answer, which is off by itself and no drift.
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
    share = {
        name: estimate([values / scored.duration], scored.video, seed)
        for name, values in (("centre", centre), ("start", off[:, 0]), ("end", off[:, 1]))
    }
    seconds = {
        name: estimate([values], scored.video, seed)
        for name, values in (("centre", centre), ("start", off[:, 0]), ("end", off[:, 1]))
    }
    median = float(np.nanmedian(centre))
    gain = 100.0 * (iou_many(scored.span - median, scored.window) - iou_many(scored.span, scored.window))
    corrected = estimate([np.where(rows, gain, np.nan)], scored.video, seed)
    same_side = len({np.sign(part.value) for part in share.values()}) == 1
    found = (
        same_side
        and all(part.excludes_zero for part in share.values())
        and abs(share["centre"].value) >= DRIFT_SHARE
        and corrected.low > 0
    )
    side = np.sign(share["centre"].value)
    with np.errstate(invalid="ignore"):
        drifting = rows & (side * off > abs(seconds["centre"].value) / 2).all(axis=1)
    return Signature(
        "temporal_drift",
        seconds["centre"].value,
        "seconds",
        seconds["centre"].interval,
        bool(found and not one_answer),
        worst(scored, side * centre / scored.duration, drifting) if found and not one_answer else [],
        rule,
        "explained by one answer for all questions" if found and one_answer else "",
        int(rows.sum()),
        {
            "seconds": {name: part.to_json() for name, part in seconds.items()},
            "share_of_video": {name: part.to_json() for name, part in share.items()},
            "mIoU_gained_by_moving_back": corrected.to_json(),
        },
    )


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
    found = (long or short) and not one_answer
    with np.errstate(invalid="ignore", divide="ignore"):
        off = np.log(np.maximum(length, 1e-6) / np.maximum(true, 1e-6)) * (1 if ratio.value >= 1 else -1)
    return Signature(
        "scale_bias",
        ratio.value,
        "times",
        ratio.interval,
        bool(found),
        worst(scored, off, rows & (np.nan_to_num(off) > np.log(1.5))) if found else [],
        rule,
        "explained by one answer for all questions" if (long or short) and one_answer else "",
        int(rows.sum()),
        {
            "answered_share": estimate([length], scored.video, seed).to_json(),
            "true_share": estimate([true], scored.video, seed).to_json(),
        },
    )
