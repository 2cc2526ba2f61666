"""Checks of rows against each other: duplicates within a split, leakage between splits."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Sequence

from timer1lib.data.checks import Limits
from timer1lib.data.record import Record
from timer1lib.data.videofiles import source_key, video_key
from timer1lib.schema import Sample
from timer1lib.spans import iou

_WORD = re.compile(r"[^\W_]+")
_SMALL = {"a", "an", "the"}


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
    options = None if sample.options is None else tuple(sorted(sample.options))
    return (sample.query.strip(), options)


def _exact(group: Iterable[Record]) -> None:
    seen: dict[tuple[object, ...], list[Record]] = defaultdict(list)
    for record in group:
        earlier = seen[_question(record.published)]
        if earlier:
            same = next((e for e in earlier if _same_windows(e.published, record.published)), None)
            first = same or earlier[0]
            if same is not None:
                record.find(
                    "duplicate", f"the same query and window as {_place(first, record)}: {record.published.query.strip()[:80]!r}"
                )
            else:
                query = record.published.query.strip()[:80]
                policy = record.find(
                    "conflicting_windows", f"{query!r} has {_times(record)} here and {_times(first)} in {_place(first, record)}"
                )
                record.find(
                    "duplicate", f"the query of {_place(first, record)} again, with another window: {query!r}", repair=policy
                )
        earlier.append(record)


def _same_windows(a: Sample, b: Sample) -> bool:
    if len(a.windows) != len(b.windows):
        return False
    return all((abs(p[0] - q[0]) < 1e-6 and abs(p[1] - q[1]) < 1e-6) or p == q for p, q in zip(a.windows, b.windows, strict=True))


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

    One finding a video, on its first row in the split that loses it: the one with "train" in its name, else the one
    that was given first. Policy `drop` takes all of that split's rows of this video.
    """
    by_name: dict[str, list[Record]] = defaultdict(list)
    by_content: dict[str, list[Record]] = defaultdict(list)
    for record in records:
        by_name[video_key(record.published.video)].append(record)
        if contents and record.readable_video in contents:
            by_content[contents[record.readable_video]].append(record)
    reported: set[int] = set()
    for key, group in by_name.items():
        _leak(group, f"video {key!r}", "leakage", reported)
    for group in by_content.values():
        names = sorted({record.published.video for record in group})
        _leak(group, f"the same content under {len(names)} names ({', '.join(names[:3])})", "leakage", reported)
    by_source: dict[str, list[Record]] = defaultdict(list)
    for record in records:
        by_source[source_key(record.published.video)].append(record)
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
