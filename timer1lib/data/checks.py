"""Checks of rows by themselves (times, query, answer) and against each other (duplicates in a split, leakage between splits)."""

from __future__ import annotations

import math
import re
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath

from timer1lib.data.findings import Record
from timer1lib.data.readers.base import stem
from timer1lib.schema import Sample, Window
from timer1lib.spans import iou


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

    The audit allows for a `tolerance` (seconds) at the video's end, `timer1 score` for none, as published tables count.
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
    if _finite(record):
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
    elif (said := sample.duration) is not None and abs(end - start - said) > max(limits.duration_tolerance, 0.01 * said):
        record.find("bad_clip", f"clip [{start:g}, {end:g}] s is {end - start:g} s long, the duration says {said:g} s")


def _check_windows(record: Record, limits: Limits) -> None:
    sample = record.sample
    repaired = [_check_window(record, window, limits, len(sample.windows) > 1) for window in sample.windows]
    if kept := [window for window in repaired if window is not None]:
        sample.windows = kept
    else:
        record.dropped_by = record.dropped_by or "empty_window"


def _check_window(record: Record, window: Window, limits: Limits, several: bool) -> Window | None:
    """The window as the treatments repair it; None where it goes, which alone of several windows does not drop the row."""
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
    outside = min(window) >= duration
    message += ", and starts after it too" if outside else ""
    # Nothing of it lies in the video: clipping would leave an empty window.
    lost = outside and record.treatments["past_end"] != "keep"
    if record.find("past_end", message, repair="drop" if lost else None) == "clip":
        clipped = (min(start, duration), min(end, duration))
        record.change("past_end", "windows", list(window), list(clipped))
        return clipped
    return window


def _check_query(record: Record) -> None:
    query = record.sample.query
    if not _LETTER.search(query) or query.strip().lower() in _NOTHING:
        record.find("bad_query", f"query {query[:40]!r} holds no words" if query.strip() else "the query is empty")
    elif heard := _AUDIO.search(query):
        record.find("audio_query", f"{heard[0]!r} in {query.strip()[:80]!r} may need the sound")


_WORD = re.compile(r"[^\W_]+")
_SMALL = {"a", "an", "the"}
_RANGE = re.compile(r"_(?:\d+(?:\.\d+)?_\d+(?:\.\d+)?|\d\d:\d\d:\d\d:\d{3}_\d\d:\d\d:\d\d:\d{3})$")
_GENERIC = re.compile(r"(?:video|vid|clip|sample|train|test|val|scene|synth|world|movie|film|v)?[\W_]*0*\d{0,7}", re.IGNORECASE)


def is_generic(stem: str) -> bool:
    """Whether a file's stem is only a number or a word that many data sets use: two such files need not be one video."""
    return _GENERIC.fullmatch(stem) is not None


def video_key(name: str) -> str:
    """What makes a video's name the same in two data sets: its stem, since the folders before it differ between releases; the
    whole path where the stem is only a number, as in `train/000012.mp4`.
    """
    base = stem(name)
    return str(PurePosixPath(name.replace("\\", "/")).with_name(base)) if is_generic(base) else base


def source_key(name: str) -> str:
    """`video_key` without a time range at its end: the video that a published clip was cut from.

    `NUsG9BgSes0_60.0_210.0` (QVHighlights) and `4jujhM5qhEc_00:00:39:000_00:01:24:700` (TimeRFT) lose their range,
    an ActivityNet id its `v_`.
    """
    key = _RANGE.sub("", video_key(name))
    return key[2:] if len(key) == 13 and key.startswith("v_") else key


def check_duplicates(records: Sequence[Record], limits: Limits) -> None:
    """`duplicate`, `conflicting_windows` and `near_duplicate`, each found on the later row, and `duplicate_id`."""
    groups: dict[tuple[object, ...], list[Record]] = defaultdict(list)
    for record in records:
        groups[_video(record.published, record.split)].append(record)
    for group in groups.values():
        if len(group) > 1:
            _exact(group)
            _near(group, limits)
    _ids(records)


def _video(sample: Sample, split: str) -> tuple[object, ...]:
    return (split, sample.video, sample.video_start, sample.video_end)


def _question(sample: Sample) -> tuple[object, ...]:
    return (sample.query.strip(), None if sample.options is None else tuple(sorted(sample.options)))


def _exact(group: Iterable[Record]) -> None:
    seen: dict[tuple[object, ...], list[Record]] = defaultdict(list)
    for record in group:
        earlier = seen[_question(record.published)]
        query = repr(record.published.query.strip()[:80])
        same = next((e for e in earlier if _same_windows(e.published, record.published)), None)
        if same is not None:
            record.find("duplicate", f"the same query and window as {_place(same, record)}: {query}")
        elif earlier:
            place = _place(earlier[0], record)
            message = f"{query} has {_times(record)} here and {_times(earlier[0])} in {place}"
            treatment = record.find("conflicting_windows", message)
            record.find("duplicate", f"the query of {place} again, with another window: {query}", repair=treatment)
        earlier.append(record)


def _same_windows(a: Sample, b: Sample) -> bool:
    return len(a.windows) == len(b.windows) and all(
        (abs(p[0] - q[0]) < 1e-6 and abs(p[1] - q[1]) < 1e-6) or p == q for p, q in zip(a.windows, b.windows, strict=True)
    )


def _near(group: Sequence[Record], limits: Limits) -> None:
    """Rows with one window each that nearly coincide and whose queries share most words, in the order of their start."""
    single = sorted(
        (r for r in group if len(r.published.windows) == 1 and r.published.options is None), key=lambda r: r.published.windows[0]
    )
    words = [frozenset(_WORD.findall(r.published.query.lower())) - _SMALL for r in single]
    for i, first in enumerate(single):
        a = first.published.windows[0]
        for j in range(i + 1, len(single)):
            b = single[j].published.windows[0]
            # With an IoU of at least m the starts lie at most (1 - m) of the union's length, so (1 - m) / m of a, apart.
            if not b[0] - a[0] <= (a[1] - a[0]) * (1 - limits.near_iou) / limits.near_iou:
                break
            union = len(words[i] | words[j])
            if not union or len(words[i] & words[j]) < limits.near_words * union or iou(a, b) < limits.near_iou:
                continue
            earlier, later = sorted((first, single[j]), key=lambda r: r.row)
            if not any(f.code in ("near_duplicate", "duplicate") for f in later.findings):
                here, there = later.published.query.strip()[:60], earlier.published.query.strip()[:60]
                later.find("near_duplicate", f"{here!r} is nearly {_place(earlier, later)}: {there!r}")


def _ids(records: Sequence[Record]) -> None:
    """Two rows of a split with one id would share one prediction: the later one gets a new id, unless it is dropped."""
    taken: dict[tuple[str, str], int] = {}
    ids = {(record.split, record.published.id) for record in records}
    for record in records:
        key = (record.split, record.published.id)
        if key not in taken:
            taken[key] = 1
            continue
        taken[key] += 1
        if record.find("duplicate_id", f"id {record.published.id[:60]!r} stands there already") == "clip":
            number = taken[key]
            while (record.split, f"{record.published.id}~{number}") in ids:
                number += 1
            record.sample.id = f"{record.published.id}~{number}"
            ids.add((record.split, record.sample.id))
            record.change("duplicate_id", "id", record.published.id, record.sample.id)


def check_leakage(records: Sequence[Record], contents: dict[str, str] | None = None) -> None:
    """`leakage`: one video in two splits, by name or, with `contents` {path: hash}, by what the files hold.

    One finding a video, on its first row in the split that loses it, all whose rows of this video go under `drop`: the split
    with "train" in its name, else the first.
    """
    by_name: dict[str, list[Record]] = defaultdict(list)
    by_content: dict[str, list[Record]] = defaultdict(list)
    by_source: dict[str, list[Record]] = defaultdict(list)
    for record in records:
        by_name[video_key(record.published.video)].append(record)
        by_source[source_key(record.published.video)].append(record)
        if contents and record.readable_video in contents:
            by_content[contents[record.readable_video]].append(record)
    reported: set[int] = set()
    for key, group in by_name.items():
        _leak(group, f"video {key!r}", "leakage", reported)
    for group in by_content.values():
        names = sorted({record.published.video for record in group})
        _leak(group, f"the same content under {len(names)} names ({', '.join(names[:3])})", "leakage", reported)
    for key, group in by_source.items():
        _leak(group, f"clips of the source video {key!r}", "shared_source", reported)


def _leak(group: Sequence[Record], what: str, code: str, reported: set[int]) -> None:
    splits = list(dict.fromkeys(record.split for record in group))
    if len(splits) < 2 or all(id(record) in reported for record in group):
        return
    reported.update(id(record) for record in group)
    loser = next((split for split in splits if "train" in _name(split).lower()), splits[0])
    rows = [record for record in group if record.split == loser]
    counts = ", ".join(f"{sum(r.split == split for r in group)} rows in {_name(split)}" for split in splits)
    if rows[0].find(code, f"{what} stands in two splits: {counts}") == "drop":
        for record in rows:
            record.dropped_by = record.dropped_by or code


def _name(split: str) -> str:
    return split.replace("\\", "/").rsplit("/", 1)[-1]


def _place(record: Record, seen_from: Record) -> str:
    return f"row {record.row}" if record.file == seen_from.file else f"{_name(record.file)} row {record.row}"


def _times(record: Record) -> str:
    return ", ".join(f"[{s:g}, {e:g}] s" for s, e in record.published.windows)
