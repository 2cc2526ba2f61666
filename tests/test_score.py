"""`score_files` against independent calculations, and on files made to trip it."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import pytest

from timer1lib.cli import main
from timer1lib.data.checks import clip, faults
from timer1lib.errors import Timer1Error
from timer1lib.evaluation.score import score_files

ANNOTATIONS = Path(__file__).resolve().parents[1] / ".." / "shared" / "data" / "annotations"
CHARADES = ANNOTATIONS / "charades_sta_test.json"
TVGBENCH = ANNOTATIONS / "tvgbench.json"

TRUTH = {
    "AAA": {"duration": 20.0, "timestamps": [[0, 10], [5, 25]], "sentences": ["a person runs.", " a person sits. "]},
    "BBB": {"duration": 30.0, "timestamps": [[10, 10], [20, 12]], "sentences": ["a dog barks.", "a door opens."]},
}


@pytest.fixture
def truth(tmp_path: Path) -> Path:
    path = tmp_path / "truth.json"
    path.write_text(json.dumps(TRUTH))
    return path


def write(tmp_path: Path, rows: list[dict[str, Any]]) -> Path:
    path = tmp_path / "predictions.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def test_by_video_and_query(tmp_path: Path, truth: Path) -> None:
    path = write(
        tmp_path,
        [
            {"video": "AAA", "query": "a person runs.", "start": 0, "end": 5},
            {
                "video": "videos/AAA.mp4",
                "query": "a person sits.",
                "completion": "<think>hm</think><answer>5.00 to 25.00</answer>",
            },
            {"video": "BBB", "query": "a dog barks.", "start": 10, "end": 10},
        ],
    )
    result = score_files(path, truth)
    assert (result["n"], result["answered"], result["unparsable"], result["missing"]) == (4, 3, 0, 1)
    assert result["R1@0.5"] == 50
    assert result["R1@0.7"] == 25
    assert result["mIoU"] == pytest.approx(100 * 1.5 / 4)
    assert result["comparison"] == ">="
    assert result["form"] == "timer1"
    assert result["treatment"] == "keep"
    assert score_files(path, truth, comparison=">")["R1@0.5"] == 25
    json.dumps(result, allow_nan=False)


def test_repairs_are_asked_for_and_listed(tmp_path: Path, truth: Path) -> None:
    path = write(
        tmp_path,
        [
            {"video": "AAA", "query": "a person sits.", "start": 5, "end": 20},
            {"video": "BBB", "query": "a door opens.", "start": 12, "end": 20},
        ],
    )
    kept = score_files(path, truth)
    assert kept["n"] == 4
    assert kept["mIoU"] == pytest.approx(100 * (15 / 20) / 4)
    assert kept["repaired"] == {}
    clipped = score_files(path, truth, treatment="clip")
    assert clipped["n"] == 4
    assert clipped["mIoU"] == pytest.approx(25)
    assert clipped["repaired"]["past_end"]["n"] == 1
    swapped = score_files(path, truth, treatment="swap")
    assert swapped["n"] == 4
    assert swapped["repaired"]["reversed"]["n"] == 1
    dropped = score_files(path, truth, treatment="drop")
    assert dropped["n"] == 1
    assert dropped["answered"] == 0
    assert dropped["left_out"]["n"] == 3
    mended = score_files(path, truth, treatment="repair")
    assert mended["n"] == 3
    assert mended["mIoU"] == pytest.approx(100 * 2 / 3)
    assert mended["left_out"]["empty_window"]["n"] == mended["left_out"]["n"] == 1
    with pytest.raises(Timer1Error, match="repairs 'mend'"):
        score_files(path, truth, treatment="mend")  # type: ignore[arg-type]


def test_one_judge_with_and_without_a_tolerance() -> None:
    """A window that rounding carries past the end is broken as published tables count, and none for the audit."""
    assert faults((4.0, 10.0005), 10.0) == ["past_end"]
    assert faults((4.0, 10.0005), 10.0, tolerance=1e-3) == []
    assert faults((4.0, 10.0015), 10.0, tolerance=1e-3) == ["past_end"]
    assert faults((11.0, -1.0), 10.0) == ["reversed", "negative", "past_end"]
    assert faults((3.0, 3.0), None) == ["empty_window"]
    assert faults((float("nan"), 3.0), 10.0) == ["not_finite"]
    assert clip((-1.0, 12.0), 10.0) == (0.0, 10.0)
    assert clip((-1.0, 12.0), None) == (0.0, 12.0)


def test_duplicates_and_strangers_are_reported_and_the_first_answer_counts(tmp_path: Path, truth: Path) -> None:
    path = write(
        tmp_path,
        [
            {"video": "AAA", "query": "a person runs.", "start": 0, "end": 10},
            {"video": "AAA", "query": "a person runs.", "start": 12, "end": 14},
            {"video": "CCC", "query": "a person runs.", "start": 0, "end": 10},
            {"qid": "nobody", "start": 0, "end": 10},
        ],
    )
    result = score_files(path, truth)
    assert result["answered"] == 1
    assert result["mIoU"] == 25
    assert result["duplicates"]["n"] == 1
    assert "row 2" in result["duplicates"]["examples"][0]
    assert result["unknown"]["n"] == 2


def test_one_question_with_two_windows_is_asked_twice(tmp_path: Path) -> None:
    truth = tmp_path / "truth.jsonl"
    rows = [
        {"qid": i, "vid": "v", "query": "a cat", "duration": 40, "relevant_windows": [w]}
        for i, w in enumerate(([0, 10], [20, 30]))
    ]
    truth.write_text("".join(json.dumps(row) + "\n" for row in rows))
    both = [{"video": "v", "query": "a cat", "start": 0, "end": 10}, {"video": "v", "query": "a cat", "start": 20, "end": 30}]
    assert score_files(write(tmp_path, both), truth)["mIoU"] == 100
    one = score_files(write(tmp_path, both[:1]), truth)
    assert (one["n"], one["answered"], one["mIoU"], one["shared_answers"]) == (2, 2, 50, 1)
    by_id = [{"qid": 1, "start": 20, "end": 30}, {"qid": 0, "start": 0, "end": 10}]
    assert score_files(write(tmp_path, by_id), truth)["mIoU"] == 100


@pytest.mark.parametrize(
    ("text", "unparsable"),
    [
        ("", 1),
        ("<answer>9 to 3</answer>", 0),
        ("<answer>nan to 4</answer>", 1),
        ("<answer>-5 to 4</answer>", 0),
        ("9" * 100_000, 1),
    ],
)
def test_strange_text_has_a_defined_score(tmp_path: Path, truth: Path, text: str, unparsable: int) -> None:
    path = write(tmp_path, [{"video": "BBB", "query": "a dog barks.", "completion": text}])
    result = score_files(path, truth)
    assert (result["answered"], result["unparsable"], result["mIoU"]) == (1, unparsable, 0)


def test_a_named_form_reads_completions_anew(tmp_path: Path, truth: Path) -> None:
    row = {"video": "AAA", "query": "a person runs.", "start": 0, "end": 10, "completion": "from 5 to 10 seconds"}
    assert score_files(write(tmp_path, [row]), truth)["mIoU"] == 25
    assert score_files(write(tmp_path, [row]), truth, form="timer1_eval")["mIoU"] == 12.5
    assert score_files(write(tmp_path, [row]), truth, form="timer1")["unparsable"] == 1
    with pytest.raises(Timer1Error, match="form 'x'"):
        score_files(write(tmp_path, [row]), truth, form="x")


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"start": 0, "end": 1}, "row 1.*needs qid"),
        ({"qid": 1}, "row 1.*needs start and end"),
        ({"qid": 1, "start": "soon", "end": 2}, "row 1.*start must be a number"),
        ({"qid": 1, "completion": 5}, "completion must be text"),
        ({"qid": 1, "pred_relevant_windows": [[1, 2]]}, r"\[start, end, score\]"),
        ({"qid": {}, "start": 1, "end": 2}, "qid must be"),
        ({"qid": "nobody", "start": 1, "end": 2}, "none of its 1 predictions"),
    ],
)
def test_bad_rows_are_named(tmp_path: Path, truth: Path, row: dict[str, Any], message: str) -> None:
    with pytest.raises(Timer1Error, match=message) as caught:
        score_files(write(tmp_path, [row]), truth)
    assert "\n" not in str(caught.value)


def test_missing_and_broken_files(tmp_path: Path, truth: Path) -> None:
    with pytest.raises(Timer1Error, match="no such file"):
        score_files(tmp_path / "none.jsonl", truth)
    broken = tmp_path / "broken.jsonl"
    broken.write_text('{"qid": 1, "start": 1, "end"\n')
    with pytest.raises(Timer1Error, match="line 1: not JSON"):
        score_files(broken, truth)


@pytest.mark.skipif(not CHARADES.is_file(), reason="no ../shared/data/annotations here")
def test_charades_sta_against_an_independent_calculation(tmp_path: Path) -> None:
    rng = random.Random(7)
    rows: list[dict[str, Any]] = []
    asked = answered = unparsable = 0
    total = 0.0
    hits = dict.fromkeys((0.3, 0.5, 0.7), 0)
    for video, record in json.loads(CHARADES.read_text()).items():
        for (a, b), sentence in zip(record["timestamps"], record["sentences"], strict=True):
            asked += 1
            if rng.random() < 0.05:
                continue  # never answered
            answered += 1
            row: dict[str, Any] = {"video": video, "query": sentence}
            if rng.random() < 0.04:
                unparsable += 1
                rows.append({**row, "completion": "I could not find it."})
                continue
            start, end = round(max(0.0, a + rng.gauss(0, 3)), 2), round(max(0.0, b + rng.gauss(0, 3)), 2)
            if rng.random() < 0.5:
                row |= {"start": start, "end": end}
            else:
                row["completion"] = f"<think>looking</think><answer>{start:.2f} to {end:.2f}</answer>"
            rows.append(row)
            inter = min(end, b) - max(start, a)
            value = inter / (max(end, b) - min(start, a)) if inter > 0 and end > start and b > a else 0.0
            total += value
            for threshold in hits:
                hits[threshold] += value >= threshold
    rng.shuffle(rows)
    result = score_files(write(tmp_path, rows), CHARADES)
    assert (result["n"], result["answered"], result["unparsable"]) == (asked, answered, unparsable)
    assert asked == 3720
    assert result["mIoU"] == pytest.approx(100 * total / asked, abs=1e-9)
    for threshold, count in hits.items():
        assert result[f"R1@{threshold}"] == pytest.approx(100 * count / asked, abs=1e-9)
        low, high = result["interval"][f"R1@{threshold}"]
        assert low < result[f"R1@{threshold}"] < high


@pytest.mark.skipif(not TVGBENCH.is_file(), reason="no ../shared/data/annotations here")
def test_tvgbench_answered_with_its_own_windows(tmp_path: Path) -> None:
    """11 of the 800 windows are empty, so that a perfect answer scores 789 of 800; none is left out unasked."""
    rows = []
    for row in json.loads(TVGBENCH.read_text()):
        start, end = map(float, row["answer"].split("-"))
        rows.append({"video": row["path"], "query": row["question"], "start": start, "end": end})
    result = score_files(write(tmp_path, rows), TVGBENCH, resamples=0)
    assert (result["n"], result["answered"], result["unparsable"]) == (800, 800, 0)
    assert result["mIoU"] == pytest.approx(100 * 789 / 800)
    assert result["duplicates"]["n"] == 0
    assert len(result["by_type"]) == 11
    mended = score_files(write(tmp_path, rows), TVGBENCH, resamples=0, treatment="repair")
    assert mended["repaired"]["past_end"]["n"] == 27 - mended["left_out"].get("past_end", {"n": 0})["n"]
    assert mended["n"] == 800 - mended["left_out"]["n"]


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "holds no answer"),
        (b"\n \n", "holds no answer"),
        (b'{"qid": 1, "start": 1, "end": 2}\n\n{"qid": 2, "start": 1, "end": ' + b"9" * 5000 + b"}\n", "line 3: a whole number"),
        (b'{"qid": ' + b"[" * 100_000, "line 1: JSON nested too deep"),
        (b'{"qid": 1, "start": 1, "end": 2}\n{"query": "\xe9"}\n', "line 2: not UTF-8 text"),
        (b'\n{"qid": 1, "start": "x", "end": 2}\n', "line 2 (row 1): start must be a number"),
        (b'{"qid": 1, "start": 1, "end": 2}\n{"qid"', "line 2: not JSON"),
        (b'{"qid": 1, "pred_relevant_windows": ["123"]}\n', "row 1: pred_relevant_windows must be"),
        (b'{"qid": 1, "pred_relevant_windows": {"abc": 1}}\n', "row 1: pred_relevant_windows must be"),
        (b'{"qid": 1, "start": 1, "end": 2, "model": [[]]}\n', "row 1: model and error must be text"),
        (b'[{"qid": 1, "start": 1, "end": 2}]\n', "line 1: a row must be a JSON object"),
    ],
)
def test_damaged_predictions_are_one_line_and_exit_2(
    tmp_path: Path, truth: Path, content: bytes, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "predictions.jsonl"
    path.write_bytes(content)
    assert main(["score", str(path), str(truth)]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert str(path) in line
    assert said in line


def test_endless_times_and_half_letters_have_a_defined_score(tmp_path: Path, truth: Path) -> None:
    path = tmp_path / "predictions.jsonl"
    path.write_text(
        '{"video": "AAA", "query": "a person runs.", "start": 0, "end": 10}\n'
        '{"video": "AAA", "query": "a person sits.", "start": NaN, "end": Infinity}\n'
        '{"video": "BBB", "query": "a dog barks.", "start": 1e999, "end": -1e999}\n'
        '{"video": "BBB", "query": "\\ud800", "start": ' + "9" * 400 + ', "end": 1}\n'
    )
    result = score_files(path, truth)
    assert (result["n"], result["answered"], result["unknown"]["n"]) == (4, 3, 1)
    assert result["mIoU"] == 25
    json.dumps(result, allow_nan=False)
