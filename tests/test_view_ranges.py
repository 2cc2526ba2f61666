"""Ranges named in a text: found where a person sees them, never an exception."""

from __future__ import annotations

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from timer1lib.forms import MAX_CHARACTERS
from timer1lib.view.items import linked_text, named_ranges


@pytest.mark.parametrize(
    ("text", "spans"),
    [
        ("from 3.2 to 8 seconds", [(3.2, 8.0)]),
        ("between 3 and 5s, then 6s - 9.5s", [(3.0, 5.0), (6.0, 9.5)]),
        ("[12.54, 17.83]", [(12.54, 17.83)]),
        ("<timestep>1.0 to 2.0</timestep>", [(1.0, 2.0)]),
        ("at 0:03 to 0:08", [(3.0, 8.0)]),
        ("1:02:03 - 1:02:05.5", [(3723.0, 3725.5)]),
        ("8 to 3", []),
        ("2 and 2", []),
        ("no time at all", []),
        ("version 1.2.3 to 4", []),
    ],
)
def test_ranges_as_a_person_reads_them(text: str, spans: list[tuple[float, float]]) -> None:
    assert [(r.start, r.end) for r in named_ranges(text)] == spans


def test_the_answer_is_told_from_the_thinking() -> None:
    text = "<think>maybe 1 to 2, or 3 to 4</think><answer>3.00 to 4.50</answer>"
    found = named_ranges(text)
    assert [r.kind for r in found] == ["thinking", "thinking", "answer"]
    assert text[found[2].first : found[2].last] == "3.00 to 4.50"
    assert [r.kind for r in named_ranges("<think>1 to 2</think> it is 3 to 4")] == ["thinking", "answer"]


@given(st.text(max_size=300) | st.text(alphabet="0123456789.: to-,[]s<>/", max_size=300))
def test_pieces_are_the_text_again(text: str) -> None:
    assert "".join(str(piece["text"]) for piece in linked_text(text)) == text[:MAX_CHARACTERS]
    assert all(r.end > r.start >= 0 for r in named_ranges(text))


def test_long_and_hostile_text_is_quick() -> None:
    started = time.perf_counter()
    for text in ("1" * 100_000, "1 " * 50_000, "1:" * 50_000, "1 to " * 20_000, "<answer>" * 12_000):
        named_ranges(text)
    assert time.perf_counter() - started < 2.0
