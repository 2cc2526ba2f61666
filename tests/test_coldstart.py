"""What SFT imitates: written completions read back as they were meant, a stronger model's filtered by rules."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from timer1lib import forms
from timer1lib.data.coldstart import Filter, from_annotations, from_form
from timer1lib.errors import Timer1Error
from timer1lib.forms import FORMS
from timer1lib.schema import Sample


def sample(i: int = 0, start: float = 3.0, end: float = 9.5, **change: Any) -> Sample:
    fields: dict[str, Any] = {
        "id": str(i),
        "video": f"v{i}.mp4",
        "query": "a dog runs.",
        "duration": 30.0,
        "windows": [(start, end)],
        **change,
    }
    return Sample(**fields)


def test_the_tiny_models_form_is_exact() -> None:
    (row,) = from_form([sample(start=3.04, end=9.96)], FORMS["brief"])
    assert row["completion"] == "<think>seen from 3.0 to 10.0</think><answer>3.0 to 10.0</answer>"
    assert Sample.from_json({k: v for k, v in row.items() if k != "completion"}) == sample(start=3.04, end=9.96)


def test_thinking_names_the_time_ranges() -> None:
    (row,) = from_form([sample()], FORMS["timer1"])
    text = row["completion"]
    assert "<timestep>3.00 to 9.50</timestep>" in text
    assert "From 0.00 to 3.00 seconds it does not happen yet." in text
    assert "From 9.50 to 30.00 seconds it is over." in text
    assert FORMS["timer1"].fits(text)
    (whole,) = from_form([sample(start=0.0, end=30.0)], FORMS["timer1"])
    assert "not happen yet" not in whole["completion"]


@pytest.mark.parametrize("name", [name for name, form in FORMS.items() if form.written])
@settings(max_examples=60, deadline=None)
@given(start=st.floats(0, 500), length=st.floats(0.01, 500), query=st.text(max_size=40))
def test_every_form_reads_what_it_writes(name: str, start: float, length: float, query: str) -> None:
    form = FORMS[name]
    (row,) = from_form([sample(start=start, end=start + length, query=query, duration=2000.0)], form)
    off = 0.501 * 10**-form.decimals
    assert form.span(row["completion"]) == (pytest.approx(start, abs=off), pytest.approx(start + length, abs=off))
    assert form.fits(row["completion"])


def test_a_draw_is_seeded_and_questions_stay_out() -> None:
    pool = [sample(i) for i in range(20)] + [sample(50, options=["a", "b"], answer=0), sample(51, windows=[])]
    first, again, other = (from_form(pool, FORMS["brief"], 5, seed) for seed in (0, 0, 1))
    assert [row["id"] for row in first] == [row["id"] for row in again]
    assert [row["id"] for row in first] != [row["id"] for row in other]
    assert len(from_form(pool, FORMS["brief"])) == 20
    assert len(first) == 5


def test_a_form_that_does_not_read_what_it_writes_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "f.yaml"
    path.write_text("write: from {start} until {end}\n")
    with pytest.raises(Timer1Error, match="is read as None"):
        from_form([sample()], forms.load(str(path)))
    with pytest.raises(Timer1Error, match=r"'grounded_qa' has no `write`.*curate\.cold_start"):
        from_form([sample()], FORMS["grounded_qa"])


def test_a_stronger_models_annotations_are_filtered_by_each_rule(tmp_path: Path) -> None:
    good = "<think>I see it between 3 and 9 seconds.</think><answer>3.0 to 9.5</answer>"
    rows = [
        {"id": "0", "completion": good},
        {"id": "1", "completion": good.replace("3.0 to 9.5", "20 to 25")},
        {"id": "2", "response": "3.0 to 9.5 I would say, without any form at all"},
        {"id": "3", "completion": good.replace("I see it", "x" * 500)},
        {"video": "v4.mp4", "query": "a dog runs.", "completion": good},
        {"id": "99", "completion": good},
    ]
    path = tmp_path / "a.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    result = from_annotations(path, [sample(i) for i in range(5)], FORMS["timer1"], Filter(0.5, True, 20, 300))
    assert [row["id"] for row in result.rows] == ["0", "4"]
    assert result.read == 6
    shares = {rule: (round(entry["alone"], 3), entry["left"]) for rule, entry in result.rules.items()}
    assert shares == {
        "belongs to a sample": (0.833, 5),
        "IoU >= 0.5": (0.6, 3),
        "form timer1": (0.8, 3),
        "20 to 300 characters": (0.8, 2),
    }
    assert len(from_annotations(path, [sample(i) for i in range(5)], FORMS["timelens"], Filter(0.5, False, 0, 9999)).rows) == 4


def test_annotations_of_other_samples_are_an_error(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text('{"id": "x", "completion": "y"}\n')
    with pytest.raises(Timer1Error, match="belongs to a sample"):
        from_annotations(path, [sample()], FORMS["timer1"], Filter())
    path.write_text('{"id": "x"}\n')
    with pytest.raises(Timer1Error, match="row 1: no completion"):
        from_annotations(path, [sample()], FORMS["timer1"], Filter())
