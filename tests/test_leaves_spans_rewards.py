"""IoU and rewards against values worked out by hand and against a second way to compute them."""

from __future__ import annotations

import itertools
import math
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from timer1lib.forms import FORMS
from timer1lib.forms.reading import boxed_letter
from timer1lib.rewards import REWARDS, RewardInput, tiou_centered_reward, tiou_reward
from timer1lib.spans import intersect, iou, iou_many, merge

ANY = st.floats(allow_nan=True, allow_infinity=True)
SEGMENT = st.tuples(ANY, ANY)
WHOLE = st.tuples(st.integers(0, 60), st.integers(0, 60))


@pytest.mark.parametrize(
    ("a", "b", "expected"),
    [
        ((0, 10), (0, 10), 1.0),
        ((0, 10), (5, 15), 1 / 3),
        ((2, 4), (0, 10), 0.2),
        ((0, 5), (5, 10), 0.0),
        ((0, 1), (8, 9), 0.0),
        ((5, 2), (0, 10), 0.0),
        ((3, 3), (0, 10), 0.0),
        ((math.nan, 4), (0, 10), 0.0),
        ((0, math.inf), (0, 10), 0.0),
        (None, (0, 10), 0.0),
        ((-5, 5), (0, 10), 1 / 3),
    ],
)
def test_iou_by_hand(a: tuple[float, float] | None, b: tuple[float, float], expected: float) -> None:
    assert iou(a, b) == pytest.approx(expected)
    assert iou(b, a) == iou(a, b)


@given(WHOLE, WHOLE)
def test_iou_counts_seconds(a: tuple[int, int], b: tuple[int, int]) -> None:
    # A second way: count the unit intervals that each covers.
    first, second = set(range(*a)), set(range(*b))
    union = first | second
    expected = Fraction(len(first & second), len(union)) if union and first & second else Fraction(0)
    assert iou(a, b) == pytest.approx(float(expected))


@given(SEGMENT, SEGMENT)
def test_iou_is_total_and_bounded(a: tuple[float, float], b: tuple[float, float]) -> None:
    assert 0.0 <= iou(a, b) <= 1.0


@given(st.lists(st.tuples(SEGMENT, SEGMENT), min_size=1, max_size=8))
def test_iou_many_is_iou_row_by_row(pairs: list[tuple[tuple[float, float], tuple[float, float]]]) -> None:
    a, b = np.array([p[0] for p in pairs], dtype=float), np.array([p[1] for p in pairs], dtype=float)
    assert iou_many(a, b).tolist() == [iou(*pair) for pair in pairs]


@given(st.lists(WHOLE, max_size=8), st.lists(WHOLE, max_size=8))
def test_unions_count_seconds(a: list[tuple[int, int]], b: list[tuple[int, int]]) -> None:
    covered = {second for window in a for second in range(*window)}
    merged = merge(a)
    assert sum(end - start for start, end in merged) == len(covered)
    assert all(first[1] < second[0] for first, second in itertools.pairwise(merged))
    both = covered & {second for window in b for second in range(*window)}
    assert sum(end - start for start, end in intersect(a, b)) == len(both)


def answer(start: float, end: float) -> str:
    return f"<think>so</think><answer>{start:.2f} to {end:.2f}</answer>"


def test_tiou_is_the_papers_formula() -> None:
    # Window 10 to 20 of 50 s, answer 12 to 24: IoU 8/14; factors 1 - 2/50 and 1 - 4/50.
    x = RewardInput(answer(12, 24), ((10.0, 20.0),), 50.0)
    assert tiou_reward(x) == pytest.approx(8 / 14 * 0.96 * 0.92)
    # Lengths 10 and 12: the centred form keeps 10/12 of it.
    assert tiou_centered_reward(x) == pytest.approx(8 / 14 * 0.96 * 0.92 * 10 / 12)
    assert REWARDS["tvg_r1"](
        RewardInput("<think>a</think><time>[12, 24]</time>", ((10.0, 20.0),), 50.0, FORMS["tvg_r1"])
    ) == pytest.approx(0.9 * 8 / 14 + 0.1)


def test_two_negative_factors_are_no_reward() -> None:
    # |s - s'| and |e - e'| are both beyond the duration: 1 - 200/10 = -19, twice, would give +361 times the IoU.
    x = RewardInput(answer(0, 410), ((200.0, 210.0),), 10.0)
    assert tiou_reward(x) == 0.0


@pytest.mark.parametrize(
    ("text", "letter"),
    [(r"\boxed{B}", 1), (r"\boxed{A} or \boxed{(C)}", 2), (r"\boxed{D. a dog}", 3), ("B", None), (r"\boxed{}", None)],
)
def test_boxed_letters(text: str, letter: int | None) -> None:
    assert boxed_letter(text) == letter


def test_grounded_qa_weights() -> None:
    text = r"<think>so</think>\boxed{B}<time>[0, 10]</time>"
    full = RewardInput(text, ((0.0, 10.0),), 20.0, FORMS["tvg_r1"], ("x", "y"), 1)
    wrong_answer = RewardInput(text, ((0.0, 10.0),), 20.0, FORMS["tvg_r1"], ("x", "y"), 0)
    half = RewardInput(text, ((0.0, 20.0),), 20.0, FORMS["tvg_r1"], ("x", "y"), 1)
    assert REWARDS["grounded_qa"](full) == pytest.approx(1.0)
    assert REWARDS["grounded_qa"](wrong_answer) == pytest.approx(0.3)
    assert REWARDS["grounded_qa"](half) == pytest.approx(0.9)


@given(st.text(max_size=200), st.lists(SEGMENT, max_size=3), ANY, st.sampled_from(sorted(REWARDS)))
def test_rewards_are_total_and_bounded(text: str, windows: list[tuple[float, float]], duration: float, name: str) -> None:
    for completion in (text, answer(1, 2) + text, answer(1, 2)):
        assert 0.0 <= REWARDS[name](RewardInput(completion, tuple(windows), duration)) <= 1.0


@given(st.floats(0, 100), st.floats(0, 100), st.floats(0, 100), st.floats(0, 100))
def test_no_answer_beats_the_truth(s: float, e: float, start: float, end: float) -> None:
    truth = (round(min(start, end), 2), round(max(start, end), 2) + 1)
    best = RewardInput(answer(*truth), (truth,), 102.0)
    other = RewardInput(answer(s, e), (truth,), 102.0)
    for name in ("tiou", "iou", "tiou_centered"):
        assert REWARDS[name](best) == pytest.approx(1.0)
        assert REWARDS[name](other) <= REWARDS[name](best) + 1e-12
