"""Our own sample rows, and plain JSONL or CSV with the usual names for the usual fields."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from timer1lib.data.readers.base import Companions, Reader, Row, RowError, answered, is_plain, strip_letter
from timer1lib.schema import Sample, Window

VIDEO = ("video", "vid", "video_path", "path", "video_id", "video_name", "file")
QUERY = ("query", "sentence", "question", "caption", "description", "text")
DURATION = ("duration", "video_duration", "length")
WINDOWS = ("windows", "relevant_windows", "window", "timestamp", "timestamps", "span", "segment", "gt", "glue")
IDS = ("id", "qid", "uid", "question_id", "annotation_id", "sample_id")
TYPE = ("type", "query_type", "qsemtype", "category", "task_type")
SOURCE = ("source", "dataset", "dataset_name")
CLIP_START, CLIP_END = ("video_start", "clip_start"), ("video_end", "clip_end")
STARTS, ENDS = ("start", "start_time", "t_start", "s"), ("end", "end_time", "t_end", "e")
OPTIONS = ("options", "candidates", "choices")
ANSWERS = ("answer", "ans", "label", "correct")

_KNOWN = {*VIDEO, *QUERY, *DURATION, *WINDOWS, *IDS, *TYPE, *SOURCE, *CLIP_START, *CLIP_END, *STARTS, *ENDS, *OPTIONS, *ANSWERS}
_KNOWN.add("split")


def _own(row: Row, _: Companions) -> Sample:
    row.expect("duration", severity="warning")
    question = row.data.get("options") is not None
    options = row.options("options") if question else None
    windows = row.data.get("windows")
    if windows in (None, []) and not question:
        raise RowError("missing_field", "no windows")
    extra = row.data.get("extra") or {}
    return Sample(
        id=row.text("id"),
        video=row.text("video"),
        query=row.query("query"),
        duration=row.number("duration"),
        windows=row.windows("windows", windows) if windows else [],
        type=row.text_or("", "type"),
        source=row.text_or("", "source"),
        split=row.text_or("", "split"),
        video_start=row.number("video_start"),
        video_end=row.number("video_end"),
        options=options,
        answer=answered(row, "answer", options) if options else None,
        extra={k: v for k, v in extra.items() if is_plain(v)} if isinstance(extra, Mapping) else {},
    )


def _plain(row: Row, _: Companions) -> Sample:
    if row.first(*DURATION) is None:
        row.note("no_duration", "info", f"no {DURATION[0]}")
    name = row.first(*OPTIONS)
    options = _options(row, name) if name else None
    extra = {k: v for k, v in row.data.items() if isinstance(k, str) and k not in _KNOWN and v is not None}
    return Sample(
        id=row.text_or("", *IDS),
        video=row.text(*VIDEO),
        query=row.query(*QUERY),
        duration=row.number(*DURATION),
        windows=_windows(row, required=options is None),
        type=row.text_or("", *TYPE),
        source=row.text_or("", *SOURCE),
        split=row.text_or("", "split"),
        video_start=row.number(*CLIP_START),
        video_end=row.number(*CLIP_END),
        options=None if options is None else [strip_letter(option) for option in options],
        answer=answered(row, row.first(*ANSWERS) or "answer", options) if options else None,
        extra={k: v for k, v in extra.items() if is_plain(v)},
    )


def _windows(row: Row, *, required: bool) -> list[Window]:
    name = row.first(*WINDOWS)
    if name is not None and row.data[name] != []:
        return row.windows(name, row.data[name])
    start, end = row.first(*STARTS), row.first(*ENDS)
    if start is not None and end is not None:
        return [(row.as_number(start, row.data[start]), row.as_number(end, row.data[end]))]
    if not required:
        return []
    if start is not None or end is not None:
        raise RowError("missing_field", f"{start or end} without {'end' if start else 'start'}")
    raise RowError("missing_field", "no window: neither windows / timestamp / span nor start and end")


def _options(row: Row, name: str) -> list[str]:
    """Options as a list; in CSV as text separated by `|`."""
    value = row.data[name]
    if row.textual and isinstance(value, str):
        options = [part.strip() for part in value.split("|")]
        if len(options) < 2:
            raise RowError("unreadable", f"{name} is {value[:40]!r}, not options separated by |")
        return options
    return row.options(name)


def _is_own(value: Any) -> bool:
    known = {*Sample.__slots__, "completion"}
    return isinstance(value, Mapping) and {"id", "video", "query", "windows"} <= set(value) <= known


def _is_plain(value: Any) -> bool:
    if not isinstance(value, Mapping) or not set(VIDEO) & set(value) or not set(QUERY) & set(value):
        return False
    return bool({*WINDOWS, *STARTS, *OPTIONS} & set(value))


PLAIN: dict[str, Reader] = {
    "timer1": Reader("our own sample rows", _is_own, _own),
    "jsonl": Reader("plain JSON or JSONL: video, query, windows / timestamp / start + end", _is_plain, _plain),
    "csv": Reader("CSV with a header: video, query, start, end, duration", _is_plain, _plain, textual=True),
}
