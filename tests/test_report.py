"""report.html: whatever a run has is in it, what it lacks is said, and it needs nothing from outside."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from html import unescape
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote

import pytest
from view_run import make_run, spoiled

from timer1lib.data.notes import save_note
from timer1lib.errors import Timer1Error
from timer1lib.evaluation import signatures as signature_package
from timer1lib.evaluation.compare import compare_document, compare_runs
from timer1lib.evaluation.tables import MEANING, html_table, results_table, signature_table, signatures_table
from timer1lib.files import atomic_write_jsonl, read_jsonl
from timer1lib.forms import FORMS
from timer1lib.runfolder import RunFolder
from timer1lib.view import figures
from timer1lib.view.comparison import FIGURES, write_pages, write_sweep
from timer1lib.view.inspector import Inspector
from timer1lib.view.items import load_items
from timer1lib.view.report import anchor, choose, write_report


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
        "What was asked",
        "What differs from the defaults",
        "Training",
        "Data",
        "Where it is right and wrong",
        "Predictions against the truth",
        "Failure signatures",
        "Every answer",
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
    assert "no change that this many queries could show (paired difference -2.0 to +8.0 )" in words(text)
    card = re.findall(r'<div class="card">.*?</div>', text)[0]
    assert "GRPO on test_id" in card
    assert card.count('class="change up"') == 3  # of its four numbers, R1@0.5 alone stays neutral
    assert card.count('class="change soft"') == 1
    row["interval"] = [1.0, 5.0]
    run.metrics.write_text(json.dumps(metrics))
    assert "rises from" in write_report(run).read_text()


def section(text: str, anchor: str) -> str:
    return text[text.index(f'<section id="{anchor}"') :].split("</section>")[0]


def words(html: str) -> str:
    return " ".join(unescape(re.sub(r"<[^>]+>", " ", html)).split())


def test_what_was_asked_answered_and_rewarded_is_on_the_page(run: RunFolder) -> None:
    sample = run.read_samples("test_id")[0]
    asked = words(section(write_report(run).read_text(), "asked"))
    prompt = FORMS["timer1"].ask(sample.query, sample.duration).text
    assert " ".join(prompt.split()) in asked
    for name in ("base", "grpo"):
        answer = next(row for row in run.read_predictions(name, "test_id") if row.id == sample.id)
        assert " ".join(answer.completion.split()) in asked
    assert f"{sample.window[0]:.2f} to {sample.window[1]:.2f} s" in asked
    assert "1.0 × tiou : Timestamp-aware IoU" in asked
    assert "0.5 × ideas/edges.py:edge_iou : a function of one's own" in asked


def test_what_differs_from_the_defaults_and_nothing_else(run: RunFolder) -> None:
    rows = re.findall(r"<tr>(.*?)</tr>", section(write_report(run).read_text(), "parameters"))[1:]
    named = [words(row).split()[:3] for row in rows]
    assert [row[0] for row in named] == ["shared.form", "grpo.rewards", "grpo.beta"]
    assert named[2] == ["grpo.beta", "0.04", "0.0"]


def test_every_split_is_told_losses_as_plainly_as_gains(run: RunFolder) -> None:
    metrics = json.loads(run.metrics.read_text())
    metrics["splits"]["test_ood"]["grpo"] = metrics["splits"]["test_ood"]["base"] | {"R1@0.5": 1.0}
    metrics["splits"]["test_ood"]["base"]["R1@0.5"] = 21.0
    metrics["splits"]["qa"] = {
        "base": {"accuracy": 50.0, "n": 60, "chance": 25.0},
        "grpo": {"accuracy": 40.0, "n": 60, "chance": 25.0},
    }
    pairs = {"R1@0.5": {"difference": -20.0, "interval": [-30.0, -9.0], "n": 4}}
    metrics["paired"] = {
        "test_ood": {"base → grpo": pairs},
        "qa": {"base → grpo": {"accuracy": {"difference": -10.0, "interval": [-22.0, 1.0], "n": 60}}},
    }
    run.metrics.write_text(json.dumps(metrics))
    text = write_report(run).read_text()
    told = [words(part) for part in re.findall(r'<p class="lead">(.*?)</p>', text)]
    assert [part.split()[1] for part in told] == ["test_id", "test_ood", "qa"]
    assert "R1@0.5 falls from" in told[1]
    assert "accuracy goes from 50.0 % (base) to 40.0 % (GRPO)" in told[2]
    cards = re.findall(r'<div class="card">.*?</div>', text)
    assert len(cards) == 3
    assert 'class="change down"' in cards[1]
    assert "chance 25.0" in cards[2]
    shown = words(section(text, "results"))
    assert "Shown: GRPO is worse than base on test_ood (-20.0 points of R1@0.5, 95% interval -30.0 to -9.0, n = 4)." in shown
    assert "Not shown: that GRPO differs from base on qa (-10.0 points of accuracy, 95% interval -22.0 to +1.0, n = 60)." in shown


def test_every_sample_has_one_anchor_and_every_link_has_a_target(run: RunFolder) -> None:
    text = write_report(run, samples=5).read_text()
    ids = re.findall(r'id="(sample=[^"]+)"', text)
    assert sorted(ids) == sorted(anchor(item.key) for item in load_items(run))
    links = re.findall(r'href="#(sample=[^"]+)"', text)
    assert {"sample=test_id/s001", "sample=test_id/s003"} <= set(
        re.findall(r'href="#(sample=[^"]+)"', section(text, "signatures"))
    )
    assert {unquote(link) for link in links} <= set(ids)


def test_signatures_have_a_meaning_and_one_number_of_decimals(run: RunFolder) -> None:
    text = words(section(write_report(run).read_text(), "signatures"))
    assert MEANING["scale_bias"] in text
    assert "0.12 0.00 to 1.72" in text
    measured = {
        name
        for path in Path(signature_package.__file__).parent.glob("*.py")
        for name in re.findall(r'signature\(\s*"(\w+)"', path.read_text())
    }
    assert measured - {"prior_following"} <= set(MEANING)


def test_every_part_of_the_reward_is_a_curve(run: RunFolder) -> None:
    drawn = section(write_report(run).read_text(), "training")
    assert re.findall(r'"name":"([^"]+)"', drawn.split("reward and its parts")[1].split("</script>")[0])[:3] == [
        "weighted sum",
        "tiou",
        "edge_iou",
    ]
    for title in (
        "SFT: loss",
        "GRPO: groups that teach nothing",
        "GRPO: distance from the reference",
        "GRPO: entropy of the policy",
    ):
        assert title in drawn


def luminance(colour: str) -> float:
    """WCAG 2: relative luminance of #rrggbb."""
    parts = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    return sum(
        k * (c / 12.92 if c <= 0.03928 else ((c + 0.055) / 1.055) ** 2.4)
        for k, c in zip((0.2126, 0.7152, 0.0722), parts, strict=True)
    )


def contrast(one: str, two: str) -> float:
    high, low = sorted((luminance(one), luminance(two)), reverse=True)
    return (high + 0.05) / (low + 0.05)


def test_text_of_figures_has_contrast_on_light_and_dark_pages() -> None:
    assert contrast("#000000", "#ffffff") == pytest.approx(21)
    light, dark = re.search(r"--t1-fig-text: light-dark\((#\w+), (#\w+)\)", figures.CSS.read_text()).groups()
    in_lab = re.search(r"theme-light=.false.*?--t1-fig-text: (#\w+)", figures.CSS.read_text())[1]
    assert (
        min(contrast(light, "#ffffff"), contrast(dark, "#121418"), contrast(in_lab, "#111111"), contrast(figures.INK, "#ffffff"))
        >= 4.5
    )


def test_figures_send_nothing_anywhere_and_a_report_has_no_buttons(run: RunFolder) -> None:
    configs = re.findall(r"newPlot\(place, figure.data, figure.layout, (\{.*?\})\);", write_report(run).read_text())
    assert len(configs) >= 7
    for config in map(json.loads, configs):
        assert config["displayModeBar"] is False
        assert (config["showSendToCloud"], config["plotlyServerURL"]) == (False, "")
        assert config["toImageButtonOptions"]["format"] == "svg"
    assert (
        json.loads(re.findall(r"figure.layout, (\{.*?\})\);", figures.figure_html(figures.figure("a", "", ""), tools=True))[0])[
            "displayModeBar"
        ]
        == "hover"
    )


def test_two_runs_have_a_page_and_a_sweep_has_one_with_each_row(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sweep = tmp_path / "sweep"
    rows = []
    for seed, name in enumerate(("plain", "fast")):
        run = make_run(sweep / name, samples=12, videos=2, seed=7 * seed)
        run.params.write_text(f"name: {name}\ngrpo: {{learning_rate: {1e-5 * (1 + seed)}}}\n")
        rows.append(
            {
                "name": name,
                "variant": name,
                "seed": 0,
                "run": "elsewhere",
                "changes": {"grpo.learning_rate": seed},
                "seconds": 61.0,
                "error": None,
                "stages": {},
            }
        )
        for split in ("test_id", "test_ood"):  # both are asked the same
            run.write_samples(
                split,
                [
                    replace(s, video=f"clip_{i % 2}.mp4", query=f"q{i}", windows=[(1.0, 3.0)], duration=8.0)
                    for i, s in enumerate(run.read_samples(split))
                ],
            )
    page = write_pages([sweep / "plain", sweep / "fast"], tmp_path / "ab.html")[0]
    text, tags = parsed(page)
    assert "grpo.learning_rate" in words(section(text, "parameters"))
    assert "sweep/fast/report.html" not in tags.addresses
    assert re.search(r"(Shown|Not shown): .*fast.*plain", words(re.findall(r'<p class="lead">(.*?)</p>', text)[0]))
    assert "What changed</h2>" in text
    assert text.count("data:image/jpeg") >= 1
    value = compare_runs([sweep / "plain", sweep / "fast"], resamples=100)
    broken = {**rows[0], "name": "broken", "error": "out of memory"}
    (sweep / "sweep.json").write_text(
        json.dumps(
            {
                "name": "rates",
                "about": "Which rate?",
                "rows": [*rows, broken],
                "comparison": value,
                "pooled": None,
                "seconds": 130.0,
            }
        )
    )
    monkeypatch.setitem(FIGURES, "A map", lambda root, given: [figures.figure(f"the map of {given['name']}", "x", "y")])
    pages = write_pages([sweep])
    assert pages == [sweep / "report.html", sweep / "plain" / "report.html", sweep / "fast" / "report.html"]
    text, tags = parsed(pages[0])
    assert {"plain/report.html", "fast/report.html"} <= set(tags.addresses)
    assert "Which rate?" in text
    assert "broken: failed: out of memory" in words(text)
    assert "the map of rates" in section(text, "A-map")
    assert text.count("test_id: paired difference, 95% interval") >= 1
    with pytest.raises(Timer1Error, match="name it alone"):
        write_pages([sweep, sweep / "plain"])
    (sweep / "sweep.json").write_text("[]")
    with pytest.raises(Timer1Error, match="not what timer1 sweep writes"):
        write_sweep(sweep)
