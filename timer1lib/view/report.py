"""`report.html`: what a run was asked, what it did and what it reached, in one file that opens offline."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote

from timer1lib import forms
from timer1lib.errors import Timer1Error
from timer1lib.evaluation.answers import form_of
from timer1lib.evaluation.columns import display_name, number, shown
from timer1lib.evaluation.compare import sentence
from timer1lib.evaluation.differing import changed, parameters_of, said
from timer1lib.evaluation.tables import (
    MEANING,
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
    unbroken,
)
from timer1lib.files import read_json, read_jsonl, read_yaml, resolve
from timer1lib.forms import AnswerForm
from timer1lib.rewards import REWARDS
from timer1lib.runfolder import RunFolder
from timer1lib.schema import Sample
from timer1lib.view import figures
from timer1lib.view.figures import figure_html
from timer1lib.view.items import Item, load_items, styles
from timer1lib.view.page import Page, macro
from timer1lib.view.static_view import static_item

HEADLINE = {"mIoU": "R1@0.5", "accuracy": "accuracy"}
"""What a split has, and the metric that the first sentences and the large numbers tell of it."""
MOST_FAILED, MOST_LISTED, MOST_NAMED = 50, 2000, 6
_PART = re.compile(r"rewards?/([^/]+)(?:/mean)?")
CURVES: tuple[tuple[str, dict[str, str], str, str], ...] = (
    ("sft", {"loss": "loss"}, "SFT: loss", "loss"),
    ("grpo", {"reward": "weighted sum"}, "GRPO: reward and its parts", "reward"),
    ("grpo", {"reward_std": "standard deviation"}, "GRPO: how far a group's rewards lie apart", "reward"),
    ("grpo", {"frac_groups_without_gradient": "flat groups"}, "GRPO: groups that teach nothing", "share of groups"),
    ("grpo", {"kl": "KL"}, "GRPO: distance from the reference", "KL"),
    ("grpo", {"entropy": "entropy"}, "GRPO: entropy of the policy", "nats a token"),
    ("grpo", {"completions/mean_length": "mean", "mean_length": "mean"}, "GRPO: length of completions", "tokens"),
    ("grpo", {"grad_norm": "norm"}, "GRPO: norm of the gradient", "norm"),
)
"""Log, its fields by the name that they are shown by, title and unit of every training curve; what a log lacks is left out."""


def write_report(run: RunFolder, cache: Path | None = None, samples: int = 10) -> Path:
    """Write `report.html` for whatever the run has so far, and return its path; what is missing is said, not passed over.

    Args:
        run: a Timer1Error where its folder does not exist.
        cache: folder for browser copies, from which thumbnails are taken; the run's `shared.cache_dir` where not given.
        samples: how many predictions are drawn against the truth.
    """
    if not run.root.is_dir():
        raise Timer1Error(f"{run.root}: no such run")
    manifest = _read(run.manifest, [])
    page = Page(str(manifest.get("name") or run.root.name), "report of a run")
    missing = page.missing
    metrics = _read(run.metrics, missing, "scores of the checkpoints: run 05_evaluate")
    items: list[Item] = []
    if any((run.root / "predictions").glob("*.jsonl")):
        page.attempt("Predictions", lambda: items.extend(load_items(run)))
    else:
        missing.append("predictions/: timelines of predictions against the truth: run 05_evaluate")
    chosen = choose(items, samples)
    page.add("results", "Results", lambda: results(metrics))
    page.add("asked", "What was asked", lambda: asked(run, metrics))
    page.add("parameters", "What differs from the defaults", lambda: parameters(run))
    page.add("training", "Training", lambda: training(run, missing))
    page.add("data", "Data", lambda: data(run))
    page.add("errors", "Where it is right and wrong", lambda: errors(items, metrics))
    page.add("samples", "Predictions against the truth", lambda: examples(run, cache or cache_of(run), chosen))
    page.add("signatures", "Failure signatures", lambda: signatures(metrics))
    page.add("questions", "Does it hurt or help general understanding?", lambda: questions(metrics))
    page.add("answers", "Every answer", lambda: answers(items, chosen))
    page.add("failed", "Samples that failed", lambda: failed(metrics))
    page.add("made", "How this was made", lambda: provenance(run, manifest))
    return page.write(run.report, lead(metrics), origin(manifest), macro("cards", cards(metrics)))


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


# Numbers


def grounding(metrics: Mapping[str, Any]) -> dict[str, dict[str, Mapping[str, Any]]]:
    """{split: {checkpoint: scores}} of the splits that have an mIoU, base, sft and grpo first."""
    return {split: rows for split, (rows, has) in every_split(metrics).items() if has == "mIoU"}


def every_split(metrics: Mapping[str, Any]) -> dict[str, tuple[dict[str, Mapping[str, Any]], str]]:
    """{split: ({checkpoint: scores}, mIoU or accuracy: what it is scored by)}."""
    found = {}
    for split, given in (metrics.get("splits") or {}).items():
        for has in HEADLINE:
            rows = {name: row for name, row in scores_of(given).items() if number(row.get(has)) is not None}
            if rows:
                found[split] = rows, has
                break
    return found


def lead(metrics: Mapping[str, Any]) -> list[str]:
    """What the page says first: a sentence a split, from the first checkpoint to the last."""
    return [macro("lead", change) for change in changes(metrics)] or [macro("lead", None)]


def verdict(metrics: Mapping[str, Any]) -> str:
    """What the paired differences from the first checkpoint to the last show, and what they do not; empty with one checkpoint."""
    ends = {(next(iter(rows)), next(reversed(rows))) for rows, _ in every_split(metrics).values() if len(rows) > 1}
    paired = metrics.get("paired")
    if len(ends) != 1 or not isinstance(paired, Mapping):
        return ""
    return sentence(paired, tuple(HEADLINE.values()), " → ".join(ends.pop()))


def changes(metrics: Mapping[str, Any]) -> list[dict[str, Any]]:
    """For every split its headline metric at the first and the last checkpoint, and whether the change is one."""
    found = []
    for split, (rows, has) in every_split(metrics).items():
        metric = HEADLINE[has]
        first, last = next(iter(rows)), next(reversed(rows))
        before, after = number(rows[first].get(metric)), number(rows[last].get(metric))
        ends = measured(metrics, split, first, last, metric)
        noise = ends is not None and ends[0] <= 0 <= ends[1]
        gain = (after or 0.0) - (before or 0.0)
        found.append(
            {
                "split": split,
                "metric": metric,
                "first": display_name(first) if len(rows) > 1 else None,
                "last": display_name(last),
                "before": "–" if before is None else f"{before:.1f}",
                "after": "–" if after is None else f"{after:.1f}",
                "n": rows[last].get("n"),
                "ends": ends,
                "noise": noise,
                "word": "goes" if noise else "rises" if gain > 0 else "falls" if gain < 0 else "stays",
            }
        )
    return found


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


def cards(metrics: Mapping[str, Any]) -> list[dict[str, Any]]:
    """A card a split: the last checkpoint's numbers, the headline metric first, each with its change from the first one."""
    made = []
    for split, (rows, has) in every_split(metrics).items():
        names, numbers = list(rows), []
        columns = shown("brief", "grounding" if has == "mIoU" else "questions")
        for column in sorted(columns, key=lambda column: column.key != HEADLINE[has]):
            last, first = number(rows[names[-1]].get(column.key)), number(rows[names[0]].get(column.key))
            if last is None:
                continue
            one = {"metric": column.title, "value": f"{last:.1f}", "change": "", "kind": ""}
            if first is not None and len(names) > 1:
                ends = measured(metrics, split, names[0], names[-1], column.key)
                sure = ends is None or not ends[0] <= 0 <= ends[1]
                better = last > first if column.better != "less" else last < first
                one["kind"] = "soft" if not sure or last == first else "up" if better else "down"
                one["change"] = f"{'+' if last >= first else '−'}{abs(last - first):.1f}"
            numbers.append(one)
        chance = number(rows[names[-1]].get("chance"))
        where = f"{display_name(names[-1])} on {split}" + (f", chance {chance:.1f}" if chance is not None else "")
        made.append({"where": where, "numbers": numbers})
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
    return macro("results", ">" if metrics.get("comparison") in (">", "exceeds") else "≥", splits, unbroken(verdict(metrics)))


def asked(run: RunFolder, metrics: Mapping[str, Any]) -> str:
    """One real question of each kind as the model gets it, what it answered, what SFT imitates, and what RL rewards."""
    known = parameters_of(run) if run.params.is_file() else {}
    form = form_of(metrics) if "asked" in metrics else forms.load(str(known.get("shared.form", "brief")))
    told = [_asked_of(run, form, split, list(rows), has) for split, (rows, has) in every_split(metrics).items()]
    kinds = {one["kind"]: one for one in reversed([one for one in told if one])}
    rows = list(read_jsonl(run.data("cold_start")))[:1] if run.data("cold_start").is_file() else []
    imitated = str(rows[0].get("completion", "")) if rows and known.get("sft.enabled", True) else ""
    rewards = _rewards(str(known.get("grpo.rewards", ""))) if known.get("grpo.enabled", True) else []
    if not kinds and not imitated and not rewards:
        return ""
    seen = ""
    if "shared.sampling" in known:
        count = f"{known['shared.frames']} frames a video"
        rate = f"{known['shared.fps']:g} frames a second, {known['shared.frames']} at most"
        seen = f"{count if known['shared.sampling'] == 'frames' else rate}, {known['shared.total_pixels']} pixels in all at most"
    return macro("asked", form.name, seen, [kinds[kind] for kind in sorted(kinds, reverse=True)], imitated, rewards)


def _asked_of(run: RunFolder, form: AnswerForm, split: str, names: Sequence[str], has: str) -> dict[str, Any] | None:
    """A split's first question in full, and the checkpoints' answers to it."""
    sample = next(iter(run.read_samples(split)), None) if run.data(split).is_file() else None
    if sample is None:
        return None
    options = sample.options if has == "accuracy" else None
    prompt = form.ask(sample.query, sample.duration, options)
    told = [(display_name(name), _answer(run, name, split, sample)) for name in names]
    truth = "; ".join(f"{start:.2f} to {end:.2f} s" for start, end in sample.windows)
    if options is not None and sample.answer is not None:
        truth = f"{chr(65 + sample.answer)}: {options[sample.answer]}"
    video = f"[{sample.video}, {sample.duration:.1f} s]" if sample.duration else f"[{sample.video}]"
    kind = "a letter" if options is not None else "a segment"
    return {"kind": kind, "split": split, "id": sample.id, "system": prompt.system or "", "video": video, "text": prompt.text,
            "text_first": prompt.text_first, "truth": truth, "answers": [pair for pair in told if pair[1]]}  # fmt: skip


def _answer(run: RunFolder, checkpoint: str, split: str, sample: Sample) -> str:
    if not run.predictions(checkpoint, split).is_file():
        return ""
    found = next((row for row in run.read_predictions(checkpoint, split) if row.id == sample.id), None)
    if found is None:
        return ""
    return found.completion or (f"{chr(65 + found.answer)} (by likelihood)" if found.answer is not None else "")


def _rewards(text: str) -> list[tuple[str, str, str]]:
    """(name, weight, meaning) of every reward; a function of one's own is named by its file, and not run."""
    found = []
    for part in filter(None, map(str.strip, text.split(","))):
        name, _, weight = part.rpartition(":")
        if not name or name.endswith(".py"):
            name, weight = part, "1.0"
        known = REWARDS.get(name)
        meaning = (known.__doc__ or "").strip().split("\n")[0] if known else "a function of one's own"
        found.append((name, weight, meaning))
    return found


def parameters(run: RunFolder) -> str:
    """The parameters that are not as in the defaults and can change a result."""
    if not run.params.is_file():
        return ""
    head = [Head("parameter", kind="left"), Head("here", kind="wrap"), Head("default", kind="wrap"), Head("meaning", kind="wrap")]
    rows = [Line((Cell(r["parameter"]), Cell(said(r["value"])), Cell(said(r["default"])), Cell(r["help"]))) for r in changed(run)]
    return macro("parameters", Table(tuple(head), tuple(rows)))


def training(run: RunFolder, missing: list[str]) -> str:
    """Curves of SFT and GRPO, every part of the reward among them."""
    made = []
    logs: dict[str, list[dict[str, Any]]] = {}
    for name, keys, title, unit in CURVES:
        path = run.log(name)
        if not path.is_file():
            missing.append(f"logs/{name}.jsonl: the training curve: run {'02_sft' if name == 'sft' else '04_grpo'}")
            continue
        if name not in logs:
            logs[name] = list(read_jsonl(path, torn_tail=True))
        rows = logs[name]
        if "reward" in keys:
            keys = keys | {key: part[1] for row in rows for key in row if (part := _PART.fullmatch(key))}
        if any(isinstance(row.get(key), (int, float)) for row in rows for key in keys):
            made.append(figure_html(figures.training_curve(rows, keys, title, unit, smooth=max(3, len(rows) // 20))))
    return macro("training", made) if made else ""


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
    return macro("two", made)


def errors(items: Sequence[Item], metrics: Mapping[str, Any]) -> str:
    """Histogram of IoU, and R1@0.5 by query type, of every split."""
    made, by_type = [], []
    for split, rows in grounding(metrics).items():
        if ious := [item.ious() for item in items if item.split == split]:
            by_name = {name: [row[name] for row in ious] for name in ious[0]}
            made.append(figure_html(figures.iou_histogram(by_name, f"IoU of every answer, {split}")))
        typed = {name: row.get("by_type") for name, row in rows.items()}
        groups = {name: by for name, by in typed.items() if isinstance(by, Mapping) and len(by) > 1}
        if groups:
            by_type.append(figure_html(figures.by_group(groups, HEADLINE["mIoU"], f"R1@0.5 by type of query, {split}")))
    return macro("two", made) + macro("two", by_type)


def anchor(key: str) -> str:
    """Where a sample (`Item.key`) stands on the page; the inspector takes the same words behind `#`."""
    return f"sample={key}"


def link(key: str) -> str:
    return "#" + quote(anchor(key), safe="=/")


def examples(run: RunFolder, cache: Path, groups: Sequence[tuple[str, Sequence[Item]]]) -> str:
    """Some samples drawn with their frames: gained, lost, wrong event, edges off, no answer."""
    drawn = [
        (heading, [(anchor(item.key), link(item.key), static_item(run, item, cache)) for item in items])
        for heading, items in groups
    ]
    return macro("examples", drawn) if drawn else ""


def choose(items: Sequence[Item], count: int, of: str = "checkpoint") -> list[tuple[str, list[Item]]]:
    """Samples worth a look, at most `count`, none twice: (why, items). `of`: what each row is the answer of."""

    def scores(item: Item) -> tuple[float, float]:
        ious = list(item.ious().values())
        return ious[0], ious[-1]

    each = max(1, count // 5)
    last = [(item, item.rows[-1]) for item in items if item.rows]
    candidates: list[tuple[str, list[Item]]] = []
    if any(len(item.rows) > 1 for item in items):
        gains = [(scores(item)[1] - scores(item)[0], item) for item in items]
        gained = sorted(gains, key=lambda pair: -pair[0])
        candidates.append((f"Gained most from first to last {of}", [item for gain, item in gained if gain > 0.05]))
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
    """A table for each split: a signature a row, a checkpoint a column; then the samples behind what was found."""
    given = metrics.get("signatures")
    splits = []
    for split, by_checkpoint in given.items() if isinstance(given, Mapping) else ():
        table = signatures_table(by_checkpoint) if by_checkpoint else Table((), ())
        if not table.rows:
            continue
        found = [
            (f"{name.replace('_', ' ')}, {display_name(checkpoint)}",
             [(str(key), link(f"{split}/{key}")) for key in list(entry.get("samples", ()))[:MOST_NAMED]])
            for checkpoint, entries in list(by_checkpoint.items())[-1:] if isinstance(entries, Mapping)
            for name, entry in entries.items() if isinstance(entry, Mapping) and entry.get("flagged") and name in MEANING
        ]  # fmt: skip
        splits.append((split, table, [one for one in found if one[1]]))
    return macro("signatures", splits) if splits else ""


def answers(items: Sequence[Item], drawn: Sequence[tuple[str, Sequence[Item]]]) -> str:
    """Every sample with every checkpoint's answer and IoU, the worst first, each in a place that can be linked to."""
    above = {item.key for _, found in drawn for item in found}
    splits = []
    for split in dict.fromkeys(item.split for item in items):
        found = sorted((item for item in items if item.split == split), key=lambda item: list(item.ious().values())[-1:])
        head = [Head("query", kind="wrap"), Head("sample", kind="left"), Head("true window, s", kind="left")]
        head += [Head(f"IoU, {display_name(row.label)}", "below it the answer in seconds") for row in found[0].rows]
        lines = [
            Line((
                Cell(item.sample.query), Cell(item.sample.id, link=link(item.key)),
                Cell("; ".join(map(_seconds, item.sample.windows))),
                *(Cell(item.iou(row), form=".2f", note=_seconds(row.span) if row.span else "no answer") for row in item.rows),
            ), anchor="" if item.key in above else anchor(item.key))
            for item in found[:MOST_LISTED]
        ]  # fmt: skip
        splits.append((split, len(found), Table(tuple(head), tuple(lines))))
    return macro("answers", splits, MOST_LISTED) if splits else ""


def _seconds(span: tuple[float, float]) -> str:
    return f"{span[0]:.2f}–{span[1]:.2f}"


def questions(metrics: Mapping[str, Any]) -> str:
    """Multiple choice: accuracy beside chance and always answering the same letter."""
    given = metrics.get("questions")
    table = questions_table(given if isinstance(given, Mapping) else {})
    return macro("questions", table) if table.rows else ""


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
    return macro("failed", Table(head, tuple(listed)), len(rows) - MOST_FAILED)


def provenance(run: RunFolder, manifest: Mapping[str, Any]) -> str:
    """Seconds a stage, parameters, packages."""
    stamps = sorted((run.root / "stages").glob("*.json"))
    seconds = {path.stem: number(read_json(path).get("seconds")) for path in stamps}
    times = table_of([{"stage": name, "time": Cell(value, form=".0f", unit="s")} for name, value in seconds.items()])
    params = run.params.read_text() if run.params.is_file() else ""
    return macro("provenance", times, params, json.dumps(manifest, indent=2, ensure_ascii=False) if manifest else "")
