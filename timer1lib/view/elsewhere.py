"""Predictions made elsewhere as a small run folder, so that everything that looks at runs can look at them."""

from __future__ import annotations

import logging
import re
from pathlib import Path

from timer1lib.data.readers import read_annotations
from timer1lib.data.video_checks import VideoFolder
from timer1lib.errors import Timer1Error
from timer1lib.evaluation.answers import match, read_answers
from timer1lib.files import atomic_write_json, atomic_write_jsonl
from timer1lib.runfolder import RunFolder
from timer1lib.schema import Sample

log = logging.getLogger(__name__)

SPLIT = "given"


def run_from_predictions(predictions: Path, annotations: Path, videos: Path, root: Path, format: str | None = None) -> RunFolder:
    """Write a run with the annotations as its only split and the predictions as its only checkpoint.

    Args:
        predictions: JSONL as `timer1 score` reads it.
        annotations: any format that the readers know.
        videos: folder of the video files; names without ending or with the publisher's folders are found in it.
        root: where the run goes; notes that are there already stay.

    Raises:
        Timer1Error: an unreadable file, no such folder, or no prediction about any of the samples.
    """
    answers = read_answers(predictions)
    read = read_annotations(annotations, format)
    samples = [sample for sample in read.samples if sample.windows]
    if not samples:
        raise Timer1Error(f"{annotations}: no sample with a window to look at")
    matched = match(samples, answers)
    if len(matched.unknown) == len(answers):
        raise Timer1Error(f"{predictions}: none of its {len(answers)} predictions is about a sample of {annotations}")
    folder = VideoFolder(videos)
    unseen = 0
    for sample in samples:
        found = folder.find(sample.video)
        unseen += found is None
        sample.video = str(found) if found is not None else sample.video
    if unseen:
        log.warning(
            "%d of %d samples have no file below %s: their timelines are shown without video", unseen, len(samples), videos
        )
    _unique_ids(samples)
    _durations(samples, videos)
    run = RunFolder(root)
    name = re.sub(r"[^A-Za-z0-9_-]+", "-", predictions.stem).strip("-") or "model"
    run.set_video_root(videos)
    run.write_samples(SPLIT, samples)
    atomic_write_json(run.data("splits.json"), {SPLIT: {"kind": "grounding", "n": len(samples)}})
    rows = []
    for sample, row in zip(samples, matched.rows, strict=True):
        if row is not None:
            row.id = sample.id
            rows.append(row.to_json())
    for old in (root / "predictions").glob("*.jsonl"):
        old.unlink()
    atomic_write_jsonl(run.predictions(name, SPLIT), rows)
    log.info("%s: %d samples, %d answered, %d predictions about no sample", root, len(samples), len(rows), len(matched.unknown))
    return run


def _durations(samples: list[Sample], videos: Path) -> None:
    """Fill in the lengths (seconds) that the annotations do not give, from the files."""
    from timer1lib.video.probe import probe

    known: dict[str, float | None] = {}
    for sample in samples:
        if sample.duration is not None:
            continue
        if sample.video_start is not None and sample.video_end is not None:
            sample.duration = sample.video_end - sample.video_start
            continue
        if sample.video not in known:
            path = videos / sample.video
            try:
                known[sample.video] = probe(path).duration_s if path.is_file() else None
            except Timer1Error as error:
                log.warning("%s", error)
                known[sample.video] = None
        whole = known[sample.video]
        sample.duration = whole - (sample.video_start or 0.0) if whole is not None else None


def _unique_ids(samples: list[Sample]) -> None:
    """Published ids are not always unique; predictions are already matched, so a suffix does no harm."""
    seen: dict[str, int] = {}
    for sample in samples:
        seen[sample.id] = seen.get(sample.id, 0) + 1
        if seen[sample.id] > 1:
            sample.id = f"{sample.id}#{seen[sample.id]}"
