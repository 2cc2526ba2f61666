"""Pages of several runs: two or more beside each other, and a sweep with its rows."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import quote

import plotly.graph_objects as go

from timer1lib.errors import Timer1Error
from timer1lib.evaluation.answers import find_run, find_sweep
from timer1lib.evaluation.columns import main_score, number
from timer1lib.evaluation.compare import compare_runs, compare_table, parameters_part, sentence, verdict
from timer1lib.evaluation.maps import axes_of, can_be_drawn, effects, read_grid
from timer1lib.evaluation.pooled import means_table, pooled_tables
from timer1lib.evaluation.tables import Cell, Head, Line, Table, paired_table, scores_of, unbroken
from timer1lib.files import project_root, read_json, read_jsonl
from timer1lib.progress import Progress, clock
from timer1lib.runfolder import SWEEP, RunFolder
from timer1lib.schema import Sample
from timer1lib.view import figures
from timer1lib.view.figures import figure_html
from timer1lib.view.items import Item, load_items, styles
from timer1lib.view.maps import map_figures
from timer1lib.view.page import Page, macro
from timer1lib.view.report import HEADLINE, cache_of, choose, examples, write_report


def write_pages(names: Sequence[str | Path], out: Path | None = None) -> list[Path]:
    """The page of a run, of several beside each other, or of a sweep with those of its rows; returns what was written.

    Args:
        names: runs, as folders or names under `outputs/`, or one folder of a sweep (or its name under `outputs/sweeps/`).
        out: the file of the page, in place of `report.html` in the folder, or `outputs/reports/A-B.html` for several runs.
    """
    sweeps = {name: folder for name in names if (folder := find_sweep(name)) is not None}
    if sweeps and len(names) > 1:
        raise Timer1Error(f"{next(iter(sweeps))}: a sweep has a page of its own; name it alone, or runs alone")
    if sweeps:
        return write_sweep(next(iter(sweeps.values())), out)
    folders = [find_run(name) for name in names]
    if len(folders) > 1:
        return [write_comparison(folders, out)]
    if out is not None:
        raise Timer1Error(f"--out: the report of one run stands in it, {folders[0] / 'report.html'}")
    return [write_report(RunFolder(folders[0]))]


def write_comparison(folders: Sequence[Path], out: Path | None = None, samples: int = 10) -> Path:
    """Several runs on one page: in what they differ, tables, figures, the samples that changed; errors as `compare_runs`."""
    value = compare_runs(folders)
    names = [run["name"] for run in value["runs"]]
    path = out or project_root() / "outputs" / "reports" / f"{'-'.join(name.replace('/', '.') for name in names)[:120]}.html"
    page = Page(" · ".join(names), "runs beside each other")
    page.missing.extend(value["notes"])
    page.add("parameters", "In what they differ", lambda: macro("text_or_table", parameters_part(value)))
    _results(page, value)
    page.add("training", "Training", lambda: training({run["name"]: RunFolder(Path(run["path"])) for run in value["runs"]}))
    first = RunFolder(folders[0])
    page.add("samples", "What changed", lambda: examples(first, cache_of(first), choose(shared_items(value), samples, "run")))
    page.add("runs", "The runs", lambda: macro("wide", runs_table(value, path.parent)))
    return page.write(path, [unbroken(verdict(value))], _origin(value))


def write_sweep(root: Path, out: Path | None = None) -> list[Path]:
    """The page of a sweep and the reports of its rows; a Timer1Error where `sweep.json` is not there, or none of ours."""
    given = read_json(root / SWEEP)
    if not isinstance(given, dict) or not isinstance(given.get("rows"), list):
        raise Timer1Error(f"{root / SWEEP}: not what timer1 sweep writes")
    path = out or root / "report.html"
    rows = [{**row, "run": str(root / row["name"])} for row in given["rows"]]
    runs = [RunFolder(Path(row["run"])) for row in rows if (Path(row["run"]) / "params.yaml").is_file()]
    made, bar = [], Progress("reports of the rows", len(runs))
    for run in runs:
        made.append(write_report(run))
        bar.update()
    value, pooled = given.get("comparison"), given.get("pooled") or {}
    seeds = len({row["seed"] for row in rows})
    page = Page(str(given.get("name") or root.name), "sweep")
    page.missing.extend(f"{row['name']}: failed: {row['error']}" for row in rows if row["error"])
    page.add("rows", "Rows", lambda: macro("wide", rows_table(rows, path.parent)))
    lead = [str(given["about"])] if given.get("about") else []
    if value:
        told = sentence({s: part["paired"] for s, part in pooled.items()}, seeds=seeds) if pooled else verdict(value)
        lead.append(unbroken(told))
        page.missing.extend(value.get("notes", ()))
        page.add("parameters", "In what they differ", lambda: macro("text_or_table", parameters_part(value)))
        page.add("means", "Means", lambda: macro("tables", [means_table(rows), *pooled_tables(pooled)]))
        for name, make in FIGURES.items():
            page.add(name.replace(" ", "-"), name, partial(_figures, make, root, given))
        _results(page, value)
        ended = {row["name"]: RunFolder(Path(row["run"])) for row in rows if not row["error"]}
        page.add("training", "Training", lambda: training(ended))
    origin = (
        f"{len(rows)} rows, {seeds} seed{'s' * (seeds > 1)} · {given.get('date', '')} · {clock(float(given.get('seconds', 0)))}"
    )
    return [page.write(path, lead, origin), *made]


def differences(root: Path, sweep: Mapping[str, Any]) -> list[go.Figure]:
    """Paired differences with their intervals, a figure a split: over seeds where there are several."""
    splits = sweep.get("pooled") or (sweep.get("comparison") or {}).get("splits") or {}
    return [fig for split, part in splits.items() if (fig := figures.forest(part["paired"], split)) is not None]


def over_the_grid(root: Path, sweep: Mapping[str, Any]) -> list[go.Figure]:
    """The map of a sweep whose grid varies one or two parameters, a figure for each of its pairs."""
    if not can_be_drawn(axes_of(sweep["rows"])):
        return []
    grid = read_grid(root)
    return map_figures(grid, effects(grid, grid.pairs)) if grid.rows else []


FIGURES: dict[str, Callable[[Path, Mapping[str, Any]], list[go.Figure]]] = {"Differences": differences, "Map": over_the_grid}
"""Figures of a sweep's page by their heading, from its folder and its `sweep.json`; one that gives none has no heading."""


def _figures(make: Callable[[Path, Mapping[str, Any]], list[go.Figure]], root: Path, sweep: Mapping[str, Any]) -> str:
    return macro("two", [figure_html(fig) for fig in make(root, sweep)])


def _results(page: Page, value: Mapping[str, Any]) -> None:
    tables = [
        (split, replace(compare_table(value, split), title=""), paired_table(part["paired"]))
        for split, part in value["splits"].items()
    ]
    page.add("results", "Results", lambda: macro("results", value["comparison"].replace(">=", "≥"), tables, ""))
    page.add("errors", "Where they are right and wrong", lambda: macro("two", list(map(figure_html, by_split(value)))))


def by_split(value: Mapping[str, Any]) -> list[go.Figure]:
    """Bars with intervals: the headline metric by split, then by type of query for each split."""
    made = []
    for has, metric in HEADLINE.items():
        found: dict[str, dict[str, Any]] = {}
        for split, part in value["splits"].items():
            for row in part["rows"]:
                if number(row.get(has)) is not None:
                    found.setdefault(str(row["run"]), {})[split] = row
        if found:
            made.append(figures.by_group(found, metric, f"{metric} by split"))
    for split, part in value["splits"].items():
        if part["kind"] != "grounding":
            continue
        typed = {str(row["run"]): row["by_type"] for row in part["rows"] if len(row.get("by_type") or {}) > 1}
        if typed:
            made.append(figures.by_group(typed, HEADLINE["mIoU"], f"{split}: R1@0.5 by type of query"))
    return made


def training(runs: Mapping[str, RunFolder]) -> str:
    """Each run's loss and reward over its steps, in one figure each."""
    made = []
    for log, key, title, unit in (("sft", "loss", "SFT: loss", "loss"), ("grpo", "reward", "GRPO: weighted reward", "reward")):
        rows: list[dict[str, Any]] = []
        for name, run in runs.items():
            if run.log(log).is_file():
                given = [row for row in read_jsonl(run.log(log), torn_tail=True) if isinstance(row.get(key), (int, float))]
                rows += [{"step": row.get("step"), name: row[key]} for row in given]
        if rows:
            width = max(3, len(rows) // len(runs) // 20)
            made.append(figure_html(figures.training_curve(rows, list(runs), title, unit, smooth=width)))
    return macro("training", made) if made else ""


def shared_items(value: Mapping[str, Any]) -> list[Item]:
    """The grounding samples that all compared runs were asked, each with every run's answer."""
    runs = value["runs"]
    style = styles([run["name"] for run in runs])
    found: dict[tuple[Any, ...], Item] = {}
    splits = [s for s, part in value["splits"].items() if part["kind"] == "grounding" and len(part["rows"]) == len(runs)]
    for run in runs:
        for item in load_items(RunFolder(Path(run["path"])), splits, [run["checkpoint"]]) if splits else ():
            row = replace(item.rows[0], key=run["name"], label=run["name"], style=style[run["name"]])
            known = found.setdefault(_asks(item.split, item.sample), replace(item, rows=[]))
            known.rows.append(row)
    return [item for item in found.values() if len(item.rows) == len(runs)]


def _asks(split: str, sample: Sample) -> tuple[Any, ...]:
    return split, sample.video, sample.video_start, sample.video_end, sample.query, tuple(sample.windows)


def runs_table(value: Mapping[str, Any], here: Path) -> Table:
    """The compared runs, each with a link to its report where it has one."""
    head = [Head("run", kind="left"), Head("checkpoint", kind="left"), Head("model", kind="left"), Head("form", kind="left")]
    rows = [
        Line(
            (
                Cell(run["name"], link=_link(Path(run["path"]), here)),
                Cell(run["checkpoint"]),
                Cell(run["model"]),
                Cell(run["form"]),
            )
        )
        for run in value["runs"]
    ]
    return Table(tuple(head), tuple(rows))


def rows_table(rows: Sequence[Mapping[str, Any]], here: Path) -> Table:
    """The rows of a sweep, each with a link to its report, what it changes, its last checkpoint's scores, and how it went."""
    scored: list[dict[str, float]] = []
    for row in rows:
        metrics = Path(row["run"]) / "metrics.json"
        given = read_json(metrics).get("splits", {}) if metrics.is_file() and not row["error"] else {}
        last = {split: list(scores_of(by_name).values())[-1:] for split, by_name in given.items()}
        found = {split: main_score(rows[0]) for split, rows in last.items() if rows}
        scored.append({split: value for split, value in found.items() if value is not None})
    splits = list(dict.fromkeys(split for row in scored for split in row))
    head = [Head("row", kind="left"), Head("changes", kind="wrap"), Head("seed")]
    head += [*(Head(split, "mIoU, or accuracy of questions, of its last checkpoint, percent") for split in splits), Head("time")]
    lines = []
    for row, scores in zip(rows, scored, strict=True):
        changes = ", ".join(f"{key}={change}" for key, change in (row.get("changes") or {}).items())
        cells = [Cell(row["name"], link=_link(Path(row["run"]), here)), Cell(changes or "nothing"), Cell(row["seed"], form=".0f")]
        cells += [*(Cell(scores.get(split)) for split in splits), Cell("failed" if row["error"] else clock(row["seconds"]))]
        lines.append(Line(tuple(cells)))
    return Table(tuple(head), tuple(lines))


def _link(folder: Path, here: Path) -> str:
    """The report of a run, from the folder `here`; empty where there is none."""
    report = folder.resolve() / "report.html"
    return quote(Path(os.path.relpath(report, here.resolve())).as_posix()) if report.is_file() else ""


def _origin(value: Mapping[str, Any]) -> str:
    return f"differences from {value['reference']} · R1@m counts IoU {value['comparison'].replace('>=', '≥')} m"
