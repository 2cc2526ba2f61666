"""Average precision by hand, and against a second implementation written from the definition."""

from __future__ import annotations

import json
import random
from pathlib import Path

import pytest

from timer1lib.evaluation.qvhighlights import average_precision, evaluate
from timer1lib.evaluation.score import score_files
from timer1lib.schema import Prediction, Sample

REAL = Path(__file__).resolve().parents[1] / ".." / "shared" / "data" / "annotations" / "qvhighlights_val.jsonl"


def one(truth: list[tuple[float, float]], answers: list[tuple[float, float, float]]) -> float:
    return float(average_precision(truth, answers, [0.5])[0])


def test_by_hand() -> None:
    assert one([(0, 10)], [(0, 10, 0.9)]) == 1
    assert one([(0, 10)], [(50, 60, 0.9), (0, 10, 0.5)]) == 0.5  # precision 1/2 when recall reaches 1
    assert one([(0, 10)], [(50, 60, 0.1), (0, 10, 0.5)]) == 1  # the score orders, not the place in the list
    assert one([(0, 10), (20, 30)], [(0, 10, 0.9)]) == 0.5
    # Right, wrong, right: precision 1, 1/2, 2/3 at recall 1/2, 1/2, 1
    assert one([(0, 10), (20, 30)], [(0, 10, 3), (50, 60, 2), (20, 30, 1)]) == pytest.approx(0.5 * 1 + 0.5 * 2 / 3)
    # A second answer to a window that is taken is wrong
    assert one([(0, 10)], [(0, 10, 3), (0, 10, 2)]) == 1
    assert one([(0, 10), (20, 30)], [(0, 10, 3), (0, 10, 2), (20, 30, 1)]) == pytest.approx(0.5 + 0.5 * 2 / 3)
    assert one([], [(0, 1, 1)]) == 0
    assert one([(0, 1)], []) == 0


def test_a_taken_window_leaves_the_next_best() -> None:
    # Both answers overlap both windows by half or more; the second one has to take what is left.
    assert one([(0, 10), (2, 12)], [(0, 10, 2), (0, 10, 1)]) == 1


def reference_ap(truth: list[tuple[float, float]], answers: list[tuple[float, float, float]], threshold: float) -> float:
    """The definition again, in plain Python: interpolated precision summed over each recall step."""
    free = set(range(len(truth)))
    points, hits = [], 0
    for rank, (start, end, _) in enumerate(sorted(answers, key=lambda a: -a[2]), 1):
        best, best_iou = None, threshold
        for index in sorted(free):
            s, e = truth[index]
            inter = max(0.0, min(e, end) - max(s, start))
            union = (e - s) + (end - start) - inter
            if union > 0 and inter / union >= best_iou and (best is None or inter / union > best_iou):
                best, best_iou = index, inter / union
        if best is not None:
            free.discard(best)
            hits += 1
        points.append((hits / len(truth), hits / rank))
    area, before = 0.0, 0.0
    for index, (recall, _) in enumerate(points):
        if recall > before:
            area += (recall - before) * max(p for _, p in points[index:])
            before = recall
    return area


def test_against_the_second_implementation() -> None:
    rng = random.Random(0)
    for _ in range(300):
        cuts = sorted(rng.sample(range(0, 150), 2 * rng.randint(1, 6)))
        truth = [(float(a), float(b)) for a, b in zip(cuts[::2], cuts[1::2], strict=True)]
        answers = []
        for _ in range(rng.randint(1, 10)):
            s, e = rng.choice(truth)
            answers.append((s + rng.gauss(0, 2), e + rng.gauss(0, 2) + 0.1, rng.random()))
        answers = [(s, e, c) for s, e, c in answers if e > s]
        values = average_precision(truth, answers, [0.5, 0.75, 0.95])
        assert values.tolist() == pytest.approx([reference_ap(truth, answers, t) for t in (0.5, 0.75, 0.95)])


def test_lengths_count_only_their_windows() -> None:
    samples = [Sample("a", "v", "q", 150, [(0, 8), (20, 40)]), Sample("b", "w", "q", 150, [(0, 100)])]
    rows = [Prediction("a", windows=[(0, 8, 0.9), (20, 40, 0.8)]), None]
    result = evaluate(samples, rows)
    assert result["mAP"] == 50
    assert result["mAP@0.5"] == 50
    assert result["mAP@0.75"] == 50
    assert result["by_length"]["short"]["n"] == 1
    assert result["by_length"]["short"]["mAP"] == 100
    # The middle window comes second: precision 1/2 at recall 1; and the first answer does not meet it
    assert result["by_length"]["middle"]["mAP"] == 50
    assert result["by_length"]["middle"]["R1@0.5"] == 0
    assert result["by_length"]["long"]["mAP"] == 0


def test_only_the_first_ten_answers_count() -> None:
    wrong = [(100.0 + i, 101.0 + i, 1.0) for i in range(10)]
    sample = Sample("a", "v", "q", 150, [(0, 10)])
    assert evaluate([sample], [Prediction("a", windows=[*wrong, (0, 10, 2.0)])])["mAP"] == 0
    assert evaluate([sample], [Prediction("a", windows=[*wrong[:9], (0, 10, 2.0)])])["mAP"] == 100


@pytest.mark.skipif(not REAL.is_file(), reason="no ../shared/data/annotations here")
def test_a_submission_to_the_real_file(tmp_path: Path) -> None:
    rng = random.Random(1)
    truth = [json.loads(line) for line in REAL.read_text().splitlines()]
    submission = []
    for row in truth:
        windows = [[s + rng.gauss(0, 4), e + rng.gauss(0, 4), rng.random()] for s, e in row["relevant_windows"]]
        windows.append([rng.uniform(0, 70), rng.uniform(71, 150), rng.random()])
        windows = sorted((w for w in windows if w[1] > w[0]), key=lambda w: -w[2])
        submission.append({"qid": row["qid"], "query": row["query"], "vid": row["vid"], "pred_relevant_windows": windows})
    path = tmp_path / "submission.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in submission))
    result = score_files(path, REAL, resamples=0)
    expected: dict[float, float] = {}
    for i in range(10):
        threshold = round(0.5 + 0.05 * i, 2)
        aps = [
            reference_ap(
                [tuple(w) for w in row["relevant_windows"]], [tuple(w) for w in answer["pred_relevant_windows"][:10]], threshold
            )
            for row, answer in zip(truth, submission, strict=True)
        ]
        expected[threshold] = 100 * sum(aps) / len(aps)
    assert result["n"] == result["answered"] == 1550
    assert result["mAP@0.5"] == pytest.approx(expected[0.5])
    assert result["mAP@0.75"] == pytest.approx(expected[0.75])
    assert result["mAP"] == pytest.approx(sum(expected.values()) / 10)
    hits = 0
    for row, answer in zip(truth, submission, strict=True):
        s, e, _ = answer["pred_relevant_windows"][0]
        hits += any((min(e, b) - max(s, a)) / (max(e, b) - min(s, a)) >= 0.7 for a, b in row["relevant_windows"])
    assert result["R1@0.7"] == pytest.approx(100 * hits / 1550)
    assert result["by_length"]["short"]["n"] == sum(any(0 < e - s <= 10 for s, e in row["relevant_windows"]) for row in truth)
