"""What SFT imitates: written completions read back as they were meant, a stronger model's filtered by rules."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from timer1lib.data.coldstart import COLD_TEMPLATES, Filter, from_annotations, from_template
from timer1lib.errors import Timer1Error
from timer1lib.parsing import parse
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
    (row,) = from_template([sample(start=3.04, end=9.96)], "brief", decimals=1)
    assert row["completion"] == "<think>seen from 3.0 to 10.0</think><answer>3.0 to 10.0</answer>"
    assert Sample.from_json({k: v for k, v in row.items() if k != "completion"}) == sample(start=3.04, end=9.96)


def test_thinking_names_the_time_ranges() -> None:
    (row,) = from_template([sample()], "timer1")
    text = row["completion"]
    assert "<timestep>3.00 to 9.50</timestep>" in text
    assert "From 0.00 to 3.00 seconds it does not happen yet." in text
    assert "From 9.50 to 30.00 seconds it is over." in text
    assert parse(text, "timer1").form
    (whole,) = from_template([sample(start=0.0, end=30.0)], "timer1")
    assert "not happen yet" not in whole["completion"]


@pytest.mark.parametrize(
    ("template", "policy"), [("brief", "timer1"), ("timer1", "timer1"), ("tvg_r1", "tvg_r1"), ("direct", "timelens")]
)
@settings(max_examples=60, deadline=None)
@given(start=st.floats(0, 500), length=st.floats(0.01, 500), query=st.text(max_size=40))
def test_every_template_is_read_back_by_its_parser(template: str, policy: Any, start: float, length: float, query: str) -> None:
    (row,) = from_template([sample(start=start, end=start + length, query=query, duration=2000.0)], template, policy=policy)
    read = parse(row["completion"], policy)
    assert read.span == (pytest.approx(start, abs=0.006), pytest.approx(start + length, abs=0.006))
    assert read.form


def test_a_draw_is_seeded_and_questions_stay_out() -> None:
    pool = [sample(i) for i in range(20)] + [sample(50, options=["a", "b"], answer=0), sample(51, windows=[])]
    first, again, other = (from_template(pool, "brief", 5, seed) for seed in (0, 0, 1))
    assert [row["id"] for row in first] == [row["id"] for row in again]
    assert [row["id"] for row in first] != [row["id"] for row in other]
    assert len(from_template(pool, "brief")) == 20
    assert len(first) == 5


def test_templates_that_cannot_be_read_back_are_refused(tmp_path: Path) -> None:
    (tmp_path / "t.txt").write_text("from {start} until {end}")
    with pytest.raises(Timer1Error, match="reads None"):
        from_template([sample()], str(tmp_path / "t.txt"))
    (tmp_path / "t.txt").write_text("<answer>{start}</answer>")
    with pytest.raises(Timer1Error, match="needs the fields"):
        from_template([sample()], str(tmp_path / "t.txt"))
    (tmp_path / "t.txt").write_text("<answer>{start} to {end}</answer> {mood}")
    with pytest.raises(Timer1Error, match="mood"):
        from_template([sample()], str(tmp_path / "t.txt"))
    with pytest.raises(Timer1Error, match=", ".join(COLD_TEMPLATES)):
        from_template([sample()], "nice")


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
    result = from_annotations(path, [sample(i) for i in range(5)], "timer1", Filter(0.5, True, 20, 300))
    assert [row["id"] for row in result.rows] == ["0", "4"]
    assert result.read == 6
    shares = {rule: (round(entry["alone"], 3), entry["left"]) for rule, entry in result.rules.items()}
    assert shares == {
        "belongs to a sample": (0.833, 5),
        "IoU >= 0.5": (0.6, 3),
        "form timer1": (0.8, 3),
        "20 to 300 characters": (0.8, 2),
    }
    assert len(from_annotations(path, [sample(i) for i in range(5)], "timelens", Filter(0.5, False, 0, 9999)).rows) == 4


def test_annotations_of_other_samples_are_an_error(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text('{"id": "x", "completion": "y"}\n')
    with pytest.raises(Timer1Error, match="belongs to a sample"):
        from_annotations(path, [sample()], "timer1", Filter())
    path.write_text('{"id": "x"}\n')
    with pytest.raises(Timer1Error, match="row 1: no completion"):
        from_annotations(path, [sample()], "timer1", Filter())
