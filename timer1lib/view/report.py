"""`report.html`: what a run did and reached, in one file that opens offline."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from markupsafe import Markup

from timer1lib.errors import Timer1Error
from timer1lib.evaluation.columns import display_name, number, shown
from timer1lib.evaluation.tables import (
    Cell,
    Head,
    Line,
    Table,
    paired_table,
    questions_table,
    results_table,
    scores_of,
    signatures_table,
    table_of,
)
from timer1lib.files import atomic_write_text, read_json, read_jsonl, read_yaml, resolve
from timer1lib.runfolder import RunFolder
from timer1lib.view import figures, templates
from timer1lib.view.figures import figure_html, loader_html
from timer1lib.view.items import Item, load_items, styles
from timer1lib.view.static_view import static_item

log = logging.getLogger(__name__)

Section = tuple[str, str, str]
"""Anchor, heading, HTML."""
MAIN = "R1@0.5"
"""The metric of the first sentence."""
MOST_FAILED = 50
CURVES = (
    ("sft", ("loss",), "SFT: loss", "loss"),
    ("grpo", ("reward", "rewards/tiou", "rewards/iou", "rewards/format"), "GRPO: reward", "reward"),
    ("grpo", ("kl",), "GRPO: distance from the reference", "KL"),
    ("grpo", ("completions/mean_length", "mean_length"), "GRPO: length of completions", "tokens"),
)
"""Log, its fields, title and unit of every training curve; fields that a log lacks are left out."""


def write_report(run: RunFolder, cache: Path | None = None, samples: int = 10) -> Path:
    """Write `report.html` for whatever the run has so far, and return its path; what is missing is said, not passed over.

    Args:
        run: a Timer1Error where its folder does not exist.
        cache: folder for browser copies, from which thumbnails are taken; the run's `shared.cache_dir` where not given.
        samples: how many predictions are drawn against the truth.
    """
    if not run.root.is_dir():
        raise Timer1Error(f"{run.root}: no such run")
    missing: list[str] = []
    metrics = _read(run.metrics, missing, "scores of the checkpoints: run 05_evaluate")
    manifest = _read(run.manifest, [])
    sections: list[Section] = []

    def add(anchor: str, heading: str, make: Callable[[], str]) -> None:
        """A broken file must not take the whole report with it: the section says what is wrong instead."""
        try:
            body = make()
        except (Timer1Error, KeyError, TypeError, ValueError, IndexError, AttributeError, OSError) as error:
            log.warning("report: %s: %s", heading, error)
            missing.append(f"{heading}: {error}")
            return
        if body:
            sections.append((anchor, heading, body))

    add("results", "Results", lambda: results(metrics))
    add("training", "Training", lambda: training(run, missing))
    add("data", "Data", lambda: data(run))
    add("errors", "Where it is right and wrong", lambda: errors(run, metrics))
    add("samples", "Predictions against the truth", lambda: examples(run, cache or cache_of(run), samples, missing))
    add("signatures", "Failure signatures", lambda: signatures(metrics))
    add("questions", "Does it hurt or help general understanding?", lambda: questions(metrics))
    add("failed", "Samples that failed", lambda: failed(metrics))
    add("made", "How this was made", lambda: provenance(run, manifest))
    page = templates().get_template("report.html").render(
        name=str(manifest.get("name") or run.root.name),
        css=Markup((Path(__file__).parent / "report.css").read_text()),
        loader=loader_html() if any("t1-figure" in body for _, _, body in sections) else "",
        lead=_section("lead", change(metrics)), origin=origin(manifest), cards=_section("cards", cards(metrics)),
        missing=list(dict.fromkeys(missing)), sections=sections, folder=run.root.name
    )  # fmt: skip
    atomic_write_text(run.report, page)
    return run.report


def cache_of(run: RunFolder) -> Path:
    """The cache that the run's parameters name, or a folder inside the run where it has none."""
    try:
        return resolve(str(read_yaml(run.params)["shared"]["cache_dir"]))
    except (Timer1Error, OSError, KeyError, TypeError):
        return run.root / "cache"


def _read(path: Path, missing: list[str], what: str = "") -> dict[str, Any]:
    try:
        if path.is_file():
            value = read_json(path)
            if isinstance(value, dict):
                return value
            missing.append(f"{path.name}: not what was expected there")
        elif what:
            missing.append(f"{path.name}: {what}")
    except Timer1Error as error:
        missing.append(str(error))
    return {}


def _section(name: str, *given: Any) -> Markup:
    """One macro of `sections.html`."""
    module: Any = templates().get_template("sections.html").module
    return Markup(getattr(module, name)(*given))


# Numbers


def grounding(metrics: Mapping[str, Any]) -> dict[str, dict[str, Mapping[str, Any]]]:
    """{split: {checkpoint: scores}} of the splits that have an mIoU, base, sft and grpo first."""
    splits = (metrics.get("splits") or {}).items()
    kept = {s: {name: row for name, row in scores_of(rows).items() if number(row.get("mIoU")) is not None} for s, rows in splits}
    return {split: rows for split, rows in kept.items() if rows}


def change(metrics: Mapping[str, Any]) -> dict[str, Any] | None:
    """What the first sentence says: `MAIN` of the first and last checkpoint on the first split; None without scores."""
    split, rows = next(iter(grounding(metrics).items()), ("", {}))
    if not rows:
        return None
    first, last = next(iter(rows)), next(reversed(rows))
    before, after = number(rows[first].get(MAIN)), number(rows[last].get(MAIN))
    ends = measured(metrics, split, first, last, MAIN)
    noise = ends is not None and ends[0] <= 0 <= ends[1]
    gain = (after or 0.0) - (before or 0.0)
    return {
        "split": split,
        "first": display_name(first) if len(rows) > 1 else None,
        "last": display_name(last),
        "before": "–" if before is None else f"{before:.1f}",
        "after": "–" if after is None else f"{after:.1f}",
        "n": rows[last].get("n"),
        "ends": ends,
        "noise": noise,
        "word": "goes" if noise else "rises" if gain > 0 else "falls" if gain < 0 else "stays",
    }


def measured(metrics: Mapping[str, Any], split: str, first: str, last: str, metric: str) -> tuple[float, float] | None:
    """The paired difference's 95% interval between two checkpoints, in points; None where it was not measured."""
    pairs = (metrics.get("paired") or {}).get(split)
    row = pairs.get(f"{first} → {last}") if isinstance(pairs, Mapping) else None
    entry = row.get(metric) if isinstance(row, Mapping) else None
    ends = entry.get("interval") if isinstance(entry, Mapping) else None
    return (float(ends[0]), float(ends[1])) if ends and None not in ends else None


def origin(manifest: Mapping[str, Any]) -> str:
    """Commit, seed, date and machine in one line."""
    git, machine = ({} if not isinstance(value, Mapping) else value for value in (manifest.get("git"), manifest.get("machine")))
    commit = git.get("commit") or manifest.get("git_commit")
    words = [
        f"commit {str(commit)[:8]}{' with changes' if git.get('modified') else ''}" if commit else "",
        f"seed {manifest['seed']}" if "seed" in manifest else "",
        str(manifest.get("finished") or manifest.get("created") or manifest.get("started") or "").replace("T", " ")[:16],
        str(machine.get("processor") or ""),
    ]
    return " · ".join(word for word in words if word)


def cards(metrics: Mapping[str, Any]) -> list[dict[str, str]]:
    """Large numbers of the first split: the last checkpoint's, and the change from the first."""
    split, rows = next(iter(grounding(metrics).items()), ("", {}))
    names = list(rows)
    made = []
    for column in sorted(shown("brief", "grounding"), key=lambda column: column.key == "mIoU") if names else ():
        last, first = number(rows[names[-1]].get(column.key)), number(rows[names[0]].get(column.key))
        if last is None:
            continue
        card = {"metric": column.title, "value": f"{last:.1f}", "change": "", "kind": ""}
        card["where"] = f"{display_name(names[-1])} on {split}"
        if first is not None and len(names) > 1:
            ends = measured(metrics, split, names[0], names[-1], column.key)
            sure = ends is None or not ends[0] <= 0 <= ends[1]
            better = last > first if column.better != "less" else last < first
            card["kind"] = "soft" if not sure or last == first else "up" if better else "down"
            card["change"] = f"{'+' if last >= first else '−'}{abs(last - first):.1f}"
        made.append(card)
    return made


# Sections: each takes what the run has and returns HTML, empty where there is nothing to say


def results(metrics: Mapping[str, Any]) -> str:
    """A table for each split: every checkpoint with intervals, then the baselines, then paired differences."""
    scores = grounding(metrics)
    if not scores:
        return ""
    splits = []
    for split, rows in scores.items():
        kept = {"splits": {split: rows}, "baselines": metrics.get("baselines")}
        colours = {name: style.colour for name, style in styles(list(rows)).items()}
        paired = (metrics.get("paired") or {}).get(split)
        differences = paired_table(paired if isinstance(paired, Mapping) else {})
        splits.append((split, results_table(kept, split, "report", colours), differences))
    return _section("results", ">" if metrics.get("comparison") in (">", "exceeds") else "≥", splits)


def training(run: RunFolder, missing: list[str]) -> str:
    """Curves of SFT and GRPO."""
    made = []
    for name, keys, title, unit in CURVES:
        path = run.log(name)
        if not path.is_file():
            missing.append(f"logs/{name}.jsonl: the training curve: run {'02_sft' if name == 'sft' else '04_grpo'}")
            continue
        rows = list(read_jsonl(path, torn_tail=True))
        present = [key for key in keys if any(isinstance(row.get(key), (int, float)) for row in rows)]
        if keys[0] == "reward":
            parts = (key for row in rows for key in row if key.startswith(("reward/", "rewards/")) and key.count("/") == 1)
            present = list(dict.fromkeys([*present, *parts]))[:5]
        if present:
            made.append(figure_html(figures.training_curve(rows, present, title, unit, smooth=max(3, len(rows) // 20))))
    return _section("training", made) if made else ""


def data(run: RunFolder) -> str:
    """Difficulty of the pool, what was chosen, and what each epoch's filter kept."""
    made = []
    if run.data("difficulty").is_file():
        rows = read_jsonl(run.data("difficulty"))
        ious = {str(row["id"]): float(row["iou"]) for row in rows if row["iou"] is not None}
        selected = run.read_samples("selected") if run.data("selected").is_file() else []
        chosen = [ious[sample.id] for sample in selected if sample.id in ious]
        if ious:
            made.append(figure_html(figures.difficulty_histogram(list(ious.values()), chosen)))
    epochs = {
        int(path.stem.removeprefix("filter_epoch")): list(read_jsonl(path))
        for path in (run.root / "data").glob("filter_epoch*.jsonl")
    }
    if epochs:
        made.append(figure_html(figures.epoch_flow(dict(sorted(epochs.items())))))
    return _section("two", made)


def errors(run: RunFolder, metrics: Mapping[str, Any]) -> str:
    """Histogram of IoU, and R1@0.5 by query type, of the first split."""
    histograms, by_type = [], Markup()
    for split, rows in list(grounding(metrics).items())[:1]:
        if any(run.predictions(name, split).is_file() for name in rows):
            ious = [item.ious() for item in load_items(run, [split])]
            by_name = {name: [row[name] for row in ious] for name in ious[0]}
            histograms.append(figure_html(figures.iou_histogram(by_name, f"IoU of every answer, {split}")))
        typed = {name: row.get("by_type") for name, row in rows.items()}
        groups = {name: by for name, by in typed.items() if isinstance(by, Mapping) and len(by) > 1}
        if groups:
            by_type = figure_html(figures.by_group(groups, MAIN, f"{MAIN} by type of query, {split}"))
    return _section("errors", histograms, by_type)


def examples(run: RunFolder, cache: Path, count: int, missing: list[str]) -> str:
    """Some samples drawn with their frames: gained, lost, wrong event, edges off, no answer."""
    if not any((run.root / "predictions").glob("*.jsonl")):
        missing.append("predictions/: timelines of predictions against the truth: run 05_evaluate")
        return ""
    groups = choose(load_items(run), count)
    drawn = [(heading, [static_item(run, item, cache) for item in items]) for heading, items in groups]
    return _section("examples", drawn)


def choose(items: Sequence[Item], count: int) -> list[tuple[str, list[Item]]]:
    """Samples worth a look, at most `count`, none twice: (why, items)."""

    def scores(item: Item) -> tuple[float, float]:
        ious = list(item.ious().values())
        return ious[0], ious[-1]

    each = max(1, count // 5)
    last = [(item, item.rows[-1]) for item in items if item.rows]
    candidates: list[tuple[str, list[Item]]] = []
    if any(len(item.rows) > 1 for item in items):
        gains = [(scores(item)[1] - scores(item)[0], item) for item in items]
        gained = sorted(gains, key=lambda pair: -pair[0])
        candidates.append(("Gained most from first to last checkpoint", [item for gain, item in gained if gain > 0.05]))
        candidates.append(("Lost most", [item for gain, item in reversed(gained) if gain < -0.05]))
    candidates += [
        ("Answered, but about another part of the video", [item for item, row in last if row.span and item.iou(row) == 0.0]),
        ("Right event, wrong edges", [item for item, row in last if 0.3 <= item.iou(row) < 0.5]),
        ("No answer", [item for item, row in last if row.span is None]),
        ("As good as it gets", sorted(items, key=lambda item: -scores(item)[1])),
    ]
    seen: set[str] = set()
    chosen = []
    for heading, found in candidates:
        fresh = [item for item in found if item.key not in seen][: min(each, count - len(seen))]
        seen |= {item.key for item in fresh}
        if fresh:
            chosen.append((heading, fresh))
    return chosen


def signatures(metrics: Mapping[str, Any]) -> str:
    """A table for each split: a signature a row, a checkpoint a column."""
    given = metrics.get("signatures")
    found = {split: signatures_table(rows) for split, rows in given.items() if rows} if isinstance(given, Mapping) else {}
    splits = [(split, table) for split, table in found.items() if table.rows]
    return _section("signatures", splits) if splits else ""


def questions(metrics: Mapping[str, Any]) -> str:
    """Multiple choice: accuracy beside chance and always answering the same letter."""
    given = metrics.get("questions")
    table = questions_table(given if isinstance(given, Mapping) else {})
    return _section("questions", table) if table.rows else ""


def failed(metrics: Mapping[str, Any]) -> str:
    """What could not be read or answered, listed."""
    rows = metrics.get("failed")
    if not isinstance(rows, Sequence) or isinstance(rows, str) or not rows:
        return ""
    head = (Head("sample", kind="left"), Head("where", kind="left"), Head("why", kind="wrap"))
    listed = []
    for row in (row for row in rows[:MOST_FAILED] if isinstance(row, Mapping)):
        where = " · ".join(str(row[key]) for key in ("split", "checkpoint") if row.get(key))
        listed.append(Line((Cell(str(row.get("id", ""))), Cell(where), Cell(str(row.get("error", ""))))))
    return _section("failed", Table(head, tuple(listed)), len(rows) - MOST_FAILED)


def provenance(run: RunFolder, manifest: Mapping[str, Any]) -> str:
    """Seconds a stage, parameters, packages."""
    stamps = sorted((run.root / "stages").glob("*.json"))
    seconds = {path.stem: number(read_json(path).get("seconds")) for path in stamps}
    times = table_of([{"stage": name, "time": Cell(value, form=".0f", unit="s")} for name, value in seconds.items()])
    params = run.params.read_text() if run.params.is_file() else ""
    return _section("provenance", times, params, json.dumps(manifest, indent=2, ensure_ascii=False) if manifest else "")
