"""Bootstrap over videos: against theory, and against cases whose answer is known."""

from __future__ import annotations

import numpy as np
import pytest

from timer1lib.evaluation.intervals import bootstrap_means, by_video, mean_interval, paired_difference


def test_by_video_sums_and_counts_what_is_known() -> None:
    values = np.array([[1.0, np.nan], [2.0, 5.0], [4.0, 7.0]])
    sums, counts = by_video(values, np.array([0, 0, 1]))
    assert sums.tolist() == [[3, 5], [4, 7]]
    assert counts.tolist() == [[2, 1], [1, 1]]


def test_one_row_a_video_has_the_standard_error_of_the_mean() -> None:
    values = np.random.default_rng(1).normal(5, 2, 400)
    _, low, high = mean_interval(values, np.arange(400), 4000)
    standard_error = values.std() / np.sqrt(400)
    assert (high - low) == pytest.approx(2 * 1.96 * standard_error, rel=0.06)
    assert (high + low) / 2 == pytest.approx(values.mean(), abs=0.1 * standard_error)


def test_rows_of_one_video_count_as_one() -> None:
    """Ten copies of each row bring no information: the interval must stay that of one row a video."""
    values = np.random.default_rng(2).normal(0, 1, 200)
    single = mean_interval(values, np.arange(200), 4000)
    copied = mean_interval(np.repeat(values, 10), np.repeat(np.arange(200), 10), 4000)
    naive = mean_interval(np.repeat(values, 10), np.arange(2000), 4000)
    assert copied[2] - copied[1] == pytest.approx(single[2] - single[1], rel=0.06)
    assert naive[2] - naive[1] < 0.4 * (copied[2] - copied[1])


def test_equal_to_resampling_rows_one_by_one() -> None:
    """The matrix product is the same as drawing videos and pooling their rows."""
    rng = np.random.default_rng(3)
    video = rng.integers(0, 12, 60)
    video = np.unique(video, return_inverse=True)[1]
    values = rng.normal(size=(60, 2))
    values[rng.random((60, 2)) < 0.2] = np.nan
    fast = bootstrap_means(values, video, 3000, seed=5)
    slow = []
    for _ in range(3000):
        rows = np.concatenate([np.flatnonzero(video == v) for v in rng.integers(0, video.max() + 1, video.max() + 1)])
        slow.append(np.nanmean(values[rows], axis=0))
    spread = np.std(slow, axis=0)
    np.testing.assert_allclose(fast.mean(axis=0), np.mean(slow, axis=0), atol=0.08 * spread.max())
    np.testing.assert_allclose(fast.std(axis=0), spread, rtol=0.08)


def test_the_same_seed_gives_the_same_interval() -> None:
    values, video = np.arange(30.0), np.arange(30) // 3
    assert mean_interval(values, video, 300, seed=1) == mean_interval(values, video, 300, seed=1)
    assert mean_interval(values, video, 300, seed=1) != mean_interval(values, video, 300, seed=2)


def test_intervals_cover_the_truth_as_often_as_they_say() -> None:
    rng = np.random.default_rng(4)
    covered = 0
    for trial in range(200):
        effect = np.repeat(rng.normal(0, 1, 60), 4)
        values = 1.0 + effect + rng.normal(0, 0.5, 240)
        _, low, high = mean_interval(values, np.repeat(np.arange(60), 4), 400, seed=trial)
        covered += low <= 1.0 <= high
    assert 0.88 <= covered / 200 <= 0.99


def test_paired_difference_of_a_true_gain() -> None:
    rng = np.random.default_rng(5)
    first = rng.random(300)
    result = paired_difference(first, first + 0.1 + rng.normal(0, 0.05, 300), np.arange(300))
    assert result["difference"] == pytest.approx(0.1, abs=0.01)
    assert 0.08 < result["low"] < result["difference"] < result["high"] < 0.12
    assert result["p"] == pytest.approx(1 / 2001)


def test_p_values_without_a_difference_are_even() -> None:
    rng = np.random.default_rng(6)
    p = [paired_difference(rng.random(80), rng.random(80), np.arange(80) // 2, 300, seed=i)["p"] for i in range(150)]
    assert 0.02 <= np.mean(np.array(p) < 0.1) <= 0.19
    assert 0.4 < np.mean(p) < 0.6


def test_small_p_by_enumeration() -> None:
    """Four videos that all gain: of 16 sign patterns two reach the observed sum, so p is 1/8."""
    result = paired_difference(np.zeros(4), np.ones(4), np.arange(4), 20_000)
    assert result["p"] == pytest.approx(0.125, abs=0.01)


def test_equal_answers_have_p_one_and_nothing_known_is_nan() -> None:
    same = paired_difference(np.ones(5), np.ones(5), np.arange(5), 100)
    assert same["p"] == 1
    assert same["low"] == same["high"] == 0
    assert np.isnan(paired_difference(np.full(3, np.nan), np.ones(3), np.arange(3), 100)["difference"])
