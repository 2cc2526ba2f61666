"""Metrics against numbers worked out by hand and against a plain loop."""

from __future__ import annotations

import math
import random
import time

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from timer1lib.errors import Timer1Error
from timer1lib.evaluation.metrics import columns, members, reaches, summary
from timer1lib.evaluation.scored import join
from timer1lib.schema import Prediction, Sample


def sample(
    name: str, window: tuple[float, float] = (0, 10), video: str = "v", duration: float | None = 20, **more: object
) -> Sample:
    return Sample(name, video, "q", duration, [window], **more)  # type: ignore[arg-type]


def test_by_hand() -> None:
    samples = [sample("half"), sample("exact"), sample("none"), sample("unparsable"), sample("missing"), sample("failed")]
    predictions = [
        Prediction("half", 0, 5, "<think>a</think><answer>0.00 to 5.00</answer>"),  # IoU 0.5; boundary (0 + 5) / 2
        Prediction("exact", 0, 10, "0 to 10"),  # IoU 1; not the form
        Prediction("none", 12, 18, "x"),  # IoU 0; boundary (12 + 8) / 2 = 10
        Prediction("unparsable", completion="I do not know"),
        Prediction("failed", error="no such file"),
    ]
    result = summary(join(samples, predictions), resamples=0)
    assert (result["n"], result["answered"], result["unparsable"], result["missing"]) == (6, 4, 1, 2)
    assert result["R1@0.3"] == result["R1@0.5"] == pytest.approx(100 * 2 / 6)
    assert result["R1@0.7"] == pytest.approx(100 / 6)
    assert result["mIoU"] == pytest.approx(100 * 1.5 / 6)
    assert result["parse_rate"] == 75
    assert result["coverage"] == pytest.approx(100 * 4 / 6)
    assert result["form_rate"] == 25
    assert result["mean_relative_length"] == pytest.approx((5 + 10 + 6) / 3 / 20)
    assert result["boundary_error_s"] == pytest.approx((2.5 + 0 + 10) / 3)
    assert result["boundary_error_relative"] == pytest.approx((2.5 + 0 + 10) / 3 / 20)
    assert result["comparison"] == ">="


def test_the_comparison_decides_ties() -> None:
    scored = join([sample("a")], [Prediction("a", 0, 5)])
    assert summary(scored, ">=", resamples=0)["R1@0.5"] == 100
    assert summary(scored, ">", resamples=0)["R1@0.5"] == 0
    with pytest.raises(Timer1Error, match="comparison"):
        reaches(np.zeros(1), 0.5, "=>")  # type: ignore[arg-type]


def test_didemo_counts_the_three_annotators_who_agree_best() -> None:
    def asked(name: str, *chosen: tuple[int, int], duration: float = 30.0) -> Sample:
        # As the reader writes them: first and last segment of 5 s, the last one included.
        windows = [[5.0 * first, 5.0 * (last + 1)] for first, last in chosen]
        return sample(name, tuple(windows[0]), duration=duration, extra={"annotators": windows})

    samples = [
        asked("a", (1, 1), (1, 1), (1, 2), (1, 1)),  # answered 5 to 10: the three best agree
        asked("b", (1, 1), (1, 1), (1, 2), (4, 5)),  # two agree, one half, one not at all: (1 + 1 + 1/2) / 3
        asked("c", (0, 0), (0, 5)),  # two annotators: (1 + 1/6) / 2
        asked("d", (5, 5), (5, 5), (5, 5)),  # 28.6 to 44 s of a 30 s video is segment 5
        asked("e", (0, 0), (0, 0), (0, 0)),  # unparsable
        asked("f", (0, 0), (0, 0), (0, 0)),  # reversed
        asked("g", (4, 4), (4, 4), (4, 4), duration=24.0),  # a video of five segments, the last one short
        sample("h"),  # of another data set
    ]
    spans = {"a": (5, 10), "b": (6.4, 10.2), "c": (0.1, 0.2), "d": (28.6, 44), "f": (5, 0), "g": (18, 60), "h": (0, 10)}
    answers = [Prediction(name, *span) for name, span in spans.items()] + [Prediction("e", completion="?")]
    scored = join(samples, answers)
    table = columns(scored)
    assert table["didemo_mIoU"][:7] == pytest.approx([100, 250 / 3, 350 / 6, 100, 0, 0, 100])
    assert table["didemo_rank1"][:7].tolist() == [100, 0, 0, 100, 0, 0, 100]
    assert math.isnan(table["didemo_mIoU"][7])
    assert summary(scored, resamples=0)["didemo_rank1"] == pytest.approx(300 / 7)
    assert "didemo_rank1" not in columns(join([sample("h")], [Prediction("h", 0, 10)]))


def test_the_best_of_several_windows_counts() -> None:
    several = Sample("a", "v", "q", 40, [(0, 5), (20, 30), (20, 31)])
    scored = join([several, sample("b", (1, 2))], [Prediction("a", 20, 30), Prediction("b", 5, 6)])
    assert scored.iou.tolist() == [1.0, 0.0]
    assert scored.window.tolist() == [[20, 30], [1, 2]]


def test_absurd_answers_cannot_carry_a_mean() -> None:
    absurd = [
        Prediction("a", -1e9, 1e9),
        Prediction("b", 5, float("nan")),
        Prediction("c", 9, 2),
        Prediction("d", 1e300, 1.1e300),
    ]
    scored = join([sample(name) for name in "abcd"], absurd)
    table = columns(scored)
    assert table["mean_relative_length"][[0, 3]].tolist() == [1.0, 0.0]
    assert math.isnan(table["mean_relative_length"][2]), "an answer that ends before it starts has no length"
    assert table["boundary_error_s"][0] == 20
    assert table["boundary_error_s"][3] == 20
    assert scored.parsed.tolist() == [True, False, True, True]


def test_unknown_duration_leaves_relative_numbers_out() -> None:
    scored = join(
        [sample("a", duration=None), sample("b", duration=float("nan"))], [Prediction("a", 0, 10), Prediction("b", 0, 10)]
    )
    result = summary(scored, resamples=0)
    assert result["mean_relative_length"] is None
    assert result["boundary_error_s"] == 0
    assert result["mIoU"] == 100
    assert result["by_video_length"] == {}


def test_groups() -> None:
    samples = [
        sample("a", (0, 1), duration=20, type="Human Pose", source="charades"),
        sample("b", (8, 18), duration=20, type="Human Pose", source="tacos"),
        sample("c", (300, 390), duration=400, type="Counting", source="tacos"),
    ]
    result = summary(join(samples, [Prediction("b", 8, 18)]), resamples=50)
    assert {k: (v["n"], v["mIoU"]) for k, v in result["by_type"].items()} == {"Counting": (1, 0), "Human Pose": (2, 50)}
    assert list(result["by_video_length"]) == ["15-30 s", ">= 300 s"]
    assert {k: v["n"] for k, v in result["by_window_length"].items()} == {"< 10%": 1, "10-25%": 1, ">= 50%": 1}
    assert {k: v["n"] for k, v in result["by_window_position"].items()} == {"first third": 1, "middle third": 1, "last third": 1}
    assert result["by_source"]["tacos"]["missing"] == 1
    with pytest.raises(Timer1Error, match="grouping"):
        members(samples, "colour")


@given(st.lists(st.tuples(*[st.floats(0, 30) | st.none()] * 4), min_size=1, max_size=20))
def test_equal_to_a_plain_loop(rows: list[tuple[float | None, ...]]) -> None:
    samples, predictions, total, hits = [], [], 0.0, 0
    for i, (a, b, c, d) in enumerate(rows):
        window = (a or 0.0, b or 0.0)
        samples.append(sample(str(i), window))
        predictions.append(Prediction(str(i), c, d))
        value = 0.0
        if c is not None and d is not None and d > c and window[1] > window[0]:
            inter = max(0.0, min(d, window[1]) - max(c, window[0]))
            union = (d - c) + (window[1] - window[0]) - inter
            value = inter / union
        total += value
        hits += value >= 0.5 + 1e-9
    result = summary(join(samples, predictions), resamples=0)
    assert result["mIoU"] == pytest.approx(100 * total / len(rows), abs=1e-6)
    assert result["R1@0.5"] >= 100 * hits / len(rows) - 1e-9


def test_17000_predictions_with_2000_resamples_take_under_two_seconds() -> None:
    rng = random.Random(0)
    samples, predictions = [], []
    for i in range(17_000):
        duration = rng.uniform(10, 300)
        start = rng.uniform(0, duration * 0.7)
        samples.append(sample(str(i), (start, start + 5), f"v{i % 4885}", duration, type=f"t{i % 11}", source=f"s{i % 5}"))
        predictions.append(Prediction(str(i), start + rng.gauss(0, 3), start + 6))
    best = math.inf
    for _ in range(3):  # the work of other processes is not what is measured, hence this thread's own time
        began = time.thread_time()
        result = summary(join(samples, predictions), resamples=2000)
        best = min(best, time.thread_time() - began)
        if best < 2:
            break
    assert best < 2, f"took {best:.2f} s"
    low, high = result["interval"]["mIoU"]
    assert low < result["mIoU"] < high
    assert len(result["by_type"]) == 11
