"""Maps of made-up sweeps: what was planted is found, where nothing was planted they say so, and the arithmetic is another's."""

from __future__ import annotations

import json
import math
import random
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from timer1lib.errors import Timer1Error
from timer1lib.evaluation import learned, maps
from timer1lib.evaluation.maps import Grid, effects, holm, p_value, read_answers, read_grid
from timer1lib.evaluation.pooled import crossed_means
from timer1lib.files import atomic_write_json, atomic_write_jsonl
from timer1lib.runfolder import RunFolder
from timer1lib.schema import Prediction, Sample
from timer1lib.stages import compare, open_stage
from timer1lib.view.maps import curve_figures, map_figure

SIZES, WORDINGS, SEEDS = (15, 600), (2, 12), (0, 1, 2)
SPLITS = ("seen", "test_id", "test_wording")
QUERIES = 60


def queries(split: str) -> list[Sample]:
    rng = random.Random(split)
    starts = [rng.uniform(0, 20) for _ in range(QUERIES)]
    return [
        Sample(f"{split}{i}", f"{split}{i // 2}.mp4", f"event {i}", 30.0, [(s, s + 8)], type=("a", "b", "c")[i % 3])
        for i, s in enumerate(starts)
    ]


def off(iou: float) -> float:
    """Seconds by which a window of 8 s is moved for this IoU."""
    return 8 * (1 - iou) / (1 + iou)


Planted = Callable[[str, str, int, int, Sample], float]
"""(way or way/base, split, size, wording, sample) -> expected IoU."""


def make_sweep(folder: Path, planted: Planted, logs: bool = False) -> Path:
    """A sweep's folder as `timer1 sweep` leaves it, with noisy answers about what was planted."""
    listed = []
    for way in ("rl", "sft"):
        for size in SIZES:
            for wording in WORDINGS:
                for seed in SEEDS:
                    name = f"{way}.train_videos={size}.phrasings={wording}.s{seed}"
                    run, rng = RunFolder(folder / name), random.Random(name)
                    last = "grpo" if way == "rl" else "sft"
                    for split in SPLITS:
                        samples = queries(split)
                        run.write_samples(split, samples)
                        for checkpoint in ("base", last):
                            who = f"{way}/base" if checkpoint == "base" else way
                            noise, wide = (random.Random(f"base {split}"), 0.03) if checkpoint == "base" else (rng, 0.1)
                            rows = []
                            for sample in samples:
                                iou = min(1.0, max(0.05, planted(who, split, size, wording, sample) + noise.gauss(0, wide)))
                                start = sample.window[0] + off(iou)
                                rows.append(Prediction(sample.id, start, start + 8, f"{start} to {start + 8}"))
                            atomic_write_jsonl(run.predictions(checkpoint, split), (row.to_json() for row in rows))
                    scores = {split: {c: {"mIoU": 0.0} for c in ("base", last)} for split in SPLITS}
                    flagged = {
                        "scale_bias": {"value": 1.3, "flagged": way == "sft"},
                        "one_answer": {"value": None, "flagged": False},
                    }
                    signatures = {"test_id": {"base": {}, last: flagged}}
                    atomic_write_json(run.metrics, {"splits": scores, "signatures": signatures, "parser": "timer1"})
                    for stage, seconds in (("02_sft", 20 if way == "rl" else 200), ("04_grpo", 180 if way == "rl" else 3)):
                        atomic_write_json(run.stamp(stage), {"seconds": seconds + 10 * seed})
                    if logs:
                        key = "rewards/tiou/mean" if way == "rl" else "mean_token_accuracy"
                        steps = [{"step": i + 1, "entropy": 1.0 - 0.1 * i + seed, key: 0.1 * i} for i in range(5)]
                        atomic_write_jsonl(run.log(last), steps)
                    at = {"curate.train_videos": size, "curate.phrasings": wording}
                    listed.append({"name": name, "run": name, "way": way, "at": at, "seed": seed, "error": None})
    atomic_write_json(folder / "sweep.json", {"name": "made", "rows": listed})
    return folder


def plan(who: str, split: str, size: int, wording: int, sample: Sample) -> float:
    """RL is 0.1 above SFT on new wording where the wording varied, in queries of kind a 0.3 and in the others none; SFT
    remembers small pools. Nothing else."""
    if who.endswith("/base"):
        return 0.4
    gain = 0.3 if who == "rl" and split == "test_wording" and wording == 12 and sample.type == "a" else 0.0
    memory = 0.25 if who == "sft" and split == "seen" and size == 15 else 0.0
    return 0.5 + gain + memory


@pytest.fixture(scope="module")
def grid(tmp_path_factory: pytest.TempPathFactory) -> Grid:
    return read_grid(make_sweep(tmp_path_factory.mktemp("sweep") / "made", plan, logs=True))


@pytest.fixture(scope="module")
def answers(grid: Grid) -> maps.Answers:
    return read_answers(grid)


def test_a_planted_difference_is_found_where_it_is_and_nowhere_else(grid: Grid, answers: maps.Answers) -> None:
    assert grid.axes == {"curate.train_videos": [15, 600], "curate.phrasings": [2, 12]}
    found = effects(grid, [("sft", "rl")], answers)
    assert [(e.at, e.split) for e in found[:4]] == [((size, wording), "test_id") for size in SIZES for wording in WORDINGS]
    assert len(found) == 8
    for effect in found:
        planted = 10.0 if effect.split == "test_wording" and effect.at and effect.at[1] == 12 else 0.0
        assert effect.difference == pytest.approx(planted, abs=3.5)
        assert effect.verdict == ("" if planted else "holds 0") or (not planted and effect.verdict == "not after correction")
        assert (effect.n, len(effect.by_seed)) == (180, 3)
    text = str(maps.effect_table(grid, found))
    assert text.count("holds 0") >= 5
    assert "train videos 600, phrasings 12" in text
    against_base = effects(grid, [("rl/base", "rl"), ("sft/base", "sft")], answers, splits=["test_id"])
    assert [e.name for e in against_base[::4]] == ["rl - rl/base", "sft - sft/base"]
    assert all(e.difference == pytest.approx(10, abs=3.5) and e.verdict == "" for e in against_base)


def test_nothing_planted_is_said_to_be_nothing(tmp_path: Path) -> None:
    grid = read_grid(make_sweep(tmp_path / "null", lambda *_: 0.5))
    found = effects(grid, [("sft", "rl")], resamples=4000)
    assert [e for e in found if e.verdict == ""] == []
    assert sum(e.verdict == "holds 0" for e in found) >= 6


def test_the_resampling_is_that_of_seeds_and_videos_drawn_one_by_one() -> None:
    """Against a bootstrap in plain loops: the same spread and the same tails."""
    rng = np.random.default_rng(3)
    sums = rng.normal(1.0, 2.0, (3, 25)) + np.array([[0.0], [1.0], [3.0]])
    counts = rng.integers(1, 4, (3, 25)).astype(float)
    means = crossed_means(sums, counts, 20_000)
    plain = []
    draw = random.Random(5)
    for _ in range(6000):
        seeds, videos = [draw.randrange(3) for _ in range(3)], [draw.randrange(25) for _ in range(25)]
        cells = [(s, v) for s in seeds for v in videos]
        plain.append(sum(sums[cell] for cell in cells) / sum(counts[cell] for cell in cells))
    assert np.std(means) == pytest.approx(np.std(plain), rel=0.04)
    for share in (2.5, 25, 75, 97.5):
        assert np.percentile(means, share) == pytest.approx(np.percentile(plain, share), abs=0.05)
    one, two = (crossed_means(sums, counts, 4000, apart=i) for i in (0, 1))
    flat = np.ones((3, 25)) * np.array([[0.0], [1.0], [3.0]])
    same = [crossed_means(flat, np.ones_like(flat), 4000, apart=i) for i in (0, 1)]
    assert np.array_equal(*same), "where videos do not differ, the same seeds give the same means"
    assert 0.1 < np.corrcoef(one, two)[0, 1] < 0.9, "and otherwise seeds alone are shared"


def test_holm_by_hand() -> None:
    # sorted .01 .02 .03 .04, times 4 3 2 1: .04 .06 .06 .04, and never below the one before
    assert holm([0.04, 0.01, 0.03, 0.02]) == pytest.approx([0.06, 0.04, 0.06, 0.06])
    assert holm([0.5, 0.9]) == [1.0, 1.0]
    assert holm([]) == []
    # 3 of 99 means at or below 0: (3 + 1) / 100 on one side, twice
    assert p_value(np.array([-1.0, -0.5, 0.0] + [1.0] * 96)) == pytest.approx(0.08)


def test_the_kind_of_query_that_gained_is_named(grid: Grid, answers: maps.Answers) -> None:
    found = effects(
        grid, [("sft", "rl")], answers, splits=["test_wording"], along=(), part_of=learned.type_of(grid), resamples=4000
    )
    assert [(e.part, e.at) for e in found] == [("a", None), ("b", None), ("c", None)]
    assert found[0].difference == pytest.approx(15, abs=3), "0.3 at half of the points"
    assert [e.verdict == "" for e in found] == [True, False, False]
    assert found[0].n == 4 * 3 * 20


def test_along_an_axis_all_points_of_the_other_count_together(grid: Grid, answers: maps.Answers) -> None:
    sizes, wordings = maps.marginals(grid, [("sft", "rl"), ("nowhere", "rl")], answers)
    assert [(e.split, e.at) for e in sizes[2:]] == [("test_wording", (15, None)), ("test_wording", (600, None))]
    assert [e.difference for e in sizes] == pytest.approx([0, 0, 5, 5], abs=2), "10 at one wording of two"
    assert [e.difference for e in wordings] == pytest.approx([0, 0, 0, 10], abs=2)
    assert {e.n for e in sizes + wordings} == {2 * 3 * QUERIES}
    points = [e.difference for e in effects(grid, [("sft", "rl")], answers, splits=["test_wording"])]
    assert wordings[3].difference == pytest.approx((points[1] + points[3]) / 2), "as many answers at either point"
    assert "phrasings 12 " in str(maps.effect_table(grid, wordings))


def test_what_is_remembered_and_not_learned(grid: Grid, answers: maps.Answers) -> None:
    table = learned.memory_table(grid, answers, ("rl", "sft"))
    rows = {(row.cells[0].value, row.cells[1].value): row.cells for row in table.rows}
    assert len(rows) == 8
    for (way, at), cells in rows.items():
        gap = cells[4]
        planted = 25.0 if way == "sft" and "train videos 15," in str(at) else 0.0
        assert gap.value == pytest.approx(planted, abs=5)
        assert gap.interval is not None
        assert gap.interval[0] <= planted <= gap.interval[1] or planted == 0
        assert (gap.note == "") == (planted > 0) or planted == 0


def test_curves_signatures_and_seconds(grid: Grid) -> None:
    found = learned.curves(grid, "rl", (15, 2))
    assert found["entropy"] == [(pytest.approx(0.2 * (i + 1)), pytest.approx(2.0 - 0.1 * i)) for i in range(5)]
    assert set(found) == {"entropy", "rewards/tiou/mean"}
    assert set(learned.curves(grid, "sft", (15, 2))) == {"entropy", "mean_token_accuracy"}
    figures = curve_figures(grid, {"rl": "RL", "sft": "SFT"}, (15, 2))
    assert [len(fig.data) for fig in figures] == [2, 1, 1]
    counted = str(learned.signature_counts(grid))
    assert "scale bias" in counted
    assert "0 of 12" in counted
    assert "12 of 12" in counted
    assert "one answer" not in counted, "what was measured nowhere is not listed"
    took = maps.seconds_table(grid)
    assert [cell.shown for cell in took.rows[0].cells] == ["train videos 15, phrasings 2", "220 s +-20", "223 s +-20"]


def test_samples_to_look_at_are_those_that_differ_most(grid: Grid, answers: maps.Answers) -> None:
    rows = learned.telling(grid, answers, "sft", "rl", (600, 12), "test_wording")
    assert [row["better"] for row in rows] == ["rl"] * 3 + ["sft"] * (len(rows) - 3)
    assert {row["type"] for row in rows[:3]} == {"a"}
    assert rows[0]["rl"] - rows[0]["sft"] == max(row["rl"] - row["sft"] for row in rows)
    assert rows[-1]["sft"] > rows[-1]["rl"]
    assert all((Path(run) / "predictions").is_dir() for run in rows[0]["runs"])


def test_the_map_is_drawn_and_shown_by_07(grid: Grid, answers: maps.Answers, tmp_path: Path) -> None:
    found = effects(grid, [("sft", "rl")], answers, resamples=4000)
    fig = map_figure(grid, found)
    symbols = [symbol for trace in fig.data for symbol in trace.marker.symbol]
    assert len(symbols) == 8
    assert symbols.count("circle") == 2
    assert {trace.name for trace in fig.data} == {"phrasings 2", "phrasings 12"}
    wide = next(trace for trace in fig.data if "circle" in trace.marker.symbol)
    assert list(np.array(wide.y) - np.array(wide.error_y.arrayminus)) == pytest.approx(
        [e.interval[0] for e in found if e.split == "test_wording" and e.at and e.at[1] == 12]
    )
    root = grid.rows[0].run.root.parent
    stage = open_stage("compare", {"run_dir": str(tmp_path), "sweep": str(root), "sweep_pairs": "rl:sft"})
    drawn = compare.sweep_map(stage)
    assert drawn is not None
    assert {e.name for e in drawn[1]} == {"sft - rl"}
    assert compare.sweep_map(open_stage("compare", {"run_dir": str(tmp_path)})) is None
    drawn = compare.sweep_map(open_stage("compare", {"run_dir": str(tmp_path), "sweep": str(root)}))
    assert drawn is not None
    assert {e.name for e in drawn[1]} == {"rl - rl/base", "sft - sft/base", "sft - rl"}
    with pytest.raises(Timer1Error, match="there are rl, sft"):
        compare.sweep_map(open_stage("compare", {"run_dir": str(tmp_path), "sweep": str(root), "sweep_pairs": "a:b"}))


def test_a_sweep_that_is_no_map_says_why(tmp_path: Path) -> None:
    with pytest.raises(Timer1Error, match=r"sweep 'nowhere': no sweep.json there"):
        read_grid("nowhere")
    rows: list[dict[str, Any]] = [{"name": "a", "run": "a", "way": "a", "at": {}, "seed": 0, "error": None}]
    atomic_write_json(tmp_path / "sweep.json", {"name": "s", "rows": rows})
    with pytest.raises(Timer1Error, match="this one varies 0"):
        read_grid(tmp_path)
    at = [{"x": i % 2, "y": i // 2, "z": 1} for i in range(4)]
    rows = [
        {"name": str(i), "run": str(i), "way": "a", "at": a, "seed": 0, "error": "e" if i else None} for i, a in enumerate(at)
    ]
    atomic_write_json(tmp_path / "sweep.json", {"name": "s", "rows": rows})
    read = read_grid(tmp_path)
    assert (list(read.axes), read.points) == (["x", "y"], [(0, 0)])
    assert read.notes == ["rows that failed are left out: 1, 2, 3"]
    assert json.loads((tmp_path / "sweep.json").read_text())["rows"][0] == rows[0]
    assert math.isclose(maps.seconds(replace(read.rows[0]).run), 0.0)
