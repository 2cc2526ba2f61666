"""Runs made by hand, compared: the tables, the pairing, and what is refused."""

from __future__ import annotations

import csv
import io
import json
import os
import random
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any, get_args

import pytest

from timer1lib.errors import Timer1Error
from timer1lib.evaluation import columns
from timer1lib.evaluation.compare import (
    PUBLISHED,
    SCORES,
    beside_published,
    compare_document,
    compare_runs,
    published_rows,
    sentence,
)
from timer1lib.evaluation.differing import default_pair, runs_table, runs_there
from timer1lib.evaluation.measure import Evidence, measure_run, pairs
from timer1lib.evaluation.pooled import pool, pooled_tables
from timer1lib.evaluation.scored import Floats, Scored
from timer1lib.evaluation.tables import (
    Cell,
    Format,
    brief_table,
    document,
    html_table,
    markdown_table,
    results_table,
    table_of,
    text_table,
)
from timer1lib.files import atomic_write_json, atomic_write_jsonl, read_json
from timer1lib.forms import FORMS
from timer1lib.params.sections import CompareParams
from timer1lib.runfolder import RunFolder
from timer1lib.schema import Prediction, Sample
from timer1lib.view.report import write_report


def world(count: int = 60) -> list[Sample]:
    rng = random.Random(1)
    samples = []
    for i in range(count):
        start = rng.uniform(0, 20)
        samples.append(Sample(f"s{i}", f"v{i // 2}.mp4", f"event {i}", 30.0, [(start, start + 8)], type=("a", "b")[i % 2]))
    return samples


QUESTIONS = [Sample(f"q{i}", f"w{i}.mp4", "which", 20.0, options=["x", "y"], answer=i % 2) for i in range(20)]


def make_run(
    folder: Path, samples: list[Sample], off: Callable[[int], float], right: int = 20, checkpoint: str = "grpo"
) -> RunFolder:
    """A run whose answer to sample i is its window moved by `off(i)` seconds, with `right` questions right."""
    run = RunFolder(folder)
    folder.mkdir(parents=True)
    run.params.write_text(f"name: {folder.name}\n")
    run.write_samples("test_id", samples)
    run.write_samples("qa_short", QUESTIONS)
    run.write_samples("train", world(20))
    spans = [(s.window[0] + off(i), s.window[1] + off(i)) for i, s in enumerate(samples)]
    answers = [
        Prediction(s.id, *span, f"<think>x</think><answer>{span[0]:.2f} to {span[1]:.2f}</answer>")
        for s, span in zip(samples, spans, strict=True)
    ]
    choices = [Prediction(q.id, answer=q.answer if i < right else 1 - (q.answer or 0)) for i, q in enumerate(QUESTIONS)]
    base = [Prediction(s.id, 0, 30) for s in samples]
    given = {
        ("grounding", "base", "test_id"): base,
        ("grounding", checkpoint, "test_id"): answers,
        ("questions", checkpoint, "qa_short"): choices,
    }
    for (_, name, split), rows in given.items():
        atomic_write_jsonl(run.predictions(name, split), (row.to_json() for row in rows))
    evidence = Evidence({"test_id": ("grounding", samples), "qa_short": ("questions", QUESTIONS)}, given, world(20))
    atomic_write_json(run.metrics, {"model": "tiny", **measure_run(evidence, FORMS["timer1"], ">=", 200, 0)})
    return run


def test_two_runs(tmp_path: Path) -> None:
    samples = world()
    make_run(tmp_path / "one", samples, lambda i: 4.0)  # IoU 4 / 12
    make_run(tmp_path / "two", samples, lambda i: 4.0 if i % 3 else 0.0, right=10)  # every third one exact
    value = compare_runs([tmp_path / "one", tmp_path / "two"], resamples=500)
    first, second = value["splits"]["test_id"]["rows"]
    assert (first["run"], first["checkpoint"], second["run"]) == ("one", "grpo", "two")
    assert first["mIoU"] == pytest.approx(100 / 3)
    assert second["mIoU"] == pytest.approx(100 * (1 / 3 + 2 / 9))
    row = value["splits"]["test_id"]["paired"]["one → two"]["mIoU"]
    assert row["difference"] == pytest.approx(200 / 9)
    assert row["n"] == 60
    assert row["p"] < 0.01
    low, high = row["interval"]
    assert low <= row["difference"] <= high
    assert value["splits"]["qa_short"]["paired"]["one → two"]["accuracy"]["difference"] == -50
    assert value["notes"] == []
    text = compare_document(value)
    assert "IoU >= m" in text
    assert "33.3" in text
    assert "55.6" in text
    assert compare_document(value, "html").count("<table>") == 4
    json.dumps(value, allow_nan=False)
    base = compare_runs([tmp_path / "one"], checkpoint="base", resamples=100)["splits"]["test_id"]["rows"][0]
    assert base["mIoU"] == pytest.approx(100 * 8 / 30)


def test_runs_with_other_samples_are_paired_over_what_they_share(tmp_path: Path) -> None:
    samples = world()
    make_run(tmp_path / "one", samples, lambda i: 0.0)
    other = [Sample(f"x{i}", s.video, s.query, s.duration, s.windows) for i, s in enumerate(samples[10:])]
    make_run(tmp_path / "two", other, lambda i: 4.0)
    value = compare_runs([tmp_path / "one", tmp_path / "two"], resamples=100)
    row = value["splits"]["test_id"]["paired"]["one → two"]["mIoU"]
    assert row["n"] == 50
    assert row["difference"] == pytest.approx(-200 / 3)
    assert value["notes"] == ["test_id: one and two share 50 of 60 and 50 samples"]


def test_names_tell_runs_apart(tmp_path: Path) -> None:
    for seed in ("seed0", "seed1"):
        make_run(tmp_path / seed / "run", world(20), lambda i: 1.0)
    value = compare_runs([tmp_path / "seed0" / "run", tmp_path / "seed1" / "run"], resamples=100)
    assert [run["name"] for run in value["runs"]] == ["seed0/run", "seed1/run"]


def test_what_is_refused(tmp_path: Path) -> None:
    run = make_run(tmp_path / "one", world(20), lambda i: 0.0)
    with pytest.raises(Timer1Error, match="no such folder"):
        compare_runs([tmp_path / "none"])
    with pytest.raises(Timer1Error, match="named twice"):
        compare_runs([tmp_path / "one", tmp_path / "one"])
    with pytest.raises(Timer1Error, match="no predictions of checkpoint 'sft'"):
        compare_runs([tmp_path / "one"], checkpoint="sft")
    with pytest.raises(Timer1Error, match="at least one"):
        compare_runs([])
    run.metrics.write_text("[]")
    with pytest.raises(Timer1Error, match="not a metrics file"):
        compare_runs([tmp_path / "one"])
    run.metrics.unlink()
    with pytest.raises(Timer1Error, match="run 05_evaluate"):
        compare_runs([tmp_path / "one"])


def test_metrics_hold_baselines_differences_signatures_and_failures(tmp_path: Path) -> None:
    samples = world()
    given = {
        ("grounding", "base", "test_id"): [Prediction(s.id, 0, 30) for s in samples],
        ("grounding", "sft", "test_id"): [Prediction(s.id, *s.window) for s in samples[1:]]
        + [Prediction("s0", error="v0.mp4: no such file")],
    }
    metrics = measure_run(Evidence({"test_id": ("grounding", samples)}, given, world(30)), FORMS["timer1"], ">", 200, 0)
    assert metrics["comparison"] == ">"
    assert metrics["splits"]["test_id"]["sft"]["mIoU"] == pytest.approx(100 * 59 / 60)
    assert metrics["failed"] == [
        {"id": "s0", "split": "test_id", "checkpoint": "sft", "asked": "grounding", "error": "v0.mp4: no such file"}
    ]
    baselines = metrics["baselines"]["test_id"]
    assert set(baselines) == {"whole video", "window prior", "query words + prior"}
    assert baselines["whole video"]["mIoU"] == metrics["splits"]["test_id"]["base"]["mIoU"] == pytest.approx(100 * 8 / 30)
    difference = metrics["paired"]["test_id"]["base → sft"]["mIoU"]
    assert difference["difference"] == pytest.approx(100 * (59 / 60 - 8 / 30))
    assert (
        metrics["signatures"]["test_id"]["base"]["scale_bias"]["flagged"]
        or metrics["signatures"]["test_id"]["base"]["one_answer"]["flagged"]
    )
    table = results_table(metrics, "test_id")
    assert [row.cells[0].shown for row in table.rows] == [
        "(whole video)",
        "(window prior)",
        "(query words + prior)",
        "base",
        "SFT",
    ]
    assert [head.title for head in table.head][:6] == ["checkpoint", "n", "answered", "unparsable", "mIoU", "R1@0.3"]
    assert table.rows[4].cells[4].shown == f"{100 * 59 / 60:.1f}"
    assert [row.kind for row in table.rows] == ["baseline", "baseline", "baseline", "", "best"]
    assert pairs(["base", "sft", "grpo"]) == [("base", "sft"), ("sft", "grpo"), ("base", "grpo")]
    json.dumps(metrics, allow_nan=False)


def test_a_new_column_is_one_entry(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A metric that answers are early in: counted here by hand, 40 of 60, and the whole video (base) always starts early."""

    def early(scored: Scored) -> Floats:
        return 100.0 * (scored.span[:, 0] < scored.window[:, 0])

    entry = columns.Column("early", "early starts", better="less", tip="answers that start too early", of=early, digits=3)
    samples = world()
    monkeypatch.setattr(columns, "COLUMNS", [*columns.COLUMNS, entry])
    run = make_run(tmp_path / "one", samples, lambda i: -1.0 if i % 3 else 1.0)
    two = make_run(tmp_path / "two", samples, lambda i: -1.0 if i % 2 else 1.0)
    metrics = read_json(run.metrics)
    row = metrics["splits"]["test_id"]["grpo"]
    low, high = row["interval"]["early"]
    assert row["early"] == pytest.approx(100 * 40 / 60)
    assert low < row["early"] < high
    table = results_table(metrics, "test_id")
    comparison = compare_runs([run.root, two.root], resamples=100)
    pooled = document(pooled_tables(pool([("a", 0, run.root), ("b", 0, two.root)], resamples=100)))
    report = write_report(run, tmp_path / "cache").read_text()
    for text in (
        text_table(table),
        html_table(table),
        markdown_table(table),
        report,
        compare_document(comparison),
        compare_document(comparison, "html"),
        pooled,
    ):
        assert "early starts" in text
        assert "66.667" in text
    assert f"66.667 [{low:.3f}, {high:.3f}]" in markdown_table(table)
    for html in (html_table(table), report, compare_document(comparison, "html")):
        assert 'title="answers that start too early; less is better"' in html
    assert "50.000" in compare_document(comparison)  # every second answer of the other run
    monkeypatch.undo()
    assert "early starts" not in text_table(results_table(metrics, "test_id"))


def test_every_table_has_the_checkpoints_in_the_order_of_training() -> None:
    scores = {"grpo": {"mIoU": 3.0, "n": 4}, "other": {"mIoU": 4.0}, "base": {"mIoU": 1.0}, "sft": {"mIoU": 2.0}}
    metrics = {"splits": {"test_id": scores}, "baselines": {"test_id": {"whole video": {"mIoU": 0.5}}}}
    for table, place in ((results_table(metrics, "test_id"), 0), (brief_table(metrics), 1)):
        names = [row.cells[place].shown for row in table.rows if row.kind != "baseline"]
        assert names[:4] == ["base", "SFT", "GRPO", "other"]
    assert [line.split()[-1] for line in text_table(brief_table(metrics)).splitlines()[2:]] == ["1.0", "2.0", "3.0", "4.0"]


def test_tables_escape_what_they_are_given() -> None:
    table = table_of([{"run": "<b>|x", "mIoU": Cell(1.0, (0.5, 1.5), note="<i>")}, {"run": "y"}], title="<h1>")
    html = html_table(table)
    assert "&lt;b&gt;|x" in html
    assert not {"<b>", "<i>", "<h1>"} & set(re.findall(r"<\w+>", html))
    assert markdown_table(table).splitlines()[2] == "| <b>\\|x | 1.0 [0.5, 1.5] (<i>) |"
    lines = text_table(table).splitlines()
    assert len({len(line) for line in lines}) == 1
    empty = table_of([])
    assert text_table(empty) == html_table(empty) == markdown_table(empty) == ""


def test_published_facts_have_sources() -> None:
    assert all(row["source"] and row["model"] and row["counts"] in (">", ">=", "") for row in published_rows())
    row = next(r for r in published_rows("TVGBench") if r["model"] == "Time-R1 7B")
    assert (row["R1@0.3"], row["R1@0.5"], row["R1@0.7"]) == (41.8, 29.4, 16.4)
    assert len(published_rows()) == len(PUBLISHED.read_text().splitlines()) - 1
    named = get_args(CompareParams.model_fields["benchmark"].annotation)
    assert {row["benchmark"] for row in published_rows()} == {*named} - {"all"}
    tuned = {r["model"]: r["R1@0.7"] for r in published_rows("Charades-STA") if r["setting"] == "fine-tuned"}
    assert tuned == {"EaTR": 44.9, "HawkEye": 28.8, "TimeSuite": 43.0, "Time-R1 7B": 50.1}
    lens = next(r for r in published_rows("QVHighlights-TimeLens") if r["model"] == "TimeLens-8B")
    assert [lens[name] for name in SCORES] == [80.2, 71.6, 55.5, 65.5]


def test_a_run_stands_beside_what_was_published_on_its_benchmark() -> None:
    row = {"run": "mine", "checkpoint": "grpo", "n": 800, "mIoU": 30.0, "R1@0.3": 42.0, "R1@0.5": 30.0, "R1@0.7": 17.0}
    splits = {"tvgbench": {"kind": "grounding", "rows": [row]}, "mvbench": {"kind": "questions", "rows": [{}]}}
    value = {"comparison": ">", "splits": splits}
    rows = beside_published(value)
    assert rows[0] | {"source": ""} == {
        "benchmark": "TVGBench", "model": "mine (grpo)", "kind": "this comparison", "setting": "", "R1@0.3": 42.0, "R1@0.5": 30.0,
        "R1@0.7": 17.0, "mIoU": 30.0, "counts": ">", "source": "",
    }  # fmt: skip
    assert "800" in str(rows[0]["source"])
    assert rows[1:] == published_rows("TVGBench")
    assert beside_published(value, "Charades-STA") == published_rows("Charades-STA")
    assert beside_published({"comparison": ">", "splits": {}}) == published_rows()


def two_runs(tmp_path: Path) -> dict[str, Any]:
    """Two, better on half of the questions, with beta set, at other seeds, and a reward of the same name that holds something else."""
    samples = world()
    one = make_run(tmp_path / "one", samples, lambda i: 4.0)
    two = make_run(tmp_path / "two", samples, lambda i: 4.0 if i % 2 else 0.0, right=10)
    two.params.write_text("name: two\nshared: {seed: 1, workers: 7}\ngrpo: {beta: 0.04}\ninspect: {static_samples: 3}\n")
    for run, mark in ((one, "aaaa1111"), (two, "bbbb2222")):
        atomic_write_json(
            run.manifest, {"inputs": {"grpo.rewards": [f"edge: sha256:{mark}"]}, "git": {"commit": mark, "modified": False}}
        )
    return compare_runs([one.root, two.root], resamples=200)


def test_a_comparison_starts_with_the_parameters_in_which_runs_differ(tmp_path: Path) -> None:
    value = two_runs(tmp_path)
    found = {row["parameter"]: row["values"] for row in value["parameters"]}
    assert found == {  # not workers or static_samples, which change no result, nor the name
        "shared.seed": {"one": 0, "two": 1},
        "grpo.rewards, what it holds": {"one": "aaaa1111", "two": "bbbb2222"},
        "grpo.beta": {"one": 0.0, "two": 0.04},
    }
    assert value["notes"] == ["made by different code: one by aaaa1111, two by bbbb2222"]
    text = compare_document(value)
    assert text.splitlines()[0] == "In what the runs differ"
    assert re.search(r"grpo.beta +0.0 +0.0 +0.04", text)
    same = make_run(tmp_path / "same", world(20), lambda i: 0.0)
    other = make_run(tmp_path / "other", world(20), lambda i: 0.0)
    assert "differ in no parameter" in compare_document(compare_runs([same.root, other.root], resamples=100))
    (other.params).unlink()
    unknown = compare_runs([same.root, other.root], resamples=100)
    assert "differ" not in compare_document(unknown).splitlines()[0]
    assert "its parameters are not known" in unknown["notes"][0]


def test_one_comparison_in_five_formats(tmp_path: Path) -> None:
    value = two_runs(tmp_path)
    row = value["splits"]["test_id"]["rows"][1]
    low, high = row["interval"]["mIoU"]
    csv_rows = list(csv.DictReader(io.StringIO(compare_document(value, "csv"))))
    assert [(r["table"], r["run"], r["grpo.beta"]) for r in csv_rows[:2]] == [
        ("test_id", "one", "0.0"),
        ("test_id", "two", "0.04"),
    ]
    assert float(csv_rows[1]["mIoU"]) == pytest.approx(row["mIoU"])
    assert (float(csv_rows[1]["mIoU low"]), float(csv_rows[1]["mIoU high"])) == (pytest.approx(low), pytest.approx(high))
    latex = compare_document(value, "latex")
    assert latex.count("\\toprule") == latex.count("\\bottomrule") == 3
    assert f"{row['mIoU']:.1f} [{low:.1f}, {high:.1f}]" in latex
    for line in latex.splitlines():
        assert not re.search(r"(?<!\\)[%_#]", line), line
    markdown = compare_document(value, "markdown")
    assert "### In what the runs differ\n\n| parameter | default | one | two |" in markdown
    for format in get_args(Format):
        text = compare_document(value, format)
        assert ("better than one on test" in text.replace("\\_", "_")) is (format != "csv")


def test_the_sentence_says_what_is_shown_and_what_is_not() -> None:
    def entry(difference: float, low: float, high: float) -> dict[str, dict[str, Any]]:
        return {"mIoU": {"difference": difference, "interval": [low, high], "n": 9}}

    paired = {"in": {"a → b": entry(3.0, 1.0, 5.0)}, "out": {"a → b": entry(-4.0, -6.0, -2.0), "a → c": entry(-1.0, -3.0, 1.0)}}
    text = sentence(paired)
    assert (
        "Shown: b is better than a on in (+3.0 points of mIoU, 95% interval +1.0 to +5.0, n = 9); b is worse than a on out"
        in text
    )
    assert "Not shown: that c differs from a on out (-1.0 points" in text
    assert "another seed" in text
    assert "by chance" not in text
    assert "over 3 seeds" in sentence(paired, seeds=3)
    assert " c " not in sentence(paired, pair="a → b")
    assert "about 0.3 would be shown by chance" in sentence({str(i): paired["in"] for i in range(6)})
    assert sentence({"in": {"a → b": entry(0.0, 0.0, 0.0)}}).startswith("Shown: nothing. Not shown: that b differs")
    many = sentence({str(i): {"a → b": entry(0.1, -1.0, 1.0)} for i in range(7)})
    assert "Not shown: 7 other differences, whose intervals hold 0." in many
    assert sentence({}) == "Nothing is compared here: it takes two that answered the same questions."


def test_without_names_the_newest_is_compared_with_the_default(tmp_path: Path) -> None:
    runs = [make_run(tmp_path / name, world(20), lambda i: 0.0) for name in ("old", "tiny", "new")]
    for age, run in enumerate(reversed(runs)):
        os.utime(run.metrics, (1_700_000_000 - age, 1_700_000_000 - age))
    runs[2].params.write_text("name: new\ngrpo: {beta: 0.5}\n")
    (tmp_path / "unfinished").mkdir()
    listed = runs_table(runs_there(tmp_path))
    assert [(row.cells[0].shown, row.cells[-1].shown) for row in listed.rows] == [
        ("new", "grpo.beta=0.5"),
        ("tiny", "nothing"),
        ("old", "nothing"),
    ]
    assert default_pair(runs_there(tmp_path)) == ["tiny", "new"]
    assert default_pair(runs_there(tmp_path), "tiny") == ["tiny", "new"]
    assert default_pair(runs_there(tmp_path), "old") == ["tiny", "old"]
    assert default_pair(runs_there(tmp_path / "unfinished")) == []
