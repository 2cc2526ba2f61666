"""Published formats of temporal grounding: one query, one or several windows in seconds."""

from __future__ import annotations

import contextlib
import csv
import re
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from timer1lib.data.readers.base import Companions, Fields, Reader, Row, RowError, kind
from timer1lib.data.readers.scan import Item
from timer1lib.schema import Sample

DIDEMO_SEGMENT = 5.0
"""Seconds of a DiDeMo segment; its videos are cut at 30 s."""


def has(*names: str) -> Callable[[Any], bool]:
    """A matcher: the row is an object with all of these fields."""
    return lambda value: isinstance(value, Mapping) and all(name in value for name in names)


# TVGBench: a JSON array; the window is the text "13.4-28.1"; start / end cut a clip out of the file.
_TVGBENCH = Fields(
    "path", "question", id="qid", type="qsemtype", source="dataset_name", clip=("start", "end"), extra="bins",
    expect="duration qsemtype dataset_name", severity="info",
)  # fmt: skip


def _tvgbench(row: Row, companions: Companions) -> Sample:
    if row.first("answer") is None:
        raise RowError("missing_field", "no answer")
    sample = _TVGBENCH(row, companions)
    sample.windows = [row.window("answer", row.data["answer"])]
    return sample


# TimeRFT (Time-R1's training set): a JSON array; `pred` and `difficulty` are the base model's answer and IoU in percent.
_TIMERFT = Fields(
    "video", "sentence", "timestamp", id="qid", clip=("video_start", "video_end"), extra="difficulty pred",
    expect="duration qid", severity="info",
)  # fmt: skip


def _timerft(row: Row, companions: Companions) -> Sample:
    sample = _TIMERFT(row, companions)
    qid = sample.id.split("|")
    sample.source = qid[1] if len(qid) >= 4 and qid[0] == "my" else ""
    return sample


# {video: {duration, timestamps, sentences}}: ActivityNet Captions, and Charades-STA in its JSON form.
def _captions_rows(item: Item) -> Iterator[Row | RowError]:
    value = item.value
    if not isinstance(value, Mapping):
        yield RowError("unreadable", f"the record of video {item.key!r} is {kind(value)}, not an object")
        return
    times, sentences = value.get("timestamps"), value.get("sentences")
    if not isinstance(times, list) or not isinstance(sentences, list):
        field = "timestamps" if not isinstance(times, list) else "sentences"
        yield RowError("missing_field" if field not in value else "unreadable", f"video {item.key!r} has no list of {field}")
        return
    for i in range(max(len(times), len(sentences))):
        row: dict[str, Any] = {"video": item.key, "duration": value.get("duration"), "index": i}
        if i < len(times):
            row["timestamp"] = times[i]
        if i < len(sentences):
            row["sentence"] = sentences[i]
        yield Row(row, item.line)


def _captions(row: Row, _: Companions) -> Sample:
    row.expect("duration", severity="warning")
    video = row.text("video")
    name = row.first("timestamp")
    if name is None:
        raise RowError("missing_field", f"video {video!r}: sentence {row.data['index']} has no timestamp")
    return Sample(
        id=f"{video}#{row.data['index']}",
        video=video,
        query=row.query("sentence").strip(),
        duration=row.number("duration"),
        windows=[row.window("timestamps", row.data["timestamp"])],
    )


def _is_captions(value: Any) -> bool:
    return isinstance(value, Mapping) and "timestamps" in value and ("sentences" in value or "duration" in value)


# Charades-STA as first published: lines "3MSZA 24.3 30.4##person turn a light on.", durations in a CSV beside it.
_CHARADES = re.compile(r"\s*(\S+)\s+(\S+)\s+(\S+)\s*##(.*)")


def _charades_rows(item: Item) -> Iterator[Row | RowError]:
    match = _CHARADES.fullmatch(str(item.value))
    if match is None:
        yield RowError("unreadable", "not of the form 'video start end##sentence'")
    else:
        yield Row({"video": match[1], "start": match[2], "end": match[3], "sentence": match[4].strip()}, item.line, textual=True)


def _charades(row: Row, companions: Companions) -> Sample:
    video = row.text("video")
    duration = companions.get(video)
    if duration is None:
        row.note("no_duration", "info", f"no duration of {video} in a CSV beside the file")
    start, end = row.as_number("start", row.data["start"]), row.as_number("end", row.data["end"])
    return Sample("", video, row.query("sentence"), duration, [(start, end)], source="charades")


def charades_durations(path: Path) -> Companions:
    """`{video: seconds}` from every CSV beside the file that has a column `id` (or `video`) and `length` (or `duration`)."""
    durations: Companions = {}
    for file in sorted(path.parent.glob("*.csv")):
        try:
            with open(file, newline="", encoding="utf-8-sig") as stream:
                table = csv.DictReader(stream)
                columns = set(table.fieldnames or ())
                name = next((c for c in ("id", "video", "video_id") if c in columns), None)
                length = next((c for c in ("length", "duration") if c in columns), None)
                if name is None or length is None:
                    continue
                for line in table:
                    with contextlib.suppress(TypeError, ValueError):
                        durations.setdefault(line[name], float(line[length]))
        except (OSError, UnicodeDecodeError, csv.Error):
            continue
    return durations


# Moment-DETR's JSONL, which lighthouse uses for TACoS, Charades and ActivityNet too: several windows a query.
_lighthouse = Fields("vid", "query", "relevant_windows", id="qid", expect="duration")


def _qvhighlights(row: Row, companions: Companions) -> Sample:
    sample = _lighthouse(row, companions)
    sample.source = "qvhighlights"
    sample.extra = row.extra("relevant_clip_ids", "saliency_scores")
    return sample


def _is_qvhighlights(value: Any) -> bool:
    return has("vid", "query")(value) and bool({"saliency_scores", "relevant_clip_ids"} & set(value))


# DiDeMo: a JSON array; `times` are several annotators' [first, last] segments of 5 s, the end included.
def _didemo(row: Row, _: Companions) -> Sample:
    times = row.data.get("times")
    if not isinstance(times, list) or not times:
        raise RowError("missing_field", "no times")
    votes: Counter[tuple[float, float]] = Counter()
    for pair in times:
        first, last = row.window("times", pair)
        if not (first.is_integer() and last.is_integer()):
            raise RowError("unreadable", f"times {[first, last]} are not segment numbers")
        votes[(first, last)] += 1
    first, last = votes.most_common(1)[0][0]  # of equally frequent ones the first in the file
    segments = row.number("num_segments")
    if segments is None:
        row.note("missing_field", "info", "no num_segments")
    return Sample(
        id=row.text_or("", "annotation_id"),
        video=row.text("video"),
        query=row.query("description"),
        duration=None if segments is None else segments * DIDEMO_SEGMENT,
        windows=[(first * DIDEMO_SEGMENT, (last + 1) * DIDEMO_SEGMENT)],
        source="didemo",
        extra={"annotators": [[f * DIDEMO_SEGMENT, (e + 1) * DIDEMO_SEGMENT] for f, e in votes.elements()]},
    )


# HiREST, moment retrieval: {prompt: {video.mp4: {relevant, clip, v_duration, bounds, steps}}}.
def _hirest_rows(item: Item) -> Iterator[Row | RowError]:
    if not isinstance(item.value, Mapping):
        yield RowError("unreadable", f"the record of prompt {item.key!r} is {kind(item.value)}, not an object of videos")
        return
    for video, record in item.value.items():
        if not isinstance(record, Mapping):
            yield RowError("unreadable", f"the record of video {video!r} is {kind(record)}, not an object")
        elif record.get("relevant", True) and record.get("clip", True):
            # Videos that are irrelevant to the prompt, or relevant as a whole, are no moment to retrieve.
            yield Row({**record, "video": video, "prompt": item.key}, item.line)


_hirest = Fields("video", "prompt", "bounds", duration="v_duration", origin="hirest", expect="v_duration")


def _is_hirest(value: Any) -> bool:
    return isinstance(value, Mapping) and any(
        isinstance(record, Mapping) and ("bounds" in record or "v_duration" in record) for record in value.values()
    )


def _is_timerft(value: Any) -> bool:
    return has("video", "timestamp", "sentence")(value) and bool({"qid", "difficulty", "video_start"} & set(value))


GROUNDING: dict[str, Reader] = {
    "tvgbench": Reader("TVGBench (Time-R1)", has("path", "question", "answer", "qsemtype"), _tvgbench),
    "timerft": Reader("TimeRFT, Time-R1's training set", _is_timerft, _timerft),
    "captions": Reader(
        "ActivityNet Captions; Charades-STA in JSON: {video: {duration, timestamps, sentences}}",
        _is_captions, _captions, _captions_rows, "map",
    ),
    "charades_sta": Reader(
        "Charades-STA's text, 'video start end##sentence', durations in a CSV beside it",
        lambda value: isinstance(value, str) and "##" in value, _charades, _charades_rows, "text", charades_durations,
    ),
    "qvhighlights": Reader("QVHighlights (Moment-DETR's JSONL with saliency)", _is_qvhighlights, _qvhighlights),
    "lighthouse": Reader("lighthouse's JSONL (TACoS, Charades, ...)", has("vid", "query", "relevant_windows"), _lighthouse),
    "didemo": Reader("DiDeMo: segments of 5 s, several annotators", has("description", "times", "video"), _didemo),
    "hirest": Reader("HiREST, moment retrieval", _is_hirest, _hirest, _hirest_rows, "map"),
}  # fmt: skip
