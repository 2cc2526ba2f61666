"""A handful of rows of every annotation file of a recipe, with their videos: the user's own where they are here, else drawn."""

from __future__ import annotations

import csv
import io
import itertools
import json
import os
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

from timer1lib.data.readers import FORMATS, read_annotations, recognise
from timer1lib.data.readers.base import read_rows
from timer1lib.data.readers.scan import Item
from timer1lib.data.readers.source import Source, csv_header, open_source
from timer1lib.data.selection import published_rows
from timer1lib.data.video_checks import ENDINGS, VideoFolder
from timer1lib.errors import Timer1Error
from timer1lib.files import atomic_write_text
from timer1lib.rehearsal.layouts import LAYOUTS, QUESTIONS, durations_csv, layout_of
from timer1lib.schema import Sample
from timer1lib.world.render import write_video
from timer1lib.world.scene import sample_scene
from timer1lib.world.splits import scene_samples

SEEDS = 700_000_000
"""Seeds of the scenes that stand in for missing videos, apart from the workbook's own splits."""
LONG = 120.0
"""Seconds of a video above which a row is taken only where there is no shorter one."""


@dataclass(slots=True)
class Rows:
    """Where the handfuls lie: `files` by the entry of the recipe that they stand for; what was drawn and what is the user's."""

    folder: Path
    count: int
    files: dict[str, Path] = field(default_factory=dict)
    own_files: list[str] = field(default_factory=list)
    own_videos: int = 0
    drawn_videos: int = 0
    seeds: itertools.count[int] = field(default_factory=lambda: itertools.count(SEEDS))

    @property
    def videos(self) -> Path:
        return self.folder / "videos"

    def add(
        self, entry: str, path: Path, format: str, folder: VideoFolder | None, *, name: str = "",
        prefer: Callable[[Sample], bool] = lambda sample: True, published: bool = False,
    ) -> list[Sample]:  # fmt: skip
        """Take or draw a handful for the file `path`, known as `entry`; returns its samples as a reader sees them.

        Args:
            name: the split's, where the recipe gives one; it tells the layout of a file that is not here.
            prefer: rows that are taken first.
            published: only rows that bring a model's answer which is neither right nor wholly wrong.
        """
        target = self.folder / "data" / str(len(self.files)) / path.name
        if path.is_file():
            self._take(path, target, format, folder, prefer, published)
            self.own_files.append(entry)
        else:
            layout = "timerft" if published else layout_of(f"{name} {path.name}", format)
            samples = self._draw(layout)
            atomic_write_text(target, LAYOUTS[layout](samples))
            if layout == "charades_sta":
                atomic_write_text(target.with_name("lengths.csv"), durations_csv(samples))
        self.files[entry] = target
        return read_annotations(target, None if format == "auto" else format).samples

    def _draw(self, layout: str) -> list[Sample]:
        """Samples of scenes that are drawn now, each row on a video of its own."""
        made: list[Sample] = []
        durations = (30.0, 30.0) if layout == "didemo" else (8.0, 14.0)
        while len(made) < self.count:
            scene = sample_scene(next(self.seeds), 0.5, durations)
            for sample in scene_samples(scene, "qa_short" if layout in QUESTIONS else "train")[:1]:
                sample.video = f"drawn{scene.seed}.mp4"
                write_video(scene, self.videos / sample.video)
                self.drawn_videos += 1
                made.append(sample)
        return made

    def _take(
        self, path: Path, target: Path, format: str, folder: VideoFolder | None, prefer: Callable[[Sample], bool], published: bool
    ) -> None:
        source = open_source(path)
        name = recognise(source) if format == "auto" else format
        reader = FORMATS[name]
        beside = reader.companions(path)
        items = [item for item in source.items() if isinstance(item, Item)]
        found = [(item, read_rows([item], reader, name, str(path), beside).samples) for item in items]
        groups: dict[tuple[bool, bool, bool], list[tuple[Item, list[Sample]]]] = {}
        for item, samples in found:
            if samples and all(_is_sane(sample, published) for sample in samples):
                here = folder is not None and all(_found(folder, sample) for sample in samples)
                long = max(_seconds(sample) for sample in samples) > LONG
                groups.setdefault((not prefer(samples[0]), not here, long), []).append((item, samples))
        if not groups:
            raise Timer1Error(f"{path}: none of its {len(items)} rows can be rehearsed on (timer1 audit says what is wrong)")
        taken: list[tuple[Item, list[Sample]]] = []
        for key in sorted(groups):
            step = max(1, len(groups[key]) // self.count)
            for pair in groups[key][::step]:
                if sum(len(samples) for _, samples in taken) < self.count:
                    taken.append(pair)
        atomic_write_text(target, _same_container(source, [item for item, _ in taken]))
        for beside_it in [*path.parent.glob("*.csv"), path.parent / "subset_answers.json"]:
            if beside and beside_it.is_file() and beside_it != path:
                shutil.copyfile(beside_it, target.parent / beside_it.name)
        for sample in (sample for _, samples in taken for sample in samples):
            self._video(sample, folder)

    def _video(self, sample: Sample, folder: VideoFolder | None) -> None:
        found = _found(folder, sample) if folder else None
        if folder is not None and found is not None:
            target = self.videos / found
            if not target.exists():
                target.parent.mkdir(parents=True, exist_ok=True)
                try:
                    os.link(folder.root / found, target)
                except OSError:
                    shutil.copyfile(folder.root / found, target)
                self.own_videos += 1
            return
        name = PurePosixPath(sample.video.replace("\\", "/")).name
        target = self.videos / (name if name.lower().endswith(ENDINGS) else f"{name}.mp4")
        if target.exists():
            return
        seconds = _seconds(sample)
        made = target.with_name(f"{target.stem}.mp4")
        write_video(sample_scene(next(self.seeds), 0.5, (seconds, seconds)), made, fps=4 if seconds < 60 else 1)
        os.replace(made, target)
        self.drawn_videos += 1


def _found(folder: VideoFolder, sample: Sample) -> Path | None:
    try:
        return folder.find(sample.video)
    except Timer1Error:
        return None


def _seconds(sample: Sample) -> float:
    """How long a sample's file is at least."""
    last = max([sample.duration or 0.0, *(end for _, end in sample.windows)])
    return max((sample.video_start or 0.0) + last, sample.video_end or 0.0, 4.0)


def _is_sane(sample: Sample, published: bool) -> bool:
    """Whether a row is without the flaws for which 01 may drop it, and `published` ones for which 03 may."""
    if not any(c.isalpha() for c in sample.query) or (sample.duration is not None and sample.duration < 4):
        return False
    end = float("inf") if sample.duration is None else sample.duration
    if not all(0 <= a < b <= end and b - a < 0.9 * end for a, b in sample.windows):
        return False
    if published:
        iou = published_rows([sample])[0]["iou"]
        return iou is not None and 0.05 < iou < 0.7
    return True


def _same_container(source: Source, items: Sequence[Item]) -> str:
    """The rows in the container that they came in."""
    if source.container == "text":
        return "".join(f"{item.value}\n" for item in items)
    if source.container == "csv":
        stream = io.StringIO()
        table = csv.DictWriter(stream, csv_header(source), delimiter=source.delimiter, lineterminator="\n", extrasaction="ignore")
        table.writeheader()
        table.writerows(item.value for item in items)
        return stream.getvalue()
    if source.container == "lines":
        return "".join(json.dumps(item.value, ensure_ascii=False) + "\n" for item in items)
    if source.container == "array":
        return json.dumps([item.value for item in items], ensure_ascii=False)
    if source.row_lists:
        members: dict[str, list[object]] = {}
        for item in items:
            members.setdefault(item.member or source.row_lists[0], []).append(item.value)
        return json.dumps(members, ensure_ascii=False)
    return json.dumps({str(item.key): item.value for item in items}, ensure_ascii=False)
