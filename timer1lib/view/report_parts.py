"""The sections of the report: each takes what the run has and returns HTML, empty where there is nothing to say."""

from __future__ import annotations

import html
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from timer1lib.files import read_json, read_jsonl
from timer1lib.runfolder import RunFolder
from timer1lib.view import figures
from timer1lib.view.figures import figure_html
from timer1lib.view.items import Item, load_items
from timer1lib.view.report_tables import display_name, grounding, number, plain, table
from timer1lib.view.scrubber import static_strip
from timer1lib.view.static_view import item_html

CURVES = (
    ("sft", ("loss",), "SFT: loss", "loss"),
    ("grpo", ("reward", "rewards/tiou", "rewards/iou", "rewards/format"), "GRPO: reward", "reward"),
    ("grpo", ("kl",), "GRPO: distance from the reference", "KL"),
    ("grpo", ("completions/mean_length", "mean_length"), "GRPO: length of completions", "tokens"),
)
"""Log, its fields, title and unit of every training curve; fields that a log lacks are left out."""


def lead(metrics: Mapping[str, Any]) -> str:
    """One sentence with the main result; HTML."""
    splits = grounding(metrics)
    if not splits:
        return "No checkpoint of this run has been scored yet."
    split, rows = next(iter(splits.items()))
    names = list(rows)
    if len(names) == 1:
        return f"R1@0.5 of {html.escape(display_name(names[0]))} on {html.escape(split)}: {plain(rows[names[0]], 'R1@0.5')} %."
    first, last = names[0], names[-1]
    before, after = plain(rows[first], "R1@0.5"), plain(rows[last], "R1@0.5")
    n = rows[last].get("n")
    where = f"On {html.escape(split)}{f' ({n} queries)' if n else ''}, R1@0.5"
    ends = measured(metrics, split, first, last, "R1@0.5")
    named = f"({html.escape(display_name(first))}) to <strong>{after} %</strong> ({html.escape(display_name(last))})"
    if ends is not None and ends[0] <= 0 <= ends[1]:
        return (
            f"{where} goes from {before} % {named}: no change that this many queries could show "
            f"(paired difference {ends[0]:+.1f} to {ends[1]:+.1f})."
        )
    change = (number(rows[last].get("R1@0.5")) or 0.0) - (number(rows[first].get("R1@0.5")) or 0.0)
    said = f" (paired difference {ends[0]:+.1f} to {ends[1]:+.1f})" if ends is not None else ""
    return f"{where} {'rises' if change > 0 else 'falls' if change < 0 else 'stays'} from {before} % {named}{said}."


def measured(metrics: Mapping[str, Any], split: str, first: str, last: str, metric: str) -> tuple[float, float] | None:
    """The paired difference's 95% interval between two checkpoints, in points; None where it was not measured."""
    pairs = (metrics.get("paired") or {}).get(split)
    row = pairs.get(f"{first} → {last}") if isinstance(pairs, Mapping) else None
    entry = row.get(metric) if isinstance(row, Mapping) else None
    ends = entry.get("interval") if isinstance(entry, Mapping) else None
    return (float(ends[0]), float(ends[1])) if ends and None not in ends else None


def origin(manifest: Mapping[str, Any]) -> str:
    """Commit, seed, date and machine in one line."""
    git = manifest.get("git") if isinstance(manifest.get("git"), Mapping) else {}
    commit = (git or {}).get("commit") or manifest.get("git_commit")
    machine = manifest.get("machine") if isinstance(manifest.get("machine"), Mapping) else {}
    words = [
        f"commit {str(commit)[:8]}{' with changes' if (git or {}).get('modified') else ''}" if commit else "",
        f"seed {manifest['seed']}" if "seed" in manifest else "",
        str(manifest.get("finished") or manifest.get("created") or manifest.get("started") or "").replace("T", " ")[:16],
        str((machine or {}).get("processor") or ""),
    ]
    return " · ".join(word for word in words if word)


def cards(metrics: Mapping[str, Any]) -> str:
    """Four large numbers of the first split: last checkpoint, and the change from the first."""
    splits = grounding(metrics)
    if not splits:
        return ""
    split, rows = next(iter(splits.items()))
    names = list(rows)
    made = []
    for metric in ("R1@0.3", "R1@0.5", "R1@0.7", "mIoU"):
        last, first = number(rows[names[-1]].get(metric)), number(rows[names[0]].get(metric))
        if last is None:
            continue
        change = ""
        if first is not None and len(names) > 1:
            ends = measured(metrics, split, names[0], names[-1], metric)
            sure = ends is None or not ends[0] <= 0 <= ends[1]
            kind = "soft" if not sure or last == first else "up" if last > first else "down"
            sign = "+" if last >= first else "−"
            change = f' <span class="change {kind}" style="display:inline">{sign}{abs(last - first):.1f}</span>'
        made.append(
            f'<div class="card"><span>{metric}, %</span><b>{last:.1f}{change}</b>'
            f"<span>{html.escape(display_name(names[-1]))} on {html.escape(split)}</span></div>"
        )
    return f'<div class="cards">{"".join(made)}</div>'


def training(run: RunFolder, missing: list[str]) -> str:
    """Curves of SFT and GRPO."""
    made = []
    for name, keys, title, unit in CURVES:
        path = run.log(name)
        if not path.is_file():
            missing.append(f"logs/{name}.jsonl: the training curve: run {'02_sft' if name == 'sft' else '04_grpo'}")
            continue
        rows = list(read_jsonl(path, torn_tail=True))
        reward = keys[0] == "reward"
        present = [key for key in keys if any(isinstance(row.get(key), (int, float)) for row in rows)]
        if reward:
            present = list(
                dict.fromkeys(
                    [
                        *present,
                        *(key for row in rows for key in row if key.startswith(("reward/", "rewards/")) and key.count("/") == 1),
                    ]
                )
            )[:5]
        if present:
            made.append(figure_html(figures.training_curve(rows, present, title, unit, smooth=max(3, len(rows) // 20))))
    note = (
        '<p class="soft">Thin lines are what was logged, thick ones a running mean. A reward that rises '
        "while IoU on the test split does not is being exploited: compare with the results above.</p>"
    )
    return f'{note}<div class="two">{"".join(f"<div>{one}</div>" for one in made)}</div>' if made else ""


def data(run: RunFolder) -> str:
    """Difficulty of the pool, what was chosen, and what each epoch's filter kept."""
    made = []
    difficulty = run.data("difficulty")
    if difficulty.is_file():
        ious = {str(row["id"]): float(row["iou"]) for row in read_jsonl(difficulty)}
        chosen = (
            [ious[sample.id] for sample in run.read_samples("selected") if sample.id in ious]
            if run.data("selected").is_file()
            else []
        )
        made.append(figure_html(figures.difficulty_histogram(list(ious.values()), chosen)))
    epochs = {
        int(path.stem.removeprefix("filter_epoch")): list(read_jsonl(path))
        for path in (run.root / "data").glob("filter_epoch*.jsonl")
    }
    if epochs:
        made.append(figure_html(figures.epoch_flow(dict(sorted(epochs.items())))))
    return f'<div class="two">{"".join(f"<div>{one}</div>" for one in made)}</div>' if made else ""


def errors(run: RunFolder, metrics: Mapping[str, Any]) -> str:
    """Histogram of IoU, and R1@0.5 by query type."""
    splits = grounding(metrics)
    made, wide = [], ""
    for split, rows in list(splits.items())[:1]:
        if any(run.predictions(name, split).is_file() for name in rows):
            items = load_items(run, [split])
            ious = [item.ious() for item in items]
            by_name = {name: [row[name] for row in ious] for name in ious[0]}
            made.append(figure_html(figures.iou_histogram(by_name, f"IoU of every answer, {split}")))
        groups = {
            name: row["by_type"]
            for name, row in rows.items()
            if isinstance(row.get("by_type"), Mapping) and len(row["by_type"]) > 1
        }
        if groups:
            wide = figure_html(figures.by_group(groups, "R1@0.5", f"R1@0.5 by type of query, {split}"))
    columns = f'<div class="two">{"".join(f"<div>{one}</div>" for one in made)}</div>' if made else ""
    return columns + wide


def examples(run: RunFolder, cache: Path, count: int, missing: list[str]) -> str:
    """Some samples drawn with their frames: gained, lost, wrong event, edges off, no answer."""
    if not any((run.root / "predictions").glob("*.jsonl")):
        missing.append("predictions/: timelines of predictions against the truth: run 05_evaluate")
        return ""
    groups = choose(load_items(run), count)
    parts = [
        '<p class="soft">Grey is the truth. Frames are spread over the whole video; what each checkpoint wrote '
        'stands below its timeline, with the times it names underlined.</p><div class="samples">'
    ]
    for heading, items in groups:
        parts.append(f"<h3>{html.escape(heading)}</h3>")
        parts += [item_html(item, static_strip(run, item, cache)) for item in items]
    return "".join(parts) + "</div>"


def choose(items: Sequence[Item], count: int) -> list[tuple[str, list[Item]]]:
    """Samples worth a look, at most `count`, none twice: (why, items)."""

    def scores(item: Item) -> tuple[float, float]:
        ious = list(item.ious().values())
        return ious[0], ious[-1]

    each = max(1, count // 5)
    last = [(item, item.rows[-1]) for item in items if item.rows]
    candidates: list[tuple[str, list[Item]]] = []
    if any(len(item.rows) > 1 for item in items):
        gained = sorted(items, key=lambda item: scores(item)[0] - scores(item)[1])
        candidates.append(
            ("Gained most from first to last checkpoint", [item for item in gained if scores(item)[1] - scores(item)[0] > 0.05])
        )
        candidates.append(("Lost most", [item for item in reversed(gained) if scores(item)[0] - scores(item)[1] > 0.05]))
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


def provenance(run: RunFolder, manifest: Mapping[str, Any]) -> str:
    """Seconds a stage, parameters, packages."""
    parts = []
    stamps = sorted((run.root / "stages").glob("*.json"))
    if stamps:
        lines = []
        for path in stamps:
            seconds = number(read_json(path).get("seconds"))
            lines.append(f"<tr><td>{html.escape(path.stem)}</td><td>{'–' if seconds is None else f'{seconds:.0f} s'}</td></tr>")
        parts.append(table(["<th>stage</th>", "<th>time</th>"], lines, narrow=True))
    if run.params.is_file():
        parts.append(f"<details><summary>Parameters</summary><pre>{html.escape(run.params.read_text())}</pre></details>")
    if manifest:
        parts.append(
            "<details><summary>Manifest</summary><pre>"
            f"{html.escape(json.dumps(manifest, indent=2, ensure_ascii=False))}</pre></details>"
        )
    return "".join(parts)
