"""Windows to other tools and back: Label Studio's timeline labels and FiftyOne's temporal detections, as their JSON files.

Neither has to be installed. What comes back is notes: 01_curate reads them, and training data alone changes by them.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any, Literal

from timer1lib.data.notes import Note
from timer1lib.errors import Timer1Error
from timer1lib.files import read_json
from timer1lib.runfolder import RunFolder
from timer1lib.schema import Sample, Window

Tool = Literal["label-studio", "fiftyone"]
TOOLS: tuple[Tool, ...] = ("label-studio", "fiftyone")
LABEL = "event"
"""The one label of a timeline; which event it is says the task's query."""
LOCAL = "/data/local-files/?d="
"""Where Label Studio serves files of its own machine (LABEL_STUDIO_LOCAL_FILES_DOCUMENT_ROOT, the folder of the videos)."""
CONFIG = """<View>
  <Header value="$query"/>
  <Video name="video" value="$video" frameRate="$fps"/>
  <TimelineLabels name="windows" toName="video"><Label value="event"/></TimelineLabels>
</View>"""
"""The labelling interface that the tasks fit."""


@dataclass(frozen=True, slots=True)
class Labelled:
    """A sample with answers to it; `rate` is its video's frames a second (None: it cannot be read), `first` the clip's start in
    the file in seconds."""

    sample: Sample
    split: str
    rate: float | None
    answers: Mapping[str, Sequence[Window]] = field(default_factory=dict)

    @property
    def first(self) -> float:
        return self.sample.video_start or 0.0


def placed(run: RunFolder, sample: Sample, split: str, answers: Mapping[str, Sequence[Window]] | None = None) -> Labelled:
    """A run's sample with its video's frame rate."""
    from timer1lib.video.probe import timeline

    try:
        line = timeline(run.video(sample))
        rate = len(line.pts) / line.duration_s if line.duration_s > 0 else None
    except (Timer1Error, OSError):
        rate = None
    return Labelled(sample, split, rate, answers or {})


def frames_of(window: Window, first: float, rate: float) -> tuple[int, int]:
    """A window in seconds as first and last frame, counted from 1 and both inside."""
    start, end = ((edge + first) * rate for edge in window)
    return round(start) + 1, max(round(start) + 1, round(end))


def seconds_of(start: float, end: float, first: float, rate: float) -> Window:
    """`frames_of` backwards: the times at which the first frame appears and the last one goes."""
    return max(0.0, (start - 1) / rate - first), max(0.0, end / rate - first)


def label_studio(rows: Sequence[Labelled]) -> list[dict[str, Any]]:
    """A task a sample: the truth as its annotation, every answer as a prediction. Samples without a frame rate are left out."""
    tasks = []
    for row in rows:
        if row.rate is None:
            continue
        sample, rate, first = row.sample, row.rate, row.first

        def result(name: str, windows: Sequence[Window], rate: float = rate, first: float = first) -> list[dict[str, Any]]:
            made = []
            for i, window in enumerate(window for window in windows if window[1] > window[0]):
                start, end = frames_of(window, first, rate)
                value = {"ranges": [{"start": start, "end": end}], "timelinelabels": [LABEL]}
                place = {"from_name": "windows", "to_name": "video", "type": "timelinelabels"}
                made.append({"id": f"{name}-{i}", **place, "value": value})
            return made

        data = {"video": LOCAL + sample.video, "query": sample.query, "timer1_id": sample.id, "split": row.split}
        tasks.append(
            {
                "data": data | {"fps": round(rate, 6)},
                "annotations": [{"result": result("truth", sample.windows)}],
                "predictions": [
                    {"model_version": name, "result": result(name, windows)} for name, windows in row.answers.items()
                ],
            }
        )
    return tasks


def fiftyone(rows: Sequence[Labelled]) -> dict[str, Any]:
    """labels.json of a FiftyOneTemporalDetectionDataset: a list of detections a video, in seconds of the file.

    `attributes` say whose a detection is (`by`: "truth", or a checkpoint) and of which sample.
    """
    labels: dict[str, list[dict[str, Any]]] = {}
    for row in rows:
        found = labels.setdefault(PurePosixPath(row.sample.video).with_suffix("").as_posix(), [])
        for name, windows in {"truth": row.sample.windows, **row.answers}.items():
            for start, end in windows:
                attributes = {"by": name, "timer1_id": row.sample.id, "split": row.split}
                times = [round(start + row.first, 6), round(end + row.first, 6)]
                found.append({"label": row.sample.query, "timestamps": times, "attributes": attributes})
    return {"labels": labels}


def read_labels(path: Path, rows: Sequence[Labelled]) -> list[Note]:
    """What a person changed in Label Studio or FiftyOne, as notes on the samples whose windows are others there.

    One other window: `wrong_label` with it. Several where there was one: `ambiguous`. None at all: `wrong_label` without a better
    window. What differs by less than a frame has not been changed.

    Args:
        path: Label Studio's export (JSON or JSON-MIN), FiftyOne's labels.json, or its samples as JSON.

    Raises:
        Timer1Error: another format; labels that name none of the samples.
    """
    value = read_json(path)
    tool, found = _windows(value, path, rows)
    if not found:
        raise Timer1Error(f"{path}: its labels name none of the {len(rows)} samples (by timer1_id)")
    known = {row.sample.id: row for row in rows}
    notes = []
    for identity, windows in found.items():
        row = known[identity]
        slack = 1.001 / (row.rate or 25.0)
        own = sorted(row.sample.windows)
        pairs = zip(own, sorted(windows), strict=False)
        if len(own) == len(windows) and all(abs(x - y) <= slack for a, b in pairs for x, y in zip(a, b, strict=True)):
            continue
        said = f"from {tool}"
        if len(windows) == 1:
            notes.append(Note(identity, "wrong_label", said, (round(windows[0][0], 3), round(windows[0][1], 3))))
        elif windows:
            listed = ", ".join(f"{start:g} to {end:g} s" for start, end in sorted(windows))
            notes.append(Note(identity, "ambiguous", f"{said}: {len(windows)} windows, {listed}"))
        else:
            notes.append(Note(identity, "wrong_label", f"{said}: no window is left"))
    return notes


def _windows(value: Any, path: Path, rows: Sequence[Labelled]) -> tuple[str, dict[str, list[Window]]]:
    """The tool's name and {sample: its windows there, seconds of the clip}; a sample that a file is about may have none."""
    known = {row.sample.id: row for row in rows}
    try:
        if isinstance(value, list):
            return "Label Studio", dict(_of_tasks(value, known))
        if isinstance(value, dict) and ("labels" in value or "samples" in value):
            return "FiftyOne", _of_detections(value, known)
    except (KeyError, TypeError, ValueError, AttributeError, IndexError) as error:
        raise Timer1Error(f"{path}: not an export of Label Studio or FiftyOne: {error!r}"[:300]) from error
    raise Timer1Error(f"{path}: neither tasks of Label Studio (a list) nor labels of FiftyOne (an object with labels or samples)")


def _of_tasks(tasks: list[Any], known: Mapping[str, Labelled]) -> Iterator[tuple[str, list[Window]]]:
    for task in tasks:
        data = task.get("data", task)
        row = known.get(str(data.get("timer1_id", "")))
        if row is None:
            continue
        if "annotations" in task:
            done = [entry for entry in task["annotations"] if not entry.get("was_cancelled")]
            if not done:
                continue  # nobody has looked at it
            values = [result["value"] for result in done[-1]["result"]]
        else:  # JSON-MIN
            values = [entry for name in ("windows", "videoLabels") for entry in task.get(name) or []]
        rate = float(data.get("fps") or row.rate or 0)
        windows = []
        for value in values:
            if "ranges" in value:
                if not rate:
                    raise ValueError(f"task of {row.sample.id} has no fps")
                windows += [seconds_of(float(part["start"]), float(part["end"]), row.first, rate) for part in value["ranges"]]
            elif "start" in value and "end" in value:  # labels on an audio track are in seconds
                windows.append((float(value["start"]) - row.first, float(value["end"]) - row.first))
        yield row.sample.id, windows


def _of_detections(value: Mapping[str, Any], known: Mapping[str, Labelled]) -> dict[str, list[Window]]:
    if "labels" in value:
        groups = list(value["labels"].values())
    else:
        fields = [entry for sample in value["samples"] for entry in sample.values() if isinstance(entry, dict)]
        groups = [entry["detections"] for entry in fields if entry.get("_cls") == "TemporalDetections"]
    found: dict[str, list[Window]] = {}
    for detection in (detection for group in groups for detection in group or ()):
        facts = {**detection, **(detection.get("attributes") or {})}
        row = known.get(str(facts.get("timer1_id", "")))
        if row is None:
            continue
        windows = found.setdefault(row.sample.id, [])
        if facts.get("by", "truth") != "truth":
            continue
        if "timestamps" in facts:
            start, end = (float(edge) - row.first for edge in facts["timestamps"])
            windows.append((max(0.0, start), end))
        elif row.rate is None:
            raise ValueError(f"frames of {row.sample.id}, and its video cannot be read")
        else:
            first, last = map(float, facts["support"])
            windows.append(seconds_of(first, last, row.first, row.rate))
    return found
