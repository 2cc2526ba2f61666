"""What a person saw while looking: a note per sample, kept with the run, read back by 01_curate as repairs."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from timer1lib.errors import Timer1Error
from timer1lib.files import atomic_write_jsonl, read_jsonl
from timer1lib.schema import Window

LABELS: tuple[str, ...] = ("wrong_label", "ambiguous", "note")
"""`wrong_label`: the window is wrong. `ambiguous`: more than one answer is right. `note`: text alone."""


@dataclass(frozen=True, slots=True)
class Note:
    """One sample's note. `window` is the window the person would give it, in seconds, where one was drawn."""

    id: str
    label: str
    text: str = ""
    window: Window | None = None

    def to_json(self) -> dict[str, Any]:
        row: dict[str, Any] = {"id": self.id, "label": self.label, "text": self.text}
        if self.window is not None:
            row["window"] = [round(self.window[0], 3), round(self.window[1], 3)]
        return row


def read_notes(path: Path) -> dict[str, Note]:
    """Notes by sample id; no file means no notes. A later row of the same id wins.

    Raises:
        Timer1Error: a row that is no note; names file and row.
    """
    if not path.is_file():
        return {}
    return {note.id: note for note in _checked(read_jsonl(path), path)}


def save_note(path: Path, note: Note) -> dict[str, Note]:
    """Put one note into the file (atomic), in place of the sample's old one; returns all notes.

    An empty label with no text takes the sample's note away.

    Raises:
        Timer1Error: unknown label, or a window that is no segment.
    """
    notes = read_notes(path)
    if not note.label and not note.text.strip():
        notes.pop(note.id, None)
    else:
        checked = Note(note.id, note.label or "note", note.text.strip(), note.window)
        _check(checked, str(path))
        notes[note.id] = checked
    atomic_write_jsonl(path, (kept.to_json() for kept in notes.values()))
    return notes


def _checked(rows: Iterable[dict[str, Any]], path: Path) -> Iterable[Note]:
    for number, row in enumerate(rows, 1):
        where = f"{path}, row {number}"
        try:
            window = row.get("window")
            note = Note(row["id"], row["label"], row.get("text", ""), (float(window[0]), float(window[1])) if window else None)
        except (KeyError, TypeError, ValueError, IndexError) as error:
            raise Timer1Error(f"{where}: not a note (id, label, text): {error!r}") from error
        _check(note, where)
        yield note


def _check(note: Note, where: str) -> None:
    if note.label not in LABELS:
        raise Timer1Error(f"{where}: label {note.label!r} is none of {', '.join(LABELS)}")
    if note.window is not None and not note.window[0] < note.window[1]:
        raise Timer1Error(f"{where}: window {list(note.window)} does not end after it starts")
