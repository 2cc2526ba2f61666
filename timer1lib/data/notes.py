"""What a person saw while looking: a note per sample, saved with the run, read back by 01_curate as repairs."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from timer1lib.data.findings import Record
from timer1lib.errors import Timer1Error
from timer1lib.files import atomic_write_jsonl, read_numbered
from timer1lib.schema import Window

LABELS: tuple[str, ...] = ("wrong_label", "ambiguous", "note")
"""`wrong_label`: the window is wrong. `ambiguous`: more than one answer is right. `note`: text alone."""


@dataclass(frozen=True, slots=True)
class Note:
    """One note. `text` is for people and never read as times; `window` is the one proposed, in seconds."""

    id: str
    label: str
    text: str
    window: Window | None = None

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


def read_notes(path: str | Path) -> list[Note]:
    """Rows {id, label, text, window: [start, end] or null or not there}; the last of several on one sample and label counts.

    A Timer1Error names the file and the line that is not JSON or whose window is none.
    """
    notes: dict[tuple[str, str], Note] = {}
    for line, row in read_numbered(path, torn_tail=True):
        label = "_".join(str(row.get("label", "")).lower().replace("-", " ").split())
        window = _window(row.get("window"), f"{path}, line {line}")
        note = Note(str(row.get("id", "")), label, str(row.get("text", "") or ""), window)
        notes[(note.id, label)] = note
    return list(notes.values())


def _window(value: Any, where: str) -> Window | None:
    if value is None:
        return None
    numbers = isinstance(value, (list, tuple)) and all(isinstance(v, (int, float)) and not isinstance(v, bool) for v in value)
    if not numbers or len(value) != 2 or not 0 <= value[0] < value[1] or not math.isfinite(value[1]):
        raise Timer1Error(f"{where}: window must be [start, end] in seconds, with the end after the start, not {value!r}"[:300])
    return float(value[0]), float(value[1])


def notes_by_sample(path: Path) -> dict[str, Note]:
    """`read_notes` by sample id; no file means no notes. Of several notes on a sample the last counts."""
    return {note.id: note for note in read_notes(path)} if path.is_file() else {}


def save_note(path: Path, sample_id: str, label: str, text: str = "", window: Any = None) -> dict[str, Note]:
    """Put one note into the file (atomic), in place of the sample's old one; returns all notes by id.

    An empty label with neither text nor `window` (start and end in seconds) takes the sample's note away; an unknown label
    or a window that does not end after it starts is a Timer1Error.
    """
    text, where = text.strip(), f"note on {sample_id!r}"
    span = _window(window, where)
    if label and label not in LABELS:
        raise Timer1Error(f"{where}: label {label!r} is none of {', '.join(LABELS)}")
    notes = notes_by_sample(path)
    if label or text or span:
        notes[sample_id] = Note(sample_id, label or "note", text, span and (round(span[0], 3), round(span[1], 3)))
    else:
        notes.pop(sample_id, None)
    atomic_write_jsonl(path, (note.to_json() for note in notes.values()))
    return notes


def apply_notes(records: Sequence[Record], notes: Sequence[Note]) -> list[str]:
    """Turn notes into findings. A wrong label with a proposed window takes that window under treatment `clip`, and also
    under `drop`: dropping is for labels that nobody corrected. Under `keep` the note is listed and changes nothing.

    Returns ids of notes that no row has.
    """
    by_id: dict[str, list[Record]] = {}
    for record in records:
        by_id.setdefault(record.published.id, []).append(record)
    asking = [note for note in notes if note.label in ("wrong_label", "ambiguous")]
    for note in asking:
        said = f": {note.text[:80]!r}" if note.text else ""
        proposed = f" with a window of {note.window[0]:g} to {note.window[1]:g} s" if note.window else ""
        for record in by_id.get(note.id, ()):
            listed = " (listed only)" if record.treatments[note.label] == "keep" else ""
            if note.label == "ambiguous":
                record.find("ambiguous", f"noted{listed}{said}")
            elif note.window is None or listed:
                without = proposed or " without a better window"
                record.find("wrong_label", f"noted{without}{listed}{said}", repair="keep" if listed else "drop")
            else:
                record.find("wrong_label", f"noted{proposed}{said}", repair="clip")
                record.change("wrong_label", "windows", [list(w) for w in record.sample.windows], [list(note.window)])
                record.sample.windows = [note.window]
    return [note.id for note in asking if note.id not in by_id]
