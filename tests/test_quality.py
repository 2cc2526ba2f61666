"""Coverage counted by hand; blind answers on data where it is known what can be guessed."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest

from timer1lib.data.quality import blind_answers, blind_report, candidates, fit_blind, quality_report, video_interval
from timer1lib.data.readers import read_annotations
from timer1lib.data.selection import published_rows
from timer1lib.schema import Sample

RNG = np.random.default_rng(0)


def make(n: int, told_by_words: bool, seed: int = 0) -> list[Sample]:
    """Videos of 10-60 s; the window is the first or the last fifth, said by the query's words or by nothing."""
    rng = np.random.default_rng(seed)
    samples = []
    for i in range(n):
        duration, late = float(rng.uniform(10, 60)), bool(rng.integers(2))
        word = ("opens", "closes")[late] if told_by_words else ("opens", "closes")[int(rng.integers(2))]
        window = (0.8 * duration, duration) if late else (0.0, 0.2 * duration)
        samples.append(Sample(f"{i}", f"v{i // 2}.mp4", f"somebody {word} the door", duration, [window]))
    return samples


def test_words_that_give_the_place_away_are_found_and_raise_the_warning() -> None:
    report = quality_report(make(300, True), make(300, True, seed=1))
    answers = report["bias"]["answers"]
    assert answers["query words + prior"]["R1@0.5"] == 100.0
    assert answers["query words + prior"]["mIoU"] == pytest.approx(100.0, abs=0.1)
    assert answers["whole video"]["mIoU"] == pytest.approx(20.0)
    # The best constant is one of the two windows, right half of the time.
    assert 38 < answers["window prior"]["R1@0.5"] < 62
    assert report["bias"]["strong"]
    assert "query words + prior" in report["warnings"][0]


def test_words_that_say_nothing_gain_nothing_and_a_weak_prior_raises_nothing() -> None:
    rng = np.random.default_rng(3)
    samples = []
    for i in range(400):
        duration = float(rng.uniform(20, 40))
        start = float(rng.uniform(0, 0.9)) * duration
        samples.append(
            Sample(str(i), f"v{i}", str(rng.choice(["a dog runs", "a cat sits"])), duration, [(start, start + 0.1 * duration)])
        )
    bias = blind_report(samples)
    assert not bias["strong"]
    assert bias["answers"]["query words + prior"]["mIoU"] < bias["answers"]["window prior"]["mIoU"] + 3
    assert bias["answers"]["whole video"]["mIoU"] == pytest.approx(10.0)
    low, high = bias["answers"]["window prior"]["interval"]["mIoU"]
    assert low < bias["answers"]["window prior"]["mIoU"] < high


def test_the_prior_is_the_best_candidate_by_brute_force() -> None:
    samples = make(41, False)
    best, reached = (0.0, 0.0), -1.0
    for i in range(21):
        for j in range(i + 1, 21):
            a, b = i / 20, j / 20
            total = 0.0
            for s in samples:
                start, end = s.window[0] / (s.duration or 1), s.window[1] / (s.duration or 1)
                inside = max(0.0, min(b, end) - max(a, start))
                total += inside / (max(b, end) - min(a, start)) if inside else 0.0
            if total > reached + 1e-9:
                best, reached = (a, b), total
    assert fit_blind(samples).prior == pytest.approx(best)
    assert len(candidates()) == 210


def test_answers_on_the_own_split_come_from_other_videos() -> None:
    """Each video says its own word: fitted on itself a model would know all, fitted on the others nothing."""
    rng = np.random.default_rng(5)
    samples = []
    for v in range(60):
        start = float(rng.uniform(0, 8))
        samples += [Sample(f"{v}-{k}", f"v{v}", f"word{v} moves", 10.0, [(start, start + 2)]) for k in range(4)]
    bias = blind_report(samples)
    assert bias["answers"]["query words + prior"]["mIoU"] < bias["answers"]["window prior"]["mIoU"] + 5
    own = blind_report(samples, samples)
    assert own["answers"]["query words + prior"]["mIoU"] > 60


def test_intervals_resample_videos_not_rows() -> None:
    """20 videos with 10 equal rows each: the interval is that of 20 numbers, by the normal approximation."""
    values = np.repeat(RNG.normal(50, 10, 20), 10)[:, None]
    low, high = video_interval(values, [f"v{i // 10}" for i in range(200)], 4000, 0)
    expected = 1.96 * values[::10, 0].std() / math.sqrt(20)
    assert (high[0] - low[0]) / 2 == pytest.approx(expected, rel=0.1)


def test_coverage_is_counted() -> None:
    samples = [
        Sample("1", "a", "The dog runs", 10.0, [(0.0, 2.0)], type="x"),
        Sample("2", "a", "the dog sits", 10.0, [(4.0, 6.0)], type="x"),
        Sample("3", "b", "a cat", 100.0, [(0.0, 100.0)], type="y"),
        Sample("4", "b", "what?", None, [], options=["a", "b"], answer=0),
    ]
    report = quality_report(samples, samples[:1])
    assert (report["n"], report["videos"], report["questions"], report["without_duration"]) == (4, 2, 1, 1)
    assert report["types"] == {"x": 2, "y": 1, "(none)": 1}
    cells = {(i, j): n for i, row in enumerate(report["cells"]) for j, n in enumerate(row) if n}
    assert cells == {(2, 1): 1, (2, 5): 1, (9, 5): 1}
    assert report["seconds"]["window"] == [2.0, 2.0, 100.0]
    words = report["words"]
    assert (words["vocabulary"], words["words"], words["once"], words["words_a_query"]) == (7, 9, 5, [3, 3, 2, 1])
    assert (words["new_words"], words["queries_with_new_words"], words["queries_seen_in_training"]) == (4, 3, 1)


def test_degenerate_splits_do_not_break() -> None:
    for samples in ([], [Sample("1", "a", "q", None, [(0.0, 1.0)])], [Sample("1", "a", "", 5.0, [(0.0, 0.0)])]):
        report = quality_report(samples)
        assert report["n"] == len(samples)
        assert not report["bias"]["strong"]
    assert set(blind_answers([Sample("1", "a", "q", 4.0, [(0.0, 1.0)])])) == {"whole video"}


ANNOTATIONS = Path(__file__).resolve().parents[2] / "shared" / "data" / "annotations"


@pytest.mark.skipif(not ANNOTATIONS.is_dir(), reason="the published annotation files (../shared/data) are not on this machine")
def test_published_difficulty_is_the_iou_of_the_published_answer() -> None:
    samples = read_annotations(ANNOTATIONS / "timerft_train_2k5.json").samples
    rows = published_rows(samples)
    assert len(rows) == 2500
    assert max(abs(100 * row["iou"] - sample.extra["difficulty"]) for row, sample in zip(rows, samples, strict=True)) < 1e-6


@pytest.mark.skipif(not ANNOTATIONS.is_dir(), reason="the published annotation files (../shared/data) are not on this machine")
def test_blind_answers_are_strong_on_charades_sta_and_weak_on_tvgbench() -> None:
    charades = blind_report(read_annotations(ANNOTATIONS / "charades_sta_test.json").samples)
    assert charades["strong"]
    assert charades["answers"]["query words + prior"]["R1@0.5"] > 30
    assert not blind_report(read_annotations(ANNOTATIONS / "tvgbench.json").samples)["strong"]
