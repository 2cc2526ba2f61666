"""What a person saw while looking: a note per sample, saved with the run, read back by 01_curate as repairs."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from timer1lib.data.notes import Note
from timer1lib.data.notes import read_notes as read_all
from timer1lib.errors import Timer1Error
from timer1lib.files import atomic_write_jsonl
from timer1lib.schema import Window

LABELS: tuple[str, ...] = ("wrong_label", "ambiguous", "note")
"""`wrong_label`: the window is wrong. `ambiguous`: more than one answer is right. `note`: text alone."""

_PROPOSAL = re.compile(r"[;,\s]*\bbetter \d+(?:\.\d+)? to \d+(?:\.\d+)?\s*$")


def read_notes(path: Path) -> dict[str, Note]:
    """Notes by sample id; no file means no notes. Of several notes on a sample the last counts.

    Raises:
        Timer1Error: the file is not JSONL; names it and the line.
    """
    if not path.is_file():
        return {}
    return {note.id: note for note in read_all(path)}


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
    notes = read_notes(path)
    if not label and not text:
        notes.pop(sample_id, None)
    else:
        notes[sample_id] = Note(sample_id, label or "note", text)
    atomic_write_jsonl(path, (to_json(note) for note in notes.values()))
    return notes


def to_json(note: Note) -> dict[str, Any]:
    return {"id": note.id, "label": note.label, "text": note.text}
