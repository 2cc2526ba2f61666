"""Means and differences over seeds: the arithmetic by hand, the interval against theory, and what a sweep prints."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from test_compare import make_run, world

from timer1lib.errors import Timer1Error
from timer1lib.evaluation.pooled import crossed_interval, pool, pooled_tables
from timer1lib.evaluation.tables import document
from timer1lib.runs.sweepfile import read_sweep


def test_a_difference_is_the_mean_over_seeds_and_queries(tmp_path: Path) -> None:
    samples = world(60)
    # Windows of 8 s: moved by 2 s the IoU is 6 / 10, by 4 s it is 4 / 12, unmoved 1.
    near = [make_run(tmp_path / f"near{i}", samples, lambda _: 2.0) for i in range(3)]
    right = [make_run(tmp_path / f"right{i}", samples, lambda _, i=i: 0.0 if i else 4.0, right=20 - 5 * i) for i in range(3)]  # type: ignore[misc]
    runs = [("near", i, run.root) for i, run in enumerate(near)] + [("right", i, run.root) for i, run in enumerate(right)]
    value = pool(runs, pairs=[("near", "right")], resamples=500)
    row = value["test_id"]["paired"]["near → right"]["mIoU"]
    assert row["by_seed"] == pytest.approx([100 / 3 - 60, 40, 40])
    assert row["difference"] == pytest.approx((100 / 3 - 60 + 80) / 3)
    assert row["n"] == 180
    low, high = row["interval"]
    assert low == pytest.approx(100 / 3 - 60)  # all three draws the first seed: 1 in 27, more than a fortieth
    assert high == pytest.approx(40)
    assert value["qa_short"]["variants"]["right"]["accuracy"] == pytest.approx(75)
    assert (
        value["test_id"]["variants"]["near"] | {"seeds": 3, "queries": 180, "mIoU": pytest.approx(60)}
        == value["test_id"]["variants"]["near"]
    )
    text = document(pooled_tables(value))
    assert "near → right" in text
    assert "-26.7 +40.0 +40.0" in text


def test_pairs_are_those_asked_for_and_share_a_seed(tmp_path: Path) -> None:
    samples = world(20)
    runs = [
        (name, i, make_run(tmp_path / f"{name}{i}", samples, lambda _: 1.0).root)
        for name, i in (("a", 0), ("a", 1), ("b", 1), ("c", 5))
    ]
    value = pool(runs, pairs=[("b", "a"), ("a", "c")], resamples=100)
    assert list(value["test_id"]["paired"]) == ["b → a"]
    assert value["test_id"]["paired"]["b → a"]["mIoU"]["seeds"] == 1


def test_the_interval_covers_the_true_mean_of_new_seeds_and_videos() -> None:
    rng = np.random.default_rng(0)
    hits = 0
    for trial in range(200):
        table = 1.0 + rng.normal(0, 1, (8, 1)) + rng.normal(0, 3, (1, 60)) + rng.normal(0, 2, (8, 60))
        _, low, high = crossed_interval(table, np.ones_like(table), 300, trial)
        hits += low <= 1.0 <= high
    assert 170 <= hits <= 199  # nominally 190; percentile intervals with eight seeds are a little short


def test_a_seed_that_differs_widens_the_interval() -> None:
    same, other = np.ones((5, 40)), np.ones((5, 40)) * np.array([[1], [1], [1], [1], [9]])
    _, low, high = crossed_interval(same, np.ones_like(same))
    assert (low, high) == (1, 1)
    _, low, high = crossed_interval(other, np.ones_like(other))
    assert high - low > 2


def test_pairs_of_unknown_rows_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "s.yaml"
    path.write_text("name: s\nrows: [{name: a}, {name: b}]\npairs: [[a, c]]\n")
    with pytest.raises(Timer1Error, match="'c'"):
        read_sweep(path)
