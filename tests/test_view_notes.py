"""Notes: written by a person who looks, read back by 01_curate."""

from __future__ import annotations

from pathlib import Path

import pytest

from timer1lib.data.notes import notes_by_sample, read_notes, save_note
from timer1lib.errors import Timer1Error


def test_a_proposed_window_reaches_01_curate(tmp_path: Path) -> None:
    path = tmp_path / "notes.jsonl"
    save_note(path, "a", "wrong_label", "starts too early", (3.456, 8.0))
    save_note(path, "b", "ambiguous")
    (first, second) = read_notes(path)
    assert (first.id, first.label, first.window) == ("a", "wrong_label", (3.46, 8.0))
    assert (second.id, second.label, second.window) == ("b", "ambiguous", None)


def test_a_new_note_takes_the_old_ones_place(tmp_path: Path) -> None:
    path = tmp_path / "notes.jsonl"
    save_note(path, "a", "wrong_label", "x", (1.0, 2.0))
    notes = save_note(path, "a", "wrong_label", "x; better 1.00 to 2.00", (1.5, 2.5))
    assert notes["a"].text == "x; better 1.50 to 2.50"
    assert len(path.read_text().splitlines()) == 1
    assert save_note(path, "a", "", "  ") == {}
    assert notes_by_sample(path) == {}


def test_bad_notes_are_refused_and_nothing_is_lost(tmp_path: Path) -> None:
    path = tmp_path / "notes.jsonl"
    save_note(path, "a", "note", "kept")
    with pytest.raises(Timer1Error, match="'b'"):
        save_note(path, "b", "nonsense")
    with pytest.raises(Timer1Error, match="end after it starts"):
        save_note(path, "b", "wrong_label", "", (3.0, 3.0))
    assert list(notes_by_sample(path)) == ["a"]


def test_no_file_is_no_notes(tmp_path: Path) -> None:
    assert notes_by_sample(tmp_path / "notes.jsonl") == {}
