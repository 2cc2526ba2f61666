"""Checks of one row by itself: its times, its query, its answer."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass

from timer1lib.data.record import Record
from timer1lib.schema import Window


@dataclass(frozen=True, slots=True)
class Limits:
    """Where a flaw begins. Seconds, but for the shares."""

    end_tolerance: float = 1e-3
    """A window may pass the end by this much: less than any frame, more than the rounding of floating point."""
    short_window: float = 0.5
    whole_share: float = 0.95
    duration_tolerance: float = 0.5
    """A published duration may differ from the file's by this, or by 1 % where that is more."""
    compare_pictures: bool = True
    """Decode some frames of files in different splits whose durations agree, to find one film encoded twice."""
    near_iou: float = 0.9
    near_words: float = 0.8
    """Near duplicates share at least this part of their words and this IoU of their windows."""


_LETTER = re.compile(r"[^\W\d_]")
_NOTHING = {"nan", "none", "null", "n/a", "na", "undefined", "todo", "tbd"}
_AUDIO = re.compile(
    r"\b(?:audio|sounds?|noises?|hear[sd]?|hearing|loud(?:ly)?|voice(?:s|over)?|voice-over|narrat(?:es?|ed|ing|ion|or)|"
    r"music (?:plays?|playing|starts?|stops?)|sa(?:ys|id|ying)|tells?|told|shouts?|yells?|screams?|whispers?|sings?|sang|"
    r"announces?|(?:announcer|commentator)s?|asks?|asked|answers|applause|barks?|barking|beeps?|rings|ringing)\b",
    re.IGNORECASE,
)  # fmt: skip


def faults(window: Window, duration: float | None, tolerance: float = 0.0) -> list[str]:
    """Codes of what is wrong with a window: not_finite, reversed, empty_window, negative, past_end.

    The one judge of windows: the audit allows for a `tolerance` (seconds) at the video's end, `timer1 score` for none, as
    published tables count.
    """
    start, end = window
    if not (math.isfinite(start) and math.isfinite(end)):
        return ["not_finite"]
    found = ["reversed"] if end < start else ["empty_window"] if end == start else []
    if min(start, end) < 0:
        found.append("negative")
    if duration is not None and max(start, end) > duration + tolerance:
        found.append("past_end")
    return found


def clip(window: Window, duration: float | None) -> Window:
    """The window cut to the video."""
    limit = math.inf if duration is None else duration
    return min(max(window[0], 0.0), limit), min(max(window[1], 0.0), limit)


def check_row(record: Record, limits: Limits) -> None:
    """All checks of a single row, in an order in which each sees the repairs of those before it."""
    if not _finite(record):
        return
    _check_duration(record, limits)
    if record.sample.windows:
        _check_windows(record, limits)
    _check_query(record)


def _finite(record: Record) -> bool:
    sample = record.published
    named = [("duration", sample.duration), ("video_start", sample.video_start), ("video_end", sample.video_end)]
    bad = [f"{name} {value}" for name, value in named if value is not None and not math.isfinite(value)]
    bad += [f"window [{s}, {e}]" for s, e in sample.windows if not (math.isfinite(s) and math.isfinite(e))]
    for message in bad:
        record.find("not_finite", message)
    return not bad


def _check_duration(record: Record, limits: Limits) -> None:
    sample = record.sample
    if sample.duration is not None and sample.duration <= 0:
        record.find("bad_duration", f"duration {sample.duration:g} s")
    start, end = sample.video_start, sample.video_end
    if start is None or end is None:
        return
    if start < 0 or end <= start:
        record.find("bad_clip", f"clip [{start:g}, {end:g}] s of the video")
    elif sample.duration is not None and abs(end - start - sample.duration) > max(
        limits.duration_tolerance, 0.01 * sample.duration
    ):
        record.find("bad_clip", f"clip [{start:g}, {end:g}] s is {end - start:g} s long, the duration says {sample.duration:g} s")


def _check_windows(record: Record, limits: Limits) -> None:
    sample = record.sample
    kept: list[Window] = []
    several = len(sample.windows) > 1
    for window in sample.windows:
        repaired = _check_window(record, window, limits, several)
        if repaired is not None:
            kept.append(repaired)
    if not kept:
        record.dropped_by = record.dropped_by or "empty_window"
    elif kept != sample.windows:
        sample.windows = kept


def _check_window(record: Record, window: Window, limits: Limits, several: bool) -> Window | None:
    """The window as the policies repair it; None where it goes, which alone of several windows does not drop the row."""
    duration = record.sample.duration
    shown = f"[{window[0]:g}, {window[1]:g}] s"
    start, end = window
    wrong = faults(window, duration if duration is not None and duration > 0 else None, limits.end_tolerance)
    if "empty_window" in wrong:
        dropped = record.dropped_by
        if record.find("empty_window", f"window {shown} is empty") == "drop" and several:
            record.dropped_by = dropped
            record.change("empty_window", "windows", list(window), None)
            return None
    if "reversed" in wrong and record.find("reversed", f"window {shown} ends before it starts") == "swap":
        start, end = end, start
        record.change("reversed", "windows", list(window), [start, end])
    if "negative" in wrong and record.find("negative", f"window {shown} starts before the video") == "clip":
        before = [start, end]
        start, end = clip((start, end), None)
        record.change("negative", "windows", before, [start, end])
        if start == end and window[0] != window[1]:
            record.dropped_by = record.dropped_by or "negative"
    if "past_end" in wrong and duration is not None:
        start, end = _past_end(record, window, (start, end), duration)
    length = abs(end - start)
    if 0 < length < limits.short_window:
        record.find("short_window", f"window {shown} is {length:.3g} s long")
    if duration is not None and duration > 0 and length >= limits.whole_share * duration:
        record.find("whole_video", f"window {shown} covers {100 * length / duration:.0f} % of the video")
    return (start, end)


def _past_end(record: Record, published: Window, window: Window, duration: float) -> Window:
    start, end = window
    over = max(window) - duration
    message = f"window [{published[0]:g}, {published[1]:g}] s ends {over:.4g} s after the video's {duration:.6g} s"
    if min(window) >= duration:
        # Nothing of it lies in the video: clipping would leave an empty window.
        if record.policies["past_end"] == "keep":
            record.find("past_end", f"{message}, and starts after it too")
        else:
            record.find("past_end", f"{message}, and starts after it too", repair="drop")
        return window
    if record.find("past_end", message) == "clip":
        clipped = (min(start, duration), min(end, duration))
        record.change("past_end", "windows", list(window), list(clipped))
        return clipped
    return window


def _check_query(record: Record) -> None:
    query = record.sample.query
    if not _LETTER.search(query) or query.strip().lower() in _NOTHING:
        record.find("bad_query", f"query {query[:40]!r} holds no words" if query.strip() else "the query is empty")
    else:
        heard = _AUDIO.search(query)
        if heard:
            record.find("audio_query", f"{heard[0]!r} in {query.strip()[:80]!r} may need the sound")
