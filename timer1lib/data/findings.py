"""What can be wrong with an annotation, under one code each: how bad it is and what may be done about it; and a row on its
way through the audit, with what was found in it and what was changed.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from timer1lib.errors import Timer1Error
from timer1lib.schema import Sample

Severity = Literal["error", "warning", "info"]
Treatment = Literal["keep", "clip", "swap", "drop"]


@dataclass(frozen=True, slots=True)
class Code:
    """One kind of flaw. `default` is the treatment where none is given; `allowed` the ones that make sense."""

    severity: Severity
    default: Treatment
    allowed: tuple[Treatment, ...]
    meaning: str


CODES: dict[str, Code] = {
    # Rows that cannot be read as a sample at all.
    "unreadable": Code("error", "drop", ("drop",), "the row is not readable: broken JSON, wrong type, not UTF-8"),
    "missing_field": Code("warning", "keep", ("keep", "drop"), "a field that this format has is absent"),
    "no_duration": Code("info", "keep", ("keep", "drop"), "the row names no duration; the video file's own is taken"),
    "text_number": Code("warning", "keep", ("keep", "drop"), "a number is written as text; it is read as a number"),
    # Windows and durations.
    "past_end": Code("error", "clip", ("keep", "clip", "drop"), "the window reaches past the end of the video"),
    "reversed": Code("error", "swap", ("keep", "swap", "drop"), "the window ends before it starts"),
    "empty_window": Code("error", "drop", ("keep", "drop"), "start equals end: no answer can score"),
    "negative": Code("error", "clip", ("keep", "clip", "drop"), "the window starts before the video does"),
    "not_finite": Code("error", "drop", ("drop",), "a time is NaN or endless"),
    "bad_duration": Code("error", "drop", ("keep", "drop"), "the duration is zero or negative"),
    "bad_clip": Code("error", "drop", ("keep", "drop"), "video_start / video_end are no clip, or disagree with the duration"),
    "short_window": Code("info", "keep", ("keep", "drop"), "the window is too short to be seen at usual frame rates"),
    "whole_video": Code("info", "keep", ("keep", "drop"), "the window is (nearly) the whole video: nothing to ground"),
    # Queries and answers.
    "bad_query": Code("error", "drop", ("keep", "drop"), "the query is empty, or holds no word"),
    "audio_query": Code("info", "keep", ("keep", "drop"), "the query speaks of something that only can be heard"),
    "bad_answer": Code("error", "drop", ("keep", "drop"), "the answer is not one of the options"),
    # Rows against each other.
    "duplicate": Code("warning", "drop", ("keep", "drop"), "the same query on the same video stands there again"),
    "conflicting_windows": Code("warning", "keep", ("keep", "drop"), "one query on one video has different windows"),
    "near_duplicate": Code("info", "keep", ("keep", "drop"), "nearly the same query and window on the same video"),
    "duplicate_id": Code("warning", "clip", ("clip", "drop"), "two rows share an id; clip gives the later one a new id"),
    "leakage": Code("error", "drop", ("keep", "drop"), "one video stands in two splits; drop takes it out of the training one"),
    "shared_source": Code("info", "keep", ("keep", "drop"), "different clips of one source video stand in two splits"),
    # Rows against the video files.
    "missing_video": Code("error", "drop", ("keep", "drop"), "the video file is not in the video folder"),
    "outside_root": Code("error", "drop", ("drop",), "the video path leaves the video folder"),
    "undecodable": Code("error", "drop", ("keep", "drop"), "the video file cannot be decoded"),
    "damaged": Code("error", "drop", ("keep", "drop"), "frames of the video are missing or corrupt (deep check)"),
    "duration_mismatch": Code(
        "warning", "clip", ("keep", "clip", "drop"), "the duration is not the file's; clip takes the file's"
    ),
    # Notes that a person left while looking at errors (06_inspect).
    "wrong_label": Code(
        "warning", "drop", ("keep", "clip", "drop"), "a person noted a wrong label; clip takes the window of the note"
    ),
    "ambiguous": Code("warning", "drop", ("keep", "drop"), "a person noted that the query fits several moments"),
}


@dataclass(slots=True)
class Finding:
    """One flaw of one row.

    `row` counts the rows of a file from 1; `line` is the line it starts on. `repair` is what the treatment proposes
    (keep, clip, swap, drop); `audit` carries it out on copies and never on the file.
    """

    code: str
    message: str
    file: str = ""
    row: int | None = None
    line: int | None = None
    id: str = ""
    severity: Severity = "error"
    repair: Treatment = "drop"
    count: int = 1
    """Rows that it is about: more than one where a whole file has the same flaw."""

    def __str__(self) -> str:
        return f"{self.where}: {self.code}: {self.message}"

    @property
    def where(self) -> str:
        """File, line and row: a file of one line holds many rows."""
        place = f"{self.file}, line {self.line}" if self.line is not None else self.file
        return place if self.row is None or self.row == self.line else f"{place} (row {self.row})"

    def to_json(self) -> dict[str, Any]:
        return {
            "code": self.code, "severity": self.severity, "file": self.file, "row": self.row, "line": self.line,
            "id": self.id, "message": self.message, "repair": self.repair,
            **({"count": self.count} if self.count != 1 else {}),
        }  # fmt: skip


def resolve_treatments(given: Mapping[str, str] | None = None) -> dict[str, Treatment]:
    """The default treatments with some replaced; a Timer1Error where a code is unknown or does not have a treatment."""
    treatments = {code: entry.default for code, entry in CODES.items()}
    for code, treatment in (given or {}).items():
        if code not in CODES:
            raise Timer1Error(f"audit treatment for {code!r}: no such finding; one of {', '.join(CODES)}")
        allowed = CODES[code].allowed
        if treatment not in allowed:
            raise Timer1Error(f"audit treatment {code}={treatment!r}: use one of {', '.join(allowed)}")
        treatments[code] = allowed[allowed.index(treatment)]
    return treatments


@dataclass(slots=True)
class Record:
    """`published` is never touched; `sample` is a copy that treatments repair."""

    published: Sample
    sample: Sample
    file: str
    row: int
    line: int
    treatments: Mapping[str, Treatment]
    findings: list[Finding] = field(default_factory=list)
    changes: list[dict[str, Any]] = field(default_factory=list)
    dropped_by: str | None = None
    own: Mapping[str, Code] = field(default_factory=dict)
    """Codes of a person's own checks."""
    readable_video: str | None = None
    """The video's path below the video folder, where one was given and the file was found."""

    @property
    def split(self) -> str:
        return self.published.split or self.file

    @property
    def fate(self) -> str:
        return "dropped" if self.dropped_by else "repaired" if self.changes else "kept"

    def find(self, code: str, message: str, *, repair: Treatment | None = None, severity: Severity | None = None) -> Treatment:
        """Note a flaw; returns the treatment to follow, and drops the row where that is `drop`."""
        treatment = repair or self.treatments[code]
        how_bad = severity or (self.own.get(code) or CODES[code]).severity
        self.findings.append(Finding(code, message, self.file, self.row, self.line, self.published.id, how_bad, treatment))
        if treatment == "drop":
            self.dropped_by = self.dropped_by or code
        return treatment

    def change(self, code: str, field_name: str, before: Any, after: Any) -> None:
        self.changes.append({"id": self.published.id, "code": code, "field": field_name, "before": before, "after": after})
