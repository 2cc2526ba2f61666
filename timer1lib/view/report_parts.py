"""The sections of the report: each takes what the run has and returns HTML, empty where there is nothing to say."""

from __future__ import annotations

import html
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from timer1lib.files import read_json, read_jsonl
from timer1lib.runfolder import RunFolder
from timer1lib.view import plots
from timer1lib.view.items import ORDER, Item, load_items
from timer1lib.view.palette import styles
from timer1lib.view.plotly_html import figure_html
from timer1lib.view.scrubber import static_strip
from timer1lib.view.static_view import item_html

NAMES = {"base": "base", "sft": "SFT", "grpo": "GRPO"}
COLUMNS = (
    ("mIoU", "mIoU", ""),
    ("R1@0.3", "R1@0.3", ""),
    ("R1@0.5", "R1@0.5", ""),
    ("R1@0.7", "R1@0.7", ""),
    ("parse_rate", "answered", "share of completions that hold a segment, percent"),
    ("mean_relative_length", "length", "mean length of the answer over the video's, percent; beside it the truth's"),
    ("boundary_error_s", "edge error", "mean distance of an answer's edges from the true ones, seconds"),
)


def number(value: Any) -> float | None:
    """A plain number, or the `value` of one that comes with its interval."""
    if isinstance(value, Mapping):
        value = value.get("value", value.get("mean"))
    return float(value) if isinstance(value, (int, float)) and not isinstance(value, bool) else None


def grounding(metrics: Mapping[str, Any]) -> dict[str, dict[str, Mapping[str, Any]]]:
    """{split: {checkpoint: scores}} of the splits that have an mIoU, base, sft and grpo first."""
    found = {}
    for split, rows in (metrics.get("splits") or {}).items():
        if not isinstance(rows, Mapping):
            continue
        names = [name for name in ORDER if name in rows] + [name for name in rows if name not in ORDER]
        kept = {name: rows[name] for name in names if isinstance(rows[name], Mapping) and number(rows[name].get("mIoU")) is not None}
        if kept:
            found[split] = kept
    return found


def lead(metrics: Mapping[str, Any]) -> str:
    """One sentence with the main result; HTML."""
    splits = grounding(metrics)
    if not splits:
        return "No checkpoint of this run has been scored yet."
    split, rows = next(iter(splits.items()))
    names = list(rows)
    if len(names) == 1:
        return f"R1@0.5 of {html.escape(_name(names[0]))} on {html.escape(split)}: {_plain(rows[names[0]], 'R1@0.5')} %."
    first, last = names[0], names[-1]
    change = (number(rows[last].get("R1@0.5")) or 0.0) - (number(rows[first].get("R1@0.5")) or 0.0)
    word = "rises" if change > 0 else "falls" if change < 0 else "stays"
    n = rows[last].get("n")
    return (
        f"On {html.escape(split)}{f' ({n} queries)' if n else ''}, R1@0.5 {word} from {_plain(rows[first], 'R1@0.5')} % ({html.escape(_name(first))}) "
        f"to <strong>{_plain(rows[last], 'R1@0.5')} %</strong> ({html.escape(_name(last))})."
    )


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
            kind = "up" if last > first else "down" if last < first else "soft"
            change = f' <span class="change {kind}" style="display:inline">{"+" if last >= first else "−"}{abs(last - first):.1f}</span>'
        made.append(f'<div class="card"><span>{metric}, %</span><b>{last:.1f}{change}</b><span>{html.escape(_name(names[-1]))} on {html.escape(split)}</span></div>')
    return f'<div class="cards">{"".join(made)}</div>'


def results(metrics: Mapping[str, Any]) -> str:
    """A table a split: every checkpoint with intervals, then the baselines, then paired differences."""
    splits = grounding(metrics)
    if not splits:
        return ""
    comparison = html.escape(str(metrics.get("comparison", ">=")))
    parts = [f'<p class="soft">R1@m counts answers with IoU {comparison} m, in percent; a missing or unreadable answer counts as wrong. Small: 95% intervals over videos.</p>']
    for split, rows in splits.items():
        baselines = (metrics.get("baselines") or {}).get(split) or {}
        parts.append(f"<h3>{html.escape(split)}</h3>" + _results_table(rows, baselines))
        paired = (metrics.get("paired") or {}).get(split) if isinstance(metrics.get("paired"), Mapping) else None
        if isinstance(paired, Mapping) and paired:
            parts.append(_paired(paired))
    return "".join(parts)


def _results_table(rows: Mapping[str, Mapping[str, Any]], baselines: Mapping[str, Any]) -> str:
    columns = [c for c in COLUMNS if any(number(row.get(c[0])) is not None for row in rows.values())]
    head = "".join(f'<th title="{html.escape(tip, quote=True)}">{label}</th>' for _, label, tip in columns)
    colours = styles(list(rows))
    best = max(rows, key=lambda name: number(rows[name].get("mIoU")) or 0.0)
    lines = []
    for name, row in rows.items():
        swatch = f'<span class="swatch" style="background:{colours[name].colour}"></span>'
        lines.append(f'<tr{" class=best" if name == best and len(rows) > 1 else ""}><td>{swatch}{html.escape(_name(name))}</td>{"".join(_cell(row, key) for key, _, _ in columns)}</tr>')
    for name, row in baselines.items():
        if isinstance(row, Mapping):
            lines.append(f'<tr class="baseline"><td>{html.escape(str(name).replace("_", " "))}</td>{"".join(_cell(row, key) for key, _, _ in columns)}</tr>')
    return f'<div class="scroll"><table><thead><tr><th>checkpoint</th>{head}</tr></thead><tbody>{"".join(lines)}</tbody></table></div>'


def _cell(row: Mapping[str, Any], key: str) -> str:
    value = number(row.get(key))
    if value is None:
        return "<td>–</td>"
    if key == "mean_relative_length":
        true = number(row.get("true_relative_length"))
        return f"<td>{100 * value:.0f}{f'<small>true {100 * true:.0f}</small>' if true is not None else ''}</td>"
    if key == "boundary_error_s":
        return f"<td>{value:.2f} s</td>"
    interval = row.get("interval")
    ends = interval.get(key) if isinstance(interval, Mapping) else None
    return f"<td>{value:.1f}{f'<small>{ends[0]:.1f} – {ends[1]:.1f}</small>' if ends and key in ('mIoU', 'R1@0.3', 'R1@0.5', 'R1@0.7') else ''}</td>"


def _paired(paired: Mapping[str, Any]) -> str:
    lines = []
    for pair, by_metric in paired.items():
        if not isinstance(by_metric, Mapping):
            continue
        rows = {"": by_metric} if number(by_metric.get("difference")) is not None else by_metric
        for metric, row in rows.items():
            if not isinstance(row, Mapping) or number(row.get("difference")) is None:
                continue
            ends = row.get("interval") or (None, None)
            shown = f"{ends[0]:+.1f} to {ends[1]:+.1f}" if ends[0] is not None else "–"
            p = number(row.get("p_value", row.get("p")))
            said = "–" if p is None else "&lt; 0.001" if p < 0.001 else f"{p:.3f}"
            lines.append(f"<tr><td>{html.escape(str(pair))}</td><td>{html.escape(str(metric))}</td><td>{number(row['difference']):+.1f}</td><td>{shown}</td><td>{said}</td></tr>")
    if not lines:
        return ""
    head = "<tr><th>paired</th><th>metric</th><th>difference</th><th>95% interval</th><th>p</th></tr>"
    return f'<details><summary>Paired comparisons, sample by sample</summary><div class="scroll"><table><thead>{head}</thead><tbody>{"".join(lines)}</tbody></table></div></details>'


def training(run: RunFolder, missing: list[str]) -> str:
    """Curves of SFT and GRPO."""
    made = []
    wanted = (("sft", (("loss",), "SFT: loss", "loss")), ("grpo", (("reward", "rewards/tiou", "rewards/iou", "rewards/format"), "GRPO: reward", "reward")), ("grpo", (("kl",), "GRPO: distance from the reference", "KL")), ("grpo", (("completions/mean_length", "mean_length"), "GRPO: length of completions", "tokens")))  # fmt: skip
    for name, (keys, title, unit) in wanted:
        path = run.log(name)
        if not path.is_file():
            missing.append(f"logs/{name}.jsonl: the training curve: run {'02_sft' if name == 'sft' else '04_grpo'}")
            continue
        rows = list(read_jsonl(path, torn_tail=True))
        reward = keys[0] == "reward"
        present = [key for key in keys if any(isinstance(row.get(key), (int, float)) for row in rows)]
        if reward:
            present = list(dict.fromkeys([*present, *(key for row in rows for key in row if key.startswith(("reward/", "rewards/")) and key.count("/") == 1)]))[:5]
        if present:
            made.append(figure_html(plots.training_curve(rows, present, title, unit, smooth=max(3, len(rows) // 20))))
    note = '<p class="soft">Thin lines are what was logged, thick ones a running mean. A reward that rises while IoU on the test split does not is being exploited: compare with the results above.</p>'
    return f'{note}<div class="two">{"".join(f"<div>{one}</div>" for one in made)}</div>' if made else ""


def data(run: RunFolder) -> str:
    """Difficulty of the pool, what was chosen, and what each epoch's filter kept."""
    made = []
    difficulty = run.data("difficulty")
    if difficulty.is_file():
        ious = {str(row["id"]): float(row["iou"]) for row in read_jsonl(difficulty)}
        chosen = [ious[sample.id] for sample in run.read_samples("selected") if sample.id in ious] if run.data("selected").is_file() else []
        made.append(figure_html(plots.difficulty_histogram(list(ious.values()), chosen)))
    epochs = {int(path.stem.removeprefix("filter_epoch")): list(read_jsonl(path)) for path in (run.root / "data").glob("filter_epoch*.jsonl")}
    if epochs:
        made.append(figure_html(plots.epoch_flow(dict(sorted(epochs.items())))))
    return f'<div class="two">{"".join(f"<div>{one}</div>" for one in made)}</div>' if made else ""


def errors(run: RunFolder, metrics: Mapping[str, Any]) -> str:
    """Histogram of IoU, and R1@0.5 by query type."""
    splits = grounding(metrics)
    made = []
    for split, rows in list(splits.items())[:1]:
        if any(run.predictions(name, split).is_file() for name in rows):
            items = load_items(run, [split])
            by_name = {row.label: [item.iou(row) for item in items for row in item.rows if row.label == label] for label in items[0].ious() for row in items[0].rows if row.label == label}
            made.append(figure_html(plots.iou_histogram(by_name, f"IoU of every answer, {split}")))
        groups = {name: row["by_type"] for name, row in rows.items() if isinstance(row.get("by_type"), Mapping) and len(row["by_type"]) > 1}
        if groups:
            made.append(figure_html(plots.by_group(groups, "R1@0.5", f"R1@0.5 by type of query, {split}")))
    return f'<div class="two">{"".join(f"<div>{one}</div>" for one in made)}</div>' if made else ""


def examples(run: RunFolder, cache: Path, count: int, missing: list[str]) -> str:
    """Some samples drawn with their frames: gained, lost, wrong event, edges off, no answer."""
    if not any((run.root / "predictions").glob("*.jsonl")):
        missing.append("predictions/: timelines of predictions against the truth: run 05_evaluate")
        return ""
    groups = choose(load_items(run), count)
    parts = ['<p class="soft">Grey is the truth. Frames are spread over the whole video; what each checkpoint wrote stands below its timeline, with the times it names underlined.</p><div class="samples">']
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
        candidates.append(("Gained most from first to last checkpoint", [item for item in gained if scores(item)[1] - scores(item)[0] > 0.05]))
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


def signatures(metrics: Mapping[str, Any]) -> str:
    """Every signature's number with its interval, by split and checkpoint."""
    return _nested_table(metrics.get("signatures"), "Each is a number with an interval; the samples behind it are listed in 06_inspect.")


def questions(metrics: Mapping[str, Any]) -> str:
    return _nested_table(metrics.get("questions"), "Multiple choice, answered by the same checkpoints.")


def failed(metrics: Mapping[str, Any]) -> str:
    """What could not be read or answered, listed."""
    rows = metrics.get("failed")
    if not isinstance(rows, Sequence) or isinstance(rows, str) or not rows:
        return ""
    lines = "".join(f'<tr><td>{html.escape(str(row.get("id", "")))}</td><td class="wrap">{html.escape(str(row.get("error", row.get("reason", ""))))}</td></tr>' for row in rows[:50] if isinstance(row, Mapping))
    more = f'<p class="note">and {len(rows) - 50} more in metrics.json</p>' if len(rows) > 50 else ""
    return f'<div class="scroll"><table><thead><tr><th>sample</th><th class="left">why</th></tr></thead><tbody>{lines}</tbody></table></div>{more}'


def provenance(run: RunFolder, manifest: Mapping[str, Any]) -> str:
    """Seconds a stage, parameters, packages."""
    parts = []
    stamps = sorted((run.root / "stages").glob("*.json"))
    if stamps:
        lines = []
        for path in stamps:
            seconds = number(read_json(path).get("seconds"))
            lines.append(f"<tr><td>{html.escape(path.stem)}</td><td>{'–' if seconds is None else f'{seconds:.0f} s'}</td></tr>")
        parts.append(f'<div class="scroll"><table style="width:auto"><thead><tr><th>stage</th><th>time</th></tr></thead><tbody>{"".join(lines)}</tbody></table></div>')
    if run.params.is_file():
        parts.append(f"<details><summary>Parameters</summary><pre>{html.escape(run.params.read_text())}</pre></details>")
    if manifest:
        parts.append(f"<details><summary>Manifest</summary><pre>{html.escape(json.dumps(manifest, indent=2, ensure_ascii=False))}</pre></details>")
    return "".join(parts)


def _nested_table(value: Any, note: str) -> str:
    """{split: {checkpoint: {name: number or {value, interval, ...}}}} as one table; whatever is no number is left out."""
    if not isinstance(value, Mapping) or not value:
        return ""
    rows: list[tuple[str, str, str, Mapping[str, Any] | float]] = []
    for split, by_checkpoint in value.items():
        for checkpoint, entries in by_checkpoint.items() if isinstance(by_checkpoint, Mapping) else ():
            for name, entry in entries.items() if isinstance(entries, Mapping) else ():
                if number(entry) is not None:
                    rows.append((str(split), str(checkpoint), str(name), entry))
    if not rows:
        return ""
    lines = []
    for split, checkpoint, name, entry in rows:
        ends = entry.get("interval") if isinstance(entry, Mapping) else None
        listed = entry.get("samples") if isinstance(entry, Mapping) else None
        shown = f"{ends[0]:.3g} – {ends[1]:.3g}" if isinstance(ends, Sequence) and len(ends) == 2 and None not in ends else "–"
        lines.append(f'<tr><td>{html.escape(name.replace("_", " "))}</td><td class="left">{html.escape(split)}</td><td class="left">{html.escape(_name(checkpoint))}</td><td>{number(entry):.3g}</td><td>{shown}</td><td>{len(listed) if isinstance(listed, Sequence) else "–"}</td></tr>')
    head = '<tr><th>what</th><th class="left">split</th><th class="left">checkpoint</th><th>value</th><th>95% interval</th><th>samples</th></tr>'
    return f'<p class="soft">{note}</p><div class="scroll"><table><thead>{head}</thead><tbody>{"".join(lines)}</tbody></table></div>'


def _name(checkpoint: str) -> str:
    return NAMES.get(checkpoint, checkpoint)


def _plain(row: Mapping[str, Any], metric: str) -> str:
    value = number(row.get(metric))
    return "–" if value is None else f"{value:.1f}"
