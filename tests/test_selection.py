"""Selection against theory, worked out independently of the sampler."""

from __future__ import annotations

import itertools
import math
from collections import Counter
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from timer1lib.data.selection import RULES, select
from timer1lib.errors import Timer1Error


def pool(ious: list[float | None], **extra: list[float]) -> list[dict[str, Any]]:
    return [{"id": f"s{i}", "iou": iou, **{k: v[i] for k, v in extra.items()}} for i, iou in enumerate(ious)]


def inclusion_by_enumeration(weights: list[float], n: int) -> list[float]:
    """Probability that each item is among n successive draws without replacement: every ordered draw, summed."""
    included = [0.0] * len(weights)
    for order in itertools.permutations(range(len(weights)), n):
        probability, left = 1.0, math.fsum(weights)
        for i in order:
            probability *= weights[i] / left
            left -= weights[i]
        for i in order:
            included[i] += probability
    return included


def test_weights_are_the_papers() -> None:
    table = {row["id"]: row["weight"] for row in select(pool([0.5, 0.0, None, 0.3, 0.9]), "gaussian", 1).table}
    assert table["s0"] == pytest.approx(math.exp(-0.5))
    assert table["s1"] == table["s2"] == 0.0
    assert table["s3"] == 1.0
    assert table["s4"] == pytest.approx(math.exp(-4.5))


def test_the_even_gaussian_takes_each_length_and_each_iou_alike() -> None:
    # 200 rows of 30 s, 40 of 30.5 s, 3 of an hour; 40 IoUs of the first at 0.02, 160 at 0.33 (another twentieth).
    ious = [0.02] * 40 + [0.33] * 160 + [0.5] * 40 + [1.0, 0.0, 0.98]
    seconds = [30.0] * 200 + [30.5] * 40 + [3600.0] * 3
    chosen = select(pool(ious, duration=seconds), "gaussian", 90, mean=0.05, low=-1.0, even=1.0)
    taken = Counter(seconds[int(name[1:])] for name in chosen.chosen)
    assert taken == {30.0: 10, 30.5: 10, 3600.0: 3}, "a ninth of 90 of each band, and what there is of a short one"
    weights = {row["id"]: row["weight"] for row in chosen.table}
    assert weights["s0"] == pytest.approx(math.exp(-((0.03 / 0.2) ** 2) / 2) / 40)
    assert weights["s40"] == pytest.approx(math.exp(-((0.28 / 0.2) ** 2) / 2) / 160)
    assert weights["s240"] == pytest.approx(math.exp(-((0.95 / 0.2) ** 2) / 2) / 2), "1 and 0.98 share the last twentieth"
    # All rows at 0.02 weigh as much as exp(0.011) / exp(0.98) = 2.6 times all at 0.33, though they are a quarter of them.
    low = Counter(
        ious[int(name[1:])]
        for seed in range(200)
        for name in select(pool(ious[:200]), "gaussian", 9, seed, mean=0.05, even=1.0).chosen
    )
    assert low[0.02] / 200 == pytest.approx(0.725, abs=0.1)


def test_inclusion_probabilities_of_the_gaussian_filter() -> None:
    ious = [0.05, 0.3, 0.42, 0.6, 0.75, 0.95]
    draws = 4_000
    expected = inclusion_by_enumeration([math.exp(-((x - 0.3) ** 2) / 0.08) for x in ious], 3)
    counts: Counter[str] = Counter()
    for seed in range(draws):
        counts.update(select(pool(ious), "gaussian", 3, seed).chosen)
    for i, probability in enumerate(expected):
        error = math.sqrt(probability * (1 - probability) / draws)
        assert abs(counts[f"s{i}"] / draws - probability) < 4.5 * error + 1e-12, (i, probability)
    assert sum(expected) == pytest.approx(3)


def test_large_pools_follow_the_known_approximation() -> None:
    """For a large pool, P(included) = 1 - exp(-t w), with t such that they sum to n (Rosen 1972)."""
    rng = np.random.default_rng(1)
    ious = rng.uniform(0.01, 1.0, 400)
    weights = np.exp(-((ious - 0.3) ** 2) / 0.08)
    low, high = 0.0, 1e6
    for _ in range(200):
        t = (low + high) / 2
        low, high = (t, high) if (1 - np.exp(-t * weights)).sum() < 100 else (low, t)
    expected = 1 - np.exp(-t * weights)
    counts = np.zeros(400)
    draws = 250
    for seed in range(draws):
        for name in select(pool(list(ious)), "gaussian", 100, seed).chosen:
            counts[int(name[1:])] += 1
    assert np.corrcoef(counts / draws, expected)[0, 1] > 0.99
    for low_iou, high_iou in ((0.0, 0.2), (0.2, 0.4), (0.4, 0.7), (0.7, 1.0)):
        group = (ious > low_iou) & (ious <= high_iou)
        assert counts[group].sum() / draws == pytest.approx(expected[group].sum(), rel=0.05)


def test_band_is_open_below_and_closed_above() -> None:
    chosen = select(pool([0.0, 0.1, 0.7, 0.70001, None]), "band").chosen
    assert chosen == ["s1", "s2"]
    fates = {row["id"]: row["fate"] for row in select(pool([0.0, 0.1, 0.7, 0.70001, None]), "band").table}
    assert fates == {"s0": "IoU not above 0", "s1": "chosen", "s2": "chosen", "s3": "IoU above 0.7", "s4": "not answered"}
    assert select(pool([0.2, 0.3, 0.5]), "band", low=0.2, high=0.3).chosen == ["s1"]


def test_uniform_takes_equal_shares_of_every_step() -> None:
    ious = [0.05] * 100 + [0.15] * 3 + [0.55] * 50 + [0.95] * 40
    chosen = select(pool(list(ious)), "uniform", 33, bins=10).chosen
    counts = Counter(ious[int(name[1:])] for name in chosen)
    assert counts == {0.05: 10, 0.15: 3, 0.55: 10, 0.95: 10}
    table = select(pool(list(ious)), "uniform", 33).table
    assert math.fsum(row["weight"] for row in table) == pytest.approx(33)


def test_top_variance_takes_the_largest_spreads() -> None:
    rows = pool([0.5, 0.2, 0.9, 0.4], reward_std=[0.1, 0.4, 0.0, 0.3])
    selection = select(rows, "top_variance", 2)
    assert selection.chosen == ["s1", "s3"]
    assert [row["fate"] for row in selection.table] == [
        "not among the largest spreads", "chosen", "all its sampled answers earn the same", "chosen",
    ]  # fmt: skip
    assert select(rows, "top_variance", 0).chosen == ["s0", "s1", "s3"]
    with pytest.raises(Timer1Error, match="rollouts"):
        select(pool([0.5]), "top_variance")


def test_random_and_all() -> None:
    rows = pool([0.0, 0.5, None, 1.0])
    assert select(rows, "all", 1).chosen == ["s0", "s1", "s3"]
    counts = Counter(name for seed in range(1500) for name in select(rows, "random", 1, seed).chosen)
    assert set(counts) == {"s0", "s1", "s3"}
    assert all(abs(n - 500) < 90 for n in counts.values())


@pytest.mark.parametrize(
    ("rule", "bounds", "message"),
    [
        ("gauss", {}, "one of gaussian"), ("band", {"low": 0.7, "high": 0.7}, "below"), ("gaussian", {"std": 0.0}, "above 0"),
        ("band", {"mean": 0.1}, "no bound 'mean'"), ("uniform", {"bins": 0}, "at least 1"), ("band", {"low": 0.98, "high": 0.99}, "leaves no sample"),
    ],
)  # fmt: skip
def test_bad_settings_are_named(rule: str, bounds: dict[str, float], message: str) -> None:
    with pytest.raises(Timer1Error, match=message):
        select(pool([0.2, 0.5]), rule, **bounds)


@settings(max_examples=80, deadline=None)
@given(
    st.sampled_from([rule for rule in RULES if rule != "top_variance"]),
    st.lists(st.none() | st.floats(0, 1), min_size=1, max_size=30),
    st.integers(0, 40),
    st.integers(0, 5),
)
def test_every_row_has_a_fate_and_the_draw_is_repeatable(rule: str, ious: list[float | None], n: int, seed: int) -> None:
    try:
        selection = select(pool(ious), rule, n, seed)
    except Timer1Error:
        return
    assert select(pool(ious), rule, n, seed) == selection
    assert [row["id"] for row in selection.table] == [f"s{i}" for i in range(len(ious))]
    chosen = [row["id"] for row in selection.table if row["chosen"]]
    assert chosen == selection.chosen
    assert len(set(chosen)) == len(chosen)
    eligible = sum(row["weight"] > 0 for row in selection.table)
    if rule not in ("all", "uniform"):
        assert len(chosen) == min(n or len(ious), eligible)
    assert all(row["weight"] > 0 and row["iou"] is not None for row in selection.table if row["chosen"])
    assert all((row["fate"] == "chosen") == row["chosen"] for row in selection.table)
