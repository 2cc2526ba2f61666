"""Parsing is total, and reads what a person would read."""

from __future__ import annotations

import math
import re
import time

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from timer1lib.parsing import MAX_CHARACTERS, POLICIES, Policy, parse

THOUGHT = "<think>It sits down from 1 to 2.</think>"


@pytest.mark.parametrize(
    ("text", "policy", "span", "form"),
    [
        (f"{THOUGHT}<answer>12.54 to 17.83</answer>", "timer1", (12.54, 17.83), True),
        (f"  {THOUGHT}\n<answer> 12.54 and 17.83 </answer>\n", "timer1", (12.54, 17.83), True),
        ("<answer>1 to 2</answer> no, <answer>3 to 4</answer>", "timer1", (3.0, 4.0), False),
        ("<answer>1 to 2, or rather 5.5 to 6</answer>", "timer1", (5.5, 6.0), False),
        (f"{THOUGHT}<answer>9 to 3</answer>", "timer1", (9.0, 3.0), True),
        (f"{THOUGHT}<answer>no idea</answer>", "timer1", None, True),
        ("from 1 to 2", "timer1", None, False),
        ("<answer>1 to 2", "timer1", None, False),
        ("1 to 2</answer>", "timer1", None, False),
        ("<answer>5 - 6</answer>", "timer1", None, False),
        ("<answer>4.0s to 6.5s</answer>", "timer1", (4.0, 6.5), False),
        (f"{THOUGHT}{THOUGHT}<answer>1 to 2</answer>", "timer1", (1.0, 2.0), False),
        ("between 5 - 6 and later 7.5 to 9", "timer1_eval", (7.5, 9.0), True),
        ("<answer>5 - 6</answer>", "timer1_eval", (5.0, 6.0), True),
        ("nothing", "timer1_eval", None, True),
        (f"{THOUGHT} <time>[1.5, 2.5]</time>", "tvg_r1", (1.5, 2.5), True),
        (f"{THOUGHT} \\boxed{{B}} <time>[1.5, 2.5]</time>", "tvg_r1", (1.5, 2.5), True),
        ("<time>1.5 to 2.5</time>", "tvg_r1", None, False),
        ("[1.5, 2.5]", "tvg_r1", None, False),
        ("The event happens in 3.2 - 4.8 seconds.", "timelens", (3.2, 4.8), True),
        ("[3.2, 4.8]", "timelens", (3.2, 4.8), True),
        # A number is read whole or not at all.
        ("<answer>1.3333333333333333 to 2.6666666666666665</answer>", "timer1", (4 / 3, 8 / 3), False),
        ("<answer>123456789012 to 5</answer>", "timer1", None, False),
        ("<answer>5 to 123456789012</answer>", "timer1", None, False),
    ],
)
def test_by_hand(text: str, policy: Policy, span: tuple[float, float] | None, form: bool) -> None:
    parsed = parse(text, policy)
    assert parsed.span == (None if span is None else pytest.approx(span))
    assert parsed.form is form


@given(st.text(max_size=300), st.sampled_from(POLICIES))
@example("<answer>nan to inf</answer>", "timer1")
@example("<answer>-5 to -3</answer>", "timer1")
@example("\ud800<answer>1 to 2</answer>", "timer1")
@example("<answer>٣ to ٤</answer>", "timer1")
def test_any_text_gives_a_defined_result(text: str, policy: Policy) -> None:
    parsed = parse(text, policy)
    assert (parsed.start is None) == (parsed.end is None)
    if parsed.span:
        assert all(math.isfinite(value) and value >= 0 for value in parsed.span)


PIECES = [
    "<think>",
    "</think>",
    "<answer>",
    "</answer>",
    "<time>",
    "</time>",
    "1 to 2",
    "[3, 4]",
    "5",
    ".",
    "-",
    " and ",
    "\n",
    "\\boxed{A}",
    "nan",
]


@given(st.lists(st.sampled_from(PIECES), max_size=40), st.sampled_from(POLICIES))
def test_any_arrangement_of_tags_gives_a_defined_result(pieces: list[str], policy: Policy) -> None:
    text = "".join(pieces)
    parsed = parse(text, policy)
    if parsed.form and policy == "timer1":
        # An independent statement of the form: the tags stand once each, in this order, with nothing outside.
        assert re.findall(r"</?(?:think|answer)>", text) == ["<think>", "</think>", "<answer>", "</answer>"]
        assert text.strip().startswith("<think>")
        assert text.strip().endswith("</answer>")


@pytest.mark.parametrize("policy", POLICIES)
@pytest.mark.parametrize(
    "unit", ["1", "1.", "1 to ", "<answer>", "<think>", "<answer>1 to 2</answer>", " ", "1, ", "\\boxed{", "[1, ", "é", "1 s "]
)
def test_a_hundred_kilobytes_are_read_in_no_time(unit: str, policy: Policy) -> None:
    text = (unit * (100_000 // len(unit) + 1))[:100_000]
    started = time.perf_counter()
    parsed = parse(text, policy)
    assert time.perf_counter() - started < 1.0
    assert parsed.form is False, "a text this long has no form"


def test_an_answer_at_the_end_of_a_long_text_is_found() -> None:
    text = "thinking " * MAX_CHARACTERS + "<answer>1.00 to 2.00</answer>"
    assert parse(text).span == (1.0, 2.0)


@given(st.floats(0, 9_999, allow_nan=False), st.floats(0, 9_999, allow_nan=False))
@settings(max_examples=50)
def test_what_is_written_is_read_back(start: float, end: float) -> None:
    a, b = f"{start:.2f}", f"{end:.2f}"
    assert parse(f"<think>so</think><answer>{a} to {b}</answer>", "timer1").span == (float(a), float(b))
    assert parse(f"<think>so</think><time>[{a}, {b}]</time>", "tvg_r1").span == (float(a), float(b))
    assert parse(f"{a} - {b} seconds", "timelens").span == (float(a), float(b))
