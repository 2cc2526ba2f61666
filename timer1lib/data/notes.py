"""What a person saw while looking: a note per sample, saved with the run, read back by 01_curate as repairs."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from timer1lib.data.findings import Record
from timer1lib.errors import Timer1Error
from timer1lib.files import atomic_write_jsonl, read_jsonl
from timer1lib.forms import FORMS
from timer1lib.schema import Window

LABELS: tuple[str, ...] = ("wrong_label", "ambiguous", "note")
"""`wrong_label`: the window is wrong. `ambiguous`: more than one answer is right. `note`: text alone."""

_PROPOSAL = re.compile(r"[;,\s]*\bbetter \d+(?:\.\d+)? to \d+(?:\.\d+)?\s*$")


@dataclass(frozen=True, slots=True)
class Note:
    """One note; the label is `wrong_label`, `ambiguous` or free."""

    id: str
    label: str
    text: str
    drawn: Window | None = None
    """The window that the person drew on the timeline, in seconds."""

    @property
    def window(self) -> Window | None:
        """The corrected window in seconds: as drawn, or named in the text ("better 3.5 to 8.0")."""
        span = self.drawn or FORMS["timelens"].span(self.text)
        return span if span is not None and span[1] > span[0] else None

    def to_json(self) -> dict[str, Any]:
        return {"id": self.id, "label": self.label, "text": self.text}


def read_notes(path: str | Path) -> list[Note]:
    """Rows {id, label, text}; of several notes on one sample and label the last counts."""
    notes: dict[tuple[str, str], Note] = {}
    for row in read_jsonl(path, torn_tail=True):
        label = "_".join(str(row.get("label", "")).lower().replace("-", " ").split())
        note = Note(str(row.get("id", "")), label, str(row.get("text", "") or ""), _drawn(row.get("window")))
        notes[(note.id, label)] = note
    return list(notes.values())


def _drawn(value: Any) -> Window | None:
    if isinstance(value, list) and len(value) == 2 and all(isinstance(v, (int, float)) and math.isfinite(v) for v in value):
        return float(value[0]), float(value[1])
    return None


def notes_by_sample(path: Path) -> dict[str, Note]:
    """Notes by sample id; no file means no notes. Of several notes on a sample the last counts.

    Raises:
        Timer1Error: the file is not JSONL; names it and the line.
    """
    if not path.is_file():
        return {}
    return {note.id: note for note in read_notes(path)}


def save_note(path: Path, sample_id: str, label: str, text: str = "", window: Window | None = None) -> dict[str, Note]:
    """Put one note into the file (atomic), in place of the sample's old one; returns all notes by id.

    A proposed `window` (seconds) is written into the text as "better S to E", where 01_curate finds it. An empty
    label with no text takes the sample's note away.

    Raises:
        Timer1Error: unknown label, or a window that does not end after it starts.
    """
    text = text.strip()
    if window is not None:
        if not 0 <= window[0] < window[1]:
            raise Timer1Error(f"note on {sample_id!r}: window {list(window)} must end after it starts")
        said = f"better {window[0]:.2f} to {window[1]:.2f}"
        before = _PROPOSAL.sub("", text)
        text = f"{before}; {said}" if before else said
    if label and label not in LABELS:
        raise Timer1Error(f"note on {sample_id!r}: label {label!r} is none of {', '.join(LABELS)}")
    notes = notes_by_sample(path)
    if not label and not text:
        notes.pop(sample_id, None)
    else:
        notes[sample_id] = Note(sample_id, label or "note", text)
    atomic_write_jsonl(path, (note.to_json() for note in notes.values()))
    return notes


def apply_notes(records: Sequence[Record], notes: Sequence[Note]) -> list[str]:
    """Turn notes into findings. A wrong label with a corrected window takes that window under treatment `clip`, and also
    under `drop`: dropping is for labels that nobody corrected.

    Returns:
        ids of notes that no row has.
    """
    by_id: dict[str, list[Record]] = {}
    for record in records:
        by_id.setdefault(record.published.id, []).append(record)
    unknown = []
    for note in notes:
        if note.label not in ("wrong_label", "ambiguous"):
            continue
        if note.id not in by_id:
            unknown.append(note.id)
        for record in by_id.get(note.id, ()):
            said = f": {note.text[:80]!r}" if note.text else ""
            if note.label == "wrong_label" and note.window is not None and record.treatments["wrong_label"] != "keep":
                record.find(
                    "wrong_label", f"noted with a window of {note.window[0]:g} to {note.window[1]:g} s{said}", repair="clip"
                )
                record.change("wrong_label", "windows", [list(w) for w in record.sample.windows], [list(note.window)])
                record.sample.windows = [note.window]
            elif note.label == "wrong_label":
                repair = "keep" if record.treatments["wrong_label"] == "keep" else "drop"
                record.find("wrong_label", f"noted without a better window{said}", repair="keep" if repair == "keep" else "drop")
            else:
                record.find("ambiguous", f"noted{said}")
    return unknown
