"""Checks of rows against the video files: there, inside the folder, decodable, as long as the annotation says; and whether
two files show the same, though their bytes differ: encoded again, scaled, in another container.
"""

from __future__ import annotations

import contextlib
import os
import re
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from timer1lib.data.checks import Limits, is_generic
from timer1lib.data.findings import Record
from timer1lib.data.readers.base import stem
from timer1lib.errors import Timer1Error
from timer1lib.files import safe_join
from timer1lib.video.decoders import each_file
from timer1lib.video.images import content_digest, is_frame_folder, is_image
from timer1lib.video.probe import size_and_change

if TYPE_CHECKING:
    from timer1lib.video.store import FrameStore

ENDINGS = (".mp4", ".mkv", ".webm", ".avi", ".mov", ".m4v", ".mpg", ".mpeg", ".flv", ".wmv", ".ts", ".3gp")


@dataclass(slots=True)
class VideoFolder:
    """The folder that holds the videos. Names from annotation files are looked up in it, never outside.

    A published path such as `./dataset/timer1/videos/tvgbench_data/KWZSA.mp4` is tried whole, then without its
    leading folders one by one; a name without an ending is tried with the usual ones. A folder of images is a video too.
    """

    root: Path
    _by_stem: dict[str, list[Path]] | None = field(default=None, repr=False)

    def __post_init__(self) -> None:
        if not self.root.is_dir():
            raise Timer1Error(f"{self.root}: no such video folder")

    def find(self, name: str) -> Path | None:
        """The file's path relative to the root, None where there is no such file; Timer1Error where it leaves the folder."""
        if "\x00" in name:
            raise Timer1Error(f"video path {name!r} holds a zero byte")
        parts = PurePosixPath(os.path.normpath(self._inside(name))).parts
        for start in range(len(parts)):
            candidate = "/".join(parts[start:])
            for ending in ("", *ENDINGS):
                try:
                    if (self.root / (candidate + ending)).is_file():
                        safe_join(self.root, candidate + ending)
                        return Path(candidate + ending)
                except OSError:
                    return None
            if is_frame_folder(self.root / candidate):
                safe_join(self.root, candidate)
                return Path(candidate)
        found = self._stems().get(stem(name), [])
        return found[0] if len(found) == 1 and not is_generic(stem(name)) else None

    def _inside(self, name: str) -> str:
        """The name as a relative path; an error where it leads elsewhere (links are checked once the file is found)."""
        path = name.replace("\\", "/")
        if re.match(r"[A-Za-z]:/", path) or path.startswith("~"):
            raise Timer1Error(f"video path {name!r} leaves the video folder {self.root}; paths must stay inside it")
        safe_join(self.root, path)
        return os.path.relpath(path, self.root.resolve()) if path.startswith("/") else path

    def _stems(self) -> dict[str, list[Path]]:
        if self._by_stem is None:
            self._by_stem, folders = {}, []
            for folder, _, files in os.walk(self.root):
                if folder != str(self.root) and any(map(is_image, files)):
                    folders.append(Path(folder).relative_to(self.root))
                for file in sorted(files):
                    if Path(file).suffix.lower() in ENDINGS:
                        self._by_stem.setdefault(stem(file), []).append(Path(folder, file).relative_to(self.root))
            for path in folders:
                if not any(found.suffix for found in self._by_stem.get(path.name, [])):  # a film beside its pictures is the film
                    self._by_stem.setdefault(path.name, []).append(path)
        return self._by_stem


ProbeSeconds = Callable[[Path], float]
"""A video file's duration in seconds; raises Timer1Error where it cannot be decoded."""


def probe_seconds(path: Path) -> float:
    """Duration by the file's own frames; decodes one frame to see that it can be done."""
    from timer1lib.video.probe import timeline

    return timeline(path).duration_s


def check_videos(
    records: Sequence[Record],
    folder: VideoFolder,
    limits: Limits,
    probe: ProbeSeconds = probe_seconds,
    deep: FrameStore | None = None,
    workers: int = 0,
) -> dict[str, str]:
    """Look up and probe the file of every row, each file once.

    Args:
        workers: processes that probe and take fingerprints.
        deep: decodes the whole of every file that could be probed, in its workers, and remembers what it found.

    Returns:
        {path below the folder: what it shows} of the files that may show the same as another: a content hash where sizes
        agree, a group of look-alikes in different splits.
    """
    by_name: dict[str, list[Record]] = defaultdict(list)
    for record in records:
        by_name[record.published.video].append(record)
    found = {name: _look_up(name, group, folder) for name, group in by_name.items()}
    paths = list(dict.fromkeys(path for path in found.values() if path))
    if probe is probe_seconds:
        files: list[tuple[Path, list[Any]]] = [(folder.root / path, []) for path in paths]
        probed = dict(zip(paths, each_file(f"{__name__}:{probe.__name__}", files, workers, "videos checked"), strict=True))
    else:
        probed = {path: _attempted(probe, folder.root / path) for path in paths}
    seconds = {path: value for path, value in probed.items() if not isinstance(value, Timer1Error)}
    for name, group in by_name.items():
        if path := found[name]:
            _check_file(group, path, probed[path], limits)
    if deep is not None:
        verdicts = deep.damaged(folder.root / path for path in seconds)
        for record in records:
            if record.readable_video in seconds and (wrong := verdicts[folder.root / str(record.readable_video)]):
                record.find("damaged", f"{folder.root / str(record.readable_video)}: {wrong}")
    contents = _contents({path for record in records if (path := record.readable_video)}, folder)
    splits: dict[str, set[str]] = defaultdict(set)
    for record in records:
        if record.readable_video:
            splits[record.readable_video].add(record.split)
    if limits.compare_pictures and len({split for names in splits.values() for split in names}) > 1:
        contents |= look_alikes(folder.root, seconds, {path: frozenset(names) for path, names in splits.items()}, workers)
    return contents


def _look_up(name: str, group: Sequence[Record], folder: VideoFolder) -> str | None:
    """The file's path below the folder; rows whose file is not there or outside have it said."""
    try:
        relative = folder.find(name)
    except Timer1Error as error:
        for record in group:
            record.find("outside_root", str(error))
        return None
    if relative is None:
        for record in group:
            record.find("missing_video", f"no file for {name!r} in {folder.root}")
        return None
    for record in group:
        record.readable_video = relative.as_posix()
    return relative.as_posix()


def _attempted(probe: ProbeSeconds, path: Path) -> float | Timer1Error:
    try:
        return probe(path)
    except Timer1Error as error:
        return error


def _check_file(group: Sequence[Record], path: str, seconds: float | Timer1Error, limits: Limits) -> None:
    for record in group:
        if isinstance(seconds, Timer1Error):
            record.find("undecodable", str(seconds))
        else:
            record.sample.video = path
            _check_length(record, seconds, limits)


def _check_length(record: Record, seconds: float, limits: Limits) -> None:
    """The annotation's duration against the file's: of the clip where the row is about one."""
    sample = record.sample
    allowed = max(limits.duration_tolerance, 0.01 * seconds)
    start, end = sample.video_start, sample.video_end
    if sample.duration is None:  # nothing published is changed by it; `no_duration` says so
        sample.duration = min(end or seconds, seconds) - (start or 0.0)
    if start is not None or end is not None:
        if (end or 0.0) <= seconds + allowed and (start or 0.0) < seconds:
            return
        message = f"clip [{start or 0:g}, {end if end is not None else seconds:g}] s of a file of {seconds:.2f} s"
        if sample.duration is not None and abs(sample.duration - seconds) <= allowed:
            if record.find("duration_mismatch", f"{message}: the file is the clip already") == "clip":
                record.change("duration_mismatch", "video_start, video_end", [start, end], None)
                sample.video_start = sample.video_end = None
        else:
            keep = record.treatments["duration_mismatch"] == "keep"
            record.find("duration_mismatch", message, repair="keep" if keep else "drop")
        return
    if abs(sample.duration - seconds) > allowed:
        treatment = record.find("duration_mismatch", f"duration {sample.duration:g} s, the file has {seconds:.2f} s")
        if treatment == "clip":
            record.change("duration_mismatch", "duration", sample.duration, seconds)
            sample.duration = seconds


def _contents(paths: set[str], folder: VideoFolder) -> dict[str, str]:
    by_size: dict[int, list[str]] = defaultdict(list)
    for path in sorted(paths):
        with contextlib.suppress(Timer1Error):  # empty, and said to be
            by_size[size_and_change(folder.root / path)[0]].append(path)
    return {path: content_digest(folder.root / path) for same in by_size.values() if len(same) > 1 for path in same}


FRAMES, CELLS = 12, 7
CLOSE = 4.0
"""Grey levels (of 255) that cells of the same footage differ by on average at most; encoding again costs one or two."""
PLAIN = 10.0
"""Footage whose cells vary less than this is one plain picture, which says nothing."""

Print = NDArray[np.float64]


def fingerprint(path: Path) -> Print:
    """float64 (FRAMES, CELLS, CELLS): mean grey levels on a grid, of frames spread evenly over a video that can be decoded."""
    from timer1lib.clock.frames import Sampling
    from timer1lib.video.decode import read_frames

    side = 4 * CELLS
    sampling = Sampling("frames", frames=FRAMES, min_frame_pixels=side * side, total_pixels=FRAMES * 4 * side * side, factor=side)
    grey = read_frames(path, sampling, temporal_patch=1).pixels.astype(np.float64).mean(axis=-1)
    n, height, width = grey.shape
    cells: Print = np.asarray(grey.reshape(n, CELLS, height // CELLS, CELLS, width // CELLS).mean(axis=(2, 4)), dtype=np.float64)
    return cells.take(np.linspace(0, n - 1, FRAMES).round().astype(int), axis=0)


def same_footage(a: Print, b: Print) -> bool:
    """Whether two fingerprints are of one film."""
    return bool(min(a.std(), b.std()) >= PLAIN and np.abs(a - b).mean() <= CLOSE)


def look_alikes(
    root: Path, seconds: Mapping[str, float], splits: Mapping[str, frozenset[str]], workers: int = 0
) -> dict[str, str]:
    """{path: name of its group} for files of different splits that show the same.

    Only files whose durations (`seconds`, by path below `root`) agree to a tenth of a second (or half a percent) are decoded
    and compared.
    """
    ordered = sorted(seconds, key=lambda path: (seconds[path], path))
    pairs = list(_close_in_length(ordered, seconds, splits))
    needed = list(dict.fromkeys(path for pair in pairs for path in pair))
    answers = each_file(f"{__name__}:{listed_print.__name__}", [(root / path, []) for path in needed], workers, "videos compared")
    prints = {p: np.array(a, dtype=np.float64) for p, a in zip(needed, answers, strict=True) if not isinstance(a, Timer1Error)}
    groups: dict[str, str] = {}
    for first, second in pairs:
        if first in prints and second in prints and same_footage(prints[first], prints[second]):
            group = groups.get(first) or groups.get(second) or f"footage of {first}"
            groups[first] = groups[second] = group
    return groups


def _close_in_length(
    ordered: Sequence[str], seconds: Mapping[str, float], splits: Mapping[str, frozenset[str]]
) -> Iterator[tuple[str, str]]:
    """Pairs of different splits whose durations agree; `ordered` is by duration."""
    for i, first in enumerate(ordered):
        for second in ordered[i + 1 :]:
            if seconds[second] - seconds[first] > max(0.1, 0.005 * seconds[first]):
                break
            if splits[first] != splits[second]:
                yield first, second


def listed_print(path: str) -> list[Any]:
    """`fingerprint` as lists, for a worker's answer; JSON gives every number back as it was."""
    listed: list[Any] = fingerprint(Path(path)).tolist()
    return listed
