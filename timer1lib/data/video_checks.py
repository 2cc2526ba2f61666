"""Checks of rows against the video files: there, inside the folder, decodable, as long as the annotation says."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Sequence
from pathlib import Path

from timer1lib.data.checks import Limits
from timer1lib.data.pictures import look_alikes
from timer1lib.data.record import Record
from timer1lib.data.videofiles import VideoFolder, content_hash
from timer1lib.errors import Timer1Error
from timer1lib.progress import Progress

ProbeSeconds = Callable[[Path], float]
"""A video file's duration in seconds; raises Timer1Error where it cannot be decoded."""


def probe_seconds(path: Path) -> float:
    """Duration by the file's own frames; decodes one frame to see that it can be done."""
    from timer1lib.video.probe import probe

    return probe(path).duration_s


def check_videos(
    records: Sequence[Record], folder: VideoFolder, limits: Limits, probe: ProbeSeconds = probe_seconds
) -> dict[str, str]:
    """Look up and probe the file of every row, each file once.

    Returns:
        {path below the folder: what it shows} of the files that may show the same as another: a content hash where sizes
        agree, a group of look-alikes in different splits (`pictures`).
    """
    by_name: dict[str, list[Record]] = defaultdict(list)
    for record in records:
        by_name[record.published.video].append(record)
    progress = Progress("videos checked", len(by_name))
    seconds: dict[str, float] = {}
    for name, group in by_name.items():
        _check_file(name, group, folder, limits, probe, seconds)
        progress.update()
    contents = _contents({path for record in records if (path := record.readable_video)}, folder)
    splits: dict[str, set[str]] = defaultdict(set)
    for record in records:
        if record.readable_video:
            splits[record.readable_video].add(record.split)
    if limits.compare_pictures and len({split for names in splits.values() for split in names}) > 1:
        contents |= look_alikes(folder.root, seconds, {path: frozenset(names) for path, names in splits.items()})
    return contents


def _check_file(
    name: str, group: Sequence[Record], folder: VideoFolder, limits: Limits, probe: ProbeSeconds, known: dict[str, float]
) -> None:
    try:
        relative = folder.find(name)
    except Timer1Error as error:
        for record in group:
            record.find("outside_root", str(error))
        return
    if relative is None:
        for record in group:
            record.find("missing_video", f"no file for {name!r} in {folder.root}")
        return
    for record in group:
        record.readable_video = relative.as_posix()
    try:
        seconds = known[relative.as_posix()] = probe(folder.root / relative)
    except Timer1Error as error:
        for record in group:
            record.find("undecodable", str(error))
        return
    for record in group:
        record.sample.video = relative.as_posix()
        _check_length(record, seconds, limits)


def _check_length(record: Record, seconds: float, limits: Limits) -> None:
    """The annotation's duration against the file's: of the clip where the row is about one."""
    sample = record.sample
    allowed = max(limits.duration_tolerance, 0.01 * seconds)
    start, end = sample.video_start, sample.video_end
    if start is not None or end is not None:
        if (end or 0.0) <= seconds + allowed and (start or 0.0) < seconds:
            return
        message = f"clip [{start or 0:g}, {end if end is not None else seconds:g}] s of a file of {seconds:.2f} s"
        if sample.duration is not None and abs(sample.duration - seconds) <= allowed:
            if record.find("duration_mismatch", f"{message}: the file is the clip already") == "clip":
                record.change("duration_mismatch", "video_start, video_end", [start, end], None)
                sample.video_start = sample.video_end = None
        else:
            record.find("duration_mismatch", message, repair="drop" if record.policies["duration_mismatch"] != "keep" else "keep")
        return
    if sample.duration is None:
        if record.policies["duration_mismatch"] == "clip":
            record.change("missing_field", "duration", None, seconds)
            sample.duration = seconds
    elif abs(sample.duration - seconds) > allowed:
        policy = record.find("duration_mismatch", f"duration {sample.duration:g} s, the file has {seconds:.2f} s")
        if policy == "clip":
            record.change("duration_mismatch", "duration", sample.duration, seconds)
            sample.duration = seconds


def _contents(paths: set[str], folder: VideoFolder) -> dict[str, str]:
    by_size: dict[int, list[str]] = defaultdict(list)
    for path in sorted(paths):
        by_size[(folder.root / path).stat().st_size].append(path)
    return {path: content_hash(folder.root / path) for same in by_size.values() if len(same) > 1 for path in same}
