"""report.html: whatever a run has is in it, what it lacks is said, and it needs nothing from outside."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import pytest
from view_run import make_run, spoiled

from timer1lib.data.notes import save_note
from timer1lib.errors import Timer1Error
from timer1lib.evaluation.compare import compare_document
from timer1lib.evaluation.tables import html_table, results_table, signature_table, signatures_table
from timer1lib.files import atomic_write_jsonl, read_jsonl
from timer1lib.runfolder import RunFolder
from timer1lib.view import figures
from timer1lib.view.inspector import Inspector
from timer1lib.view.items import load_items
from timer1lib.view.report import choose, write_report


@pytest.fixture
def run(tmp_path: Path) -> RunFolder:
    return make_run(tmp_path / "run", samples=12, videos=2)


class Tags(HTMLParser):
    """Opened and closed tags, and every address."""

    void = ("meta", "link", "br", "img", "image", "path", "rect", "circle", "input")

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.addresses: list[str] = []

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.addresses += [value or "" for name, value in attributes if name in ("src", "href")]
        if tag not in self.void:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        if tag not in self.void:
            assert self.open.pop() == tag

    def handle_startendtag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.addresses += [value or "" for name, value in attributes if name in ("src", "href")]


def parsed(path: Path) -> tuple[str, Tags]:
    text = path.read_text()
    tags = Tags()
    tags.feed(text)
    assert tags.open == []
    return text, tags


def test_a_whole_run(run: RunFolder) -> None:
    text, tags = parsed(write_report(run))
    metrics = json.loads(run.metrics.read_text())
    for by_name in metrics["splits"].values():
        for row in by_name.values():
            assert f"{row['R1@0.5']:.1f}" in text
    for heading in (
        "Results",
        "Training",
        "Data",
        "Where it is right and wrong",
        "Predictions against the truth",
        "Failure signatures",
    ):
        assert f"</span>{heading}</h2>" in text
    assert text.count("window.timer1Plotly ??=") == 1  # plotly.js once
    assert text.count("Plotly.newPlot") >= 7
    assert text.count("<svg") >= 4
    assert "data:image/jpeg;base64," in text
    assert all(address.startswith(("data:", "#")) for address in tags.addresses)
    assert "Not in this report yet" not in text


def test_an_empty_run_says_what_is_missing(tmp_path: Path) -> None:
    text, _ = parsed(write_report(RunFolder(tmp_path)))
    for what in ("run 05_evaluate", "run 02_sft", "run 04_grpo"):
        assert what in text
    with pytest.raises(Timer1Error, match="no such run"):
        write_report(RunFolder(tmp_path / "nowhere"))


def test_a_difficulty_that_nobody_judged_is_left_out(run: RunFolder) -> None:
    assert "(1 is easy)" in parsed(write_report(run))[0]
    rows = [{**row, "iou": None} for row in read_jsonl(run.data("difficulty"))]
    atomic_write_jsonl(run.data("difficulty"), rows)
    text, _ = parsed(write_report(run))
    assert "(1 is easy)" not in text
    assert "NoneType" not in text


def test_a_broken_file_costs_its_section_only(run: RunFolder) -> None:
    run.log("grpo").write_text("{broken\n{}\n")
    run.metrics.write_text('{"splits": {"test_id": {"grpo": {"mIoU": 41.25, "R1@0.5": null}}}, "signatures": 3, "failed": "x"}')
    text, _ = parsed(write_report(run))
    assert "grpo.jsonl, line 1" in text
    assert "41.2" in text
    assert "Predictions against the truth" in text


def test_bad_videos_cost_their_pictures_only(tmp_path: Path) -> None:
    run = spoiled(make_run(tmp_path / "bad", samples=10, videos=5))
    text, _ = parsed(write_report(run, samples=10))
    assert "Predictions against the truth</h2>" in text
    lines = re.findall(r"no pictures: ([^<]*)</p>", text)
    assert {name for name in ("clip_1.webm", "clip_2.mkv", "clip_3.mp4") if any(name in line for line in lines)} != set()
    assert text.count("<figure") == len(lines) + text.count("data:image/jpeg")
    assert "Not in this report yet" not in text


def test_names_from_data_cannot_become_markup(run: RunFolder) -> None:
    samples = run.read_samples("test_id")
    for sample in samples:
        sample.query = '</script><img src=x onerror="alert(1)">'
        sample.type = "<b>type</b>"
    run.write_samples("test_id", samples)
    predictions = run.predictions("grpo", "test_id")
    predictions.write_text(re.sub(r"<think>", "<think></svg><script>alert(2)</script>", predictions.read_text()))
    text, _ = parsed(write_report(run))
    assert "<img src=x" not in text
    assert "<script>alert" not in text
    assert "<b>type" not in text


PLANTED = """</script><script>alert("1")</script><img src=x onerror='alert(2)'>{{ 7 * 7 }}{% for x in y %}"""


def test_planted_scripts_are_text_everywhere(run: RunFolder) -> None:
    """In queries, types, completions, errors, notes and names: report, tables, comparison, scrubber, static pictures."""
    samples = [replace(s, query=PLANTED, type=PLANTED, source=PLANTED) for s in run.read_samples("test_id")]
    run.write_samples("test_id", samples)
    rows = [replace(row, completion=PLANTED, error=PLANTED) for row in run.read_predictions("grpo", "test_id")]
    atomic_write_jsonl(run.predictions("grpo", "test_id"), (row.to_json() for row in rows))
    metrics = json.loads(run.metrics.read_text())
    metrics["failed"] = [{"id": PLANTED, "split": PLANTED, "error": PLANTED}]
    metrics["baselines"]["test_id"][PLANTED] = metrics["baselines"]["test_id"].pop("whole video")
    metrics["signatures"]["test_id"]["grpo"][PLANTED] = {"value": 1.0, "unit": PLANTED, "samples": [samples[0].id]}
    metrics["splits"]["test_id"]["grpo"]["by_type"][PLANTED] = {"n": 1, "R1@0.5": 1.0}
    run.metrics.write_text(json.dumps(metrics))
    run.manifest.write_text(json.dumps({"name": PLANTED, "git": {"commit": PLANTED}, "machine": {"processor": PLANTED}}))
    run.params.write_text(f"name: {json.dumps(PLANTED)}\n")
    save_note(run.notes, samples[0].id, "note", PLANTED)
    items = load_items(run)
    view = Inspector(run, items, run.root / "cache")
    tables = [results_table(metrics, "test_id", title=PLANTED), signatures_table(metrics["signatures"]["test_id"])]
    tables.append(signature_table(metrics["signatures"]["test_id"]["grpo"], PLANTED))
    value = {
        "splits": {PLANTED: {"kind": "grounding", "rows": [{"run": PLANTED, "checkpoint": PLANTED, "mIoU": 1.0}], "paired": {}}}
    }
    pages = {
        "report": write_report(run).read_text(),
        "inspector": view.static_html(),
        "comparison": compare_document({**value, "comparison": ">=", "reference": PLANTED, "notes": [PLANTED]}, "html"),
        "tables": "".join(map(html_table, tables)),
        "warnings": figures.warnings_html({PLANTED: {"warnings": [PLANTED]}}),
        "figure": str(figures.figure_html(figures.figure(PLANTED, PLANTED, PLANTED))),
    }
    for name, page in pages.items():
        tags = Tags()
        tags.feed(page)
        assert tags.open == [], name
        assert "x" not in tags.addresses, name
        assert '<script>alert("1")' not in page, name
        assert "{{ 7 * 7 }}" in page, name
    assert view.scrubber.item["query"] == PLANTED  # to the browser as it is: scrubber.js writes text, never markup
    assert view.scrubber.item["note"]["text"] == PLANTED
    for path in Path(figures.__file__).parent.glob("*.js"):
        assert not re.search(r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|eval\(", path.read_text()), path


def test_examples_are_of_every_kind_and_none_twice(run: RunFolder) -> None:
    groups = choose(load_items(run), 10)
    keys = [item.key for _, items in groups for item in items]
    assert len(keys) == len(set(keys)) <= 10
    gained = dict(groups)["Gained most from first to last checkpoint"][0]
    gains = {item.key: item.ious()["grpo"] - item.ious()["base"] for item in load_items(run)}
    assert gains[gained.key] == max(gains.values())


def test_a_change_within_noise_is_not_called_one(run: RunFolder) -> None:
    metrics = json.loads(run.metrics.read_text())
    row = {"difference": 3.0, "interval": [-2.0, 8.0], "p": 0.3, "n": 8}
    metrics["paired"] = {"test_id": {"base → grpo": {"R1@0.5": row, "mIoU": {**row, "interval": [1.0, 8.0]}}}}
    run.metrics.write_text(json.dumps(metrics))
    text = write_report(run).read_text()
    assert "no change that this many queries could show (paired difference -2.0 to +8.0)" in text
    assert text.count('class="change up"') == 3  # of the four cards, R1@0.5 alone stays neutral
    row["interval"] = [1.0, 5.0]
    run.metrics.write_text(json.dumps(metrics))
    assert "rises from" in write_report(run).read_text()
