"""Several runs in one table: in what they differ, their last checkpoints on the splits they share, paired differences from
the first, and what that shows in words."""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from timer1lib.errors import Timer1Error
from timer1lib.evaluation import questions
from timer1lib.evaluation.answers import answered, asked, find_run, form_of, read_metrics, split_kinds
from timer1lib.evaluation.columns import MAIN, Kind, column_of, display_name, in_order, number, shown
from timer1lib.evaluation.differing import differing, parameters_table, said
from timer1lib.evaluation.intervals import RESAMPLES
from timer1lib.evaluation.metrics import Comparison, as_json, paired, summary
from timer1lib.evaluation.scored import join, pair
from timer1lib.evaluation.tables import (
    Cell,
    Format,
    Head,
    Line,
    Table,
    difference_cell,
    document,
    heads_of,
    paired_table,
    present,
    score_cell,
)
from timer1lib.forms import AnswerForm
from timer1lib.runfolder import RunFolder
from timer1lib.schema import Sample


@dataclass(slots=True)
class _Run:
    name: str
    folder: RunFolder
    checkpoint: str
    form: AnswerForm
    kinds: dict[str, Kind]
    model: Any


def compare_runs(
    runs: Sequence[str | Path], *, checkpoint: str = "", comparison: Comparison = ">=", resamples: int = RESAMPLES, seed: int = 0
) -> dict[str, Any]:
    """Compare runs split by split; the first run named is what differences start from.

    Everything is computed anew from the runs' samples and predictions, with one comparison and one seed. Differences are
    taken over the samples that both runs have answered files for: same video, clip, query and windows.

    Args:
        runs: folders, or names under `outputs/`.
        checkpoint: of every run; empty takes the last that each has predictions of.

    Returns:
        {"comparison", "reference", "runs": [{name, path, checkpoint, model, form}], "parameters": [{parameter, default, help,
        values}], "splits": {split: {"kind", "rows": [{run, checkpoint, ...metrics}], "paired": {"a → b": {metric: {difference,
        interval, p, n}}}}}, "notes": [...]}.

    Raises:
        Timer1Error: no such run, one without `metrics.json`, without that checkpoint, or the same run twice.
    """
    if not runs:
        raise Timer1Error("nothing to compare: name at least one run")
    opened = _open(runs, checkpoint)
    notes: list[str] = []
    parameters = differing({run.name: run.folder for run in opened}, notes)
    splits: dict[str, Any] = {}
    for split in dict.fromkeys(name for run in opened for name in run.kinds):
        having = [run for run in opened if split in run.kinds]
        if len(having) < len(opened):
            notes.append(f"{split}: only in {', '.join(run.name for run in having)}")
        kinds = {run.kinds[split] for run in having}
        if len(kinds) > 1:
            notes.append(f"{split}: left out, as it holds windows in one run and questions in another")
            continue
        splits[split] = _split(having, split, kinds.pop(), comparison, resamples, seed, notes)
    if len({run.form.reading for run in opened}) > 1:
        notes.append(f"the runs read answers differently: {', '.join(sorted({run.form.name for run in opened}))}")
    return {
        "comparison": comparison,
        "reference": opened[0].name,
        "runs": [
            {"name": r.name, "path": str(r.folder.root), "checkpoint": r.checkpoint, "model": r.model, "form": r.form.name}
            for r in opened
        ],
        "parameters": parameters,
        "splits": splits,
        "notes": notes,
    }


def _open(runs: Sequence[str | Path], checkpoint: str) -> list[_Run]:
    folders = [find_run(run) for run in runs]
    if len({folder.resolve() for folder in folders}) < len(folders):
        raise Timer1Error("a run is named twice; differences from itself say nothing")
    names = _short_names(folders)
    opened = []
    for folder, name in zip(folders, names, strict=True):
        run = RunFolder(folder)
        metrics = read_metrics(run)
        found = in_order(name for rows in metrics["splits"].values() for name in rows)
        if checkpoint and checkpoint not in found:
            raise Timer1Error(f"{folder}: no predictions of checkpoint {checkpoint!r}; there are {', '.join(found) or 'none'}")
        if not found:
            raise Timer1Error(f"{run.metrics}: no checkpoint was evaluated")
        chosen = checkpoint or found[-1]
        opened.append(_Run(name, run, chosen, form_of(metrics), split_kinds(metrics), metrics.get("model")))
    return opened


def _short_names(folders: Sequence[Path]) -> list[str]:
    """Each folder's last part, with as many parents as tell them apart."""
    parts = [folder.resolve().parts for folder in folders]
    depth = next(n for n in range(1, max(map(len, parts)) + 1) if len({part[-n:] for part in parts}) == len(parts))
    return ["/".join(part[-depth:]) for part in parts]


def _split(
    runs: Sequence[_Run], split: str, kind: str, comparison: Comparison, resamples: int, seed: int, notes: list[str]
) -> dict[str, Any]:
    rows, differences = [], {}
    read = [(run, asked(run.folder.read_samples(split), kind), answered(run.folder, run.checkpoint, split)) for run in runs]
    for run, samples, answers in read:
        if kind == "grounding":
            scored = join(samples, answers, run.form)
            metrics = summary(scored, comparison, resamples=resamples, seed=seed, groups=("type",))
        else:
            metrics = questions.accuracy(samples, pair(samples, answers), resamples=resamples, seed=seed)
        rows.append({"run": run.name, "checkpoint": run.checkpoint, **metrics})
    first, first_samples, first_answers = read[0]
    for run, samples, answers in read[1:]:
        shared = _shared(first_samples, samples)
        if len(shared) < max(len(first_samples), len(samples)):
            notes.append(
                f"{split}: {first.name} and {run.name} share {len(shared)} of {len(first_samples)} and {len(samples)} samples"
            )
        if not shared:
            continue
        ours, theirs = [pair[0] for pair in shared], [pair[1] for pair in shared]
        names = {other.id: one.id for one, other in shared}
        renamed = [replace(answer, id=names[answer.id]) for answer in answers if answer.id in names]
        name = f"{first.name} → {run.name}"
        if kind == "grounding":
            one, two = join(ours, first_answers, first.form), join(ours, renamed, run.form)
            differences[name] = paired(one, two, comparison, resamples=resamples, seed=seed)
        else:
            given = pair(ours, first_answers), pair(theirs, answers)
            row = questions.compare(ours, given[0], given[1], resamples=resamples, seed=seed)
            differences[name] = {"accuracy": as_json(row)}
    return {"kind": kind, "rows": rows, "paired": differences}


def _shared(first: Sequence[Sample], second: Sequence[Sample]) -> list[tuple[Sample, Sample]]:
    """Samples of both lists that ask the same: video, clip, query, options and ground truth."""

    def asks(sample: Sample) -> tuple[Any, ...]:
        clip = (sample.video, sample.video_start, sample.video_end)
        return (*clip, sample.query, tuple(sample.windows), tuple(sample.options or ()), sample.answer)

    theirs: dict[tuple[Any, ...], list[Sample]] = {}
    for sample in second:
        theirs.setdefault(asks(sample), []).append(sample)
    return [(sample, theirs[asks(sample)].pop(0)) for sample in first if theirs.get(asks(sample))]


def compare_table(value: Mapping[str, Any], split: str, parameters: bool = False) -> Table:
    """One split of a comparison: scores with intervals, and the difference from the first run with its p-value.

    `parameters`: with a column for each parameter in which the runs differ.
    """
    part = value["splits"][split]
    main = column_of(MAIN[part["kind"]])
    columns = present(shown("compare", part["kind"]), part["rows"])
    differences = [part["paired"].get(f"{value['reference']} → {row['run']}", {}).get(main.key, {}) for row in part["rows"]]
    given = (value.get("parameters") or ()) if parameters else ()
    head = [
        Head("run", kind="left"),
        Head("checkpoint", kind="left"),
        *(Head(row["parameter"], row["help"], "left") for row in given),
    ]
    head += heads_of(columns)
    if several := any(number(entry.get("difference")) is not None for entry in differences):
        head += [Head(f"{main.title} - first", f"paired difference from {value['reference']}"), Head("p")]
    rows = []
    for row, entry in zip(part["rows"], differences, strict=True):
        cells = [Cell(row["run"]), Cell(row["checkpoint"]), *(Cell(said(one["values"].get(row["run"]))) for one in given)]
        cells += [replace(score_cell(row, column), note="") for column in columns]
        if several:
            cells += [difference_cell(entry, main), Cell(number(entry.get("p")), form=".4f")]
        rows.append(Line(tuple(cells)))
    return Table(tuple(head), tuple(rows), split)


MOST_TOLD = 6
"""Differences that were not shown and are told one by one; more are counted."""


def sentence(paired: Mapping[str, Any], metrics: Sequence[str] = tuple(MAIN.values()), pair: str = "", seeds: int = 1) -> str:
    """What paired differences show and what they do not, gains and losses alike, in words.

    Args:
        paired: {split: {"a → b": {metric: {difference, interval, n}}}}, as in `metrics.json`, `compare_runs` and `pool`.
        metrics: of each split the first one that it has.
        pair: this pair alone.
        seeds: trainings that each side stands for; with one, the intervals know nothing of other seeds.
    """
    clear, open_, count = [], [], 0
    for split, pairs in paired.items():
        for name, by_metric in pairs.items() if isinstance(pairs, Mapping) else ():
            found = [(key, by_metric[key]) for key in metrics if isinstance(by_metric, Mapping) and key in by_metric]
            key, entry = next(((key, entry) for key, entry in found if isinstance(entry, Mapping)), ("", {}))
            difference, ends = number(entry.get("difference")), entry.get("interval")
            if pair not in ("", name) or difference is None or not ends or None in ends:
                continue
            first, _, second = (display_name(part) for part in name.partition(" → "))
            count += 1
            n = f", n = {entry['n']}" if entry.get("n") else ""
            told = f"{difference:+z.1f} points of {column_of(key).title}, 95% interval {ends[0]:+z.1f} to {ends[1]:+z.1f}{n}"
            if ends[0] <= 0 <= ends[1]:
                open_.append(f"that {second} differs from {first} on {split} ({told})")
            else:
                clear.append(f"{second} is {'better' if difference > 0 else 'worse'} than {first} on {split} ({told})")
    if not count:
        return "Nothing is compared here: it takes two that answered the same questions."
    if len(open_) > MOST_TOLD:
        open_ = [f"{len(open_)} other differences, whose intervals hold 0"]
    parts = [f"Shown: {'; '.join(clear) or 'nothing'}.", f"Not shown: {'; '.join(open_)}." if open_ else ""]
    if seeds > 1:
        parts.append(f"Intervals are over {seeds} seeds and over videos.")
    else:
        parts.append("Nor what another seed would give: intervals are over videos alone, of one training each.")
    if count >= 5:
        parts.append(f"Of {count} comparisons without any true difference, about {0.05 * count:.1f} would be shown by chance.")
    return " ".join(filter(None, parts))


def verdict(value: Mapping[str, Any]) -> str:
    """`sentence` of a comparison."""
    return sentence({split: part["paired"] for split, part in value["splits"].items()})


def parameters_part(value: Mapping[str, Any]) -> Table | str:
    """The parameters in which compared runs differ, or a sentence where they differ in none."""
    rows = value.get("parameters")
    if rows is None:
        return ""
    return parameters_table(rows) if rows else "The runs differ in no parameter that could change a result."


def compare_document(value: Mapping[str, Any], format: Format = "text") -> str:
    """A comparison in one format: parameters in which the runs differ, a table a split, notes, and what is shown.

    HTML has every paired difference too. CSV is the scores alone, with the parameters as columns.
    """
    if format == "csv":
        return document([compare_table(value, split, parameters=True) for split in value["splits"]], format)
    parts: list[Table | str] = [parameters_part(value)]
    for split, part in value["splits"].items():
        ruler = f"R1@m counts IoU {value['comparison']} m; " if part["kind"] == "grounding" else ""
        parts.append(replace(compare_table(value, split), title=f"{split} ({ruler}percent, 95% intervals over videos)"))
        if format == "html":
            parts.append(paired_table(part["paired"]))
    return document([*parts, *(f"note: {note}" for note in value["notes"]), verdict(value)], format)


PUBLISHED = Path(__file__).with_name("published.csv")
"""Published results, a row each: percent, nothing where the source has none; `counts` is how R1@m counts, where it says."""

SCORES = ("R1@0.3", "R1@0.5", "R1@0.7", "mIoU")


def published_rows(benchmark: str | None = None) -> list[dict[str, str | float | None]]:
    """Rows of `PUBLISHED` for a table, of one benchmark or of all."""
    with PUBLISHED.open(newline="") as file:
        rows = list(csv.DictReader(file))
    return [
        {name: (float(value) if value else None) if name in SCORES else value for name, value in row.items()}
        for row in rows
        if benchmark in (None, row["benchmark"])
    ]


def beside_published(value: dict[str, Any], benchmark: str | None = None) -> list[dict[str, str | float | None]]:
    """The published rows of the benchmarks that a comparison's splits are named after, those runs' own rows before them.

    A split of another name stands beside nothing; capitals and signs in a name do not count. Without any such split: the
    published rows of `benchmark`, or all.
    """
    rows: list[dict[str, str | float | None]] = []
    names = dict.fromkeys(str(row["benchmark"]) for row in published_rows(benchmark))
    for name in names:
        for split, part in value["splits"].items():
            if _plain(split) == _plain(name) and part["kind"] == "grounding":
                rows += [_ours(row, name, value["comparison"]) for row in part["rows"]]
                rows += published_rows(name)
    return rows or published_rows(benchmark)


def _ours(row: dict[str, Any], benchmark: str, comparison: str) -> dict[str, str | float | None]:
    scores = {name: number(row.get(name)) for name in SCORES}
    told = {"model": f"{row['run']} ({row['checkpoint']})", "kind": "this comparison", "setting": ""}
    return {
        "benchmark": benchmark,
        **told,
        **scores,
        "counts": comparison,
        "source": f"{row['n']} queries, asked and scored here",
    }


def _plain(name: str) -> str:
    return "".join(letter for letter in name.lower() if letter.isalnum())
