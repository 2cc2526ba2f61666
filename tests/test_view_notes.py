"""Notes: written by a person who looks, read back by 01_curate."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from timer1lib.data.audit import audit_results
from timer1lib.data.notes import notes_by_sample, read_notes, save_note
from timer1lib.data.readers import ReadResult
from timer1lib.errors import Timer1Error
from timer1lib.schema import Sample


def test_a_proposed_window_reaches_01_curate(tmp_path: Path) -> None:
    path = tmp_path / "notes.jsonl"
    save_note(path, "a", "wrong_label", "starts too early", (3.4561, 8.0))
    save_note(path, "b", "ambiguous")
    (first, second) = read_notes(path)
    assert (first.id, first.label, first.text, first.window) == ("a", "wrong_label", "starts too early", (3.456, 8.0))
    assert (second.id, second.label, second.window) == ("b", "ambiguous", None)


def test_a_new_note_takes_the_old_ones_place(tmp_path: Path) -> None:
    path = tmp_path / "notes.jsonl"
    save_note(path, "a", "wrong_label", "x", (1.0, 2.0))
    notes = save_note(path, "a", "wrong_label", "y", (1.5, 2.5))
    assert (notes["a"].text, notes["a"].window) == ("y", (1.5, 2.5))
    assert save_note(path, "a", "wrong_label", "y")["a"].window is None
    assert len(path.read_text().splitlines()) == 1
    assert save_note(path, "a", "", "  ") == {}
    assert notes_by_sample(path) == {}


def test_bad_notes_are_refused_and_nothing_is_lost(tmp_path: Path) -> None:
    path = tmp_path / "notes.jsonl"
    save_note(path, "a", "note", "kept")
    with pytest.raises(Timer1Error, match="'b'"):
        save_note(path, "b", "nonsense")
    with pytest.raises(Timer1Error, match="end after the start"):
        save_note(path, "b", "wrong_label", "", (3.0, 3.0))
    for window in ([1.0], [1.0, float("nan")], "1-2", [True, 2], [-1.0, 2.0]):
        with pytest.raises(Timer1Error, match="window must be"):
            save_note(path, "b", "wrong_label", "", window)
    assert list(notes_by_sample(path)) == ["a"]


@pytest.mark.parametrize(
    "text", ["see people 2, 3 and shots 7-9", "better 3.5 to 8.0", "<answer>1 to 2</answer>", "0:03 to 0:08"]
)
def test_free_text_is_never_read_as_a_window(tmp_path: Path, text: str) -> None:
    """Files of before the field have text alone: it stays text."""
    (tmp_path / "notes.jsonl").write_text(json.dumps({"id": "a", "label": "wrong_label", "text": text}) + "\n")
    samples = [Sample("a", "v.mp4", "a disc appears", 30.0, [(1.0, 5.0)])]
    lines = list(range(1, len(samples) + 1))
    result = ReadResult("train", "timer1", samples, [], len(samples), lines, lines)
    report = audit_results([result], notes=read_notes(tmp_path / "notes.jsonl"), treatments={"wrong_label": "clip"})
    assert report.changes == []
    assert save_note(tmp_path / "other.jsonl", "a", "wrong_label", text)["a"].to_json() == {
        "id": "a", "label": "wrong_label", "text": text, "window": None,
    }  # fmt: skip


def test_a_window_that_is_none_names_its_line(tmp_path: Path) -> None:
    path = tmp_path / "notes.jsonl"
    path.write_text('{"id": "a", "label": "note"}\n{"id": "b", "label": "wrong_label", "window": [8, 4]}\n')
    with pytest.raises(Timer1Error, match=r"notes\.jsonl, line 2: window must be"):
        read_notes(path)


def test_no_file_is_no_notes(tmp_path: Path) -> None:
    assert notes_by_sample(tmp_path / "notes.jsonl") == {}
