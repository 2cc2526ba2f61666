"""Variants of a sweep over several seeds: one mean over seeds and queries, and paired differences that count both.

A difference is averaged over a table of seeds x videos. A resample draws seeds and, independently of them, videos, each
with replacement (the pigeonhole bootstrap of a crossed design; Owen 2007, Ann. Appl. Stat. 1(2)), so that an interval
holds for new seeds and new videos, not for these seeds alone. With five seeds it is a rough one.
"""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from timer1lib.evaluation import columns as listed
from timer1lib.evaluation import questions
from timer1lib.evaluation.answers import answered, asked, form_of, read_metrics, split_kinds
from timer1lib.evaluation.columns import Column, column_of, in_order, paired_keys, shown
from timer1lib.evaluation.intervals import RESAMPLES, percentile
from timer1lib.evaluation.metrics import Comparison, columns, mean
from timer1lib.evaluation.scored import Floats, join, pair
from timer1lib.evaluation.tables import Cell, difference_cell, present, score_cell, scores_of, table_of, text_table
from timer1lib.files import read_json
from timer1lib.runfolder import RunFolder

Rows = dict[str, tuple[str, dict[str, float]]]
"""By sample: its video and its metrics."""


def pool(
    runs: Sequence[tuple[str, int, str | Path]],
    *,
    pairs: Sequence[tuple[str, str]] = (),
    comparison: Comparison = ">=",
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> dict[str, Any]:
    """Average variants over seeds and compare them on the samples that both answered with the same seed.

    Where a run answered with several checkpoints, its last one goes by the variant's name and the others as
    `variant/checkpoint`.

    Args:
        runs: (variant, seed, run folder).
        pairs: (first, second) variants to compare; empty compares every variant with the first.

    Returns:
        {split: {"variants": {name: {metric: mean, "seeds", "queries", "by_seed"}}, "paired": {"a → b": {metric: {difference,
        interval, by_seed, seeds, n}}}}}. Percent, shares of the video, seconds as in `metrics`.
    """
    tables: dict[str, dict[str, dict[int, Rows]]] = {}
    for variant, number, folder in runs:
        for split, checkpoint, rows in answered_rows(RunFolder(Path(folder)), comparison):
            name = f"{variant}/{checkpoint}" if checkpoint else variant
            tables.setdefault(split, {}).setdefault(name, {})[number] = rows
    result: dict[str, Any] = {}
    for split, by_variant in tables.items():
        names = list(by_variant)
        wanted = list(pairs) or [(names[0], name) for name in names[1:]]
        paired = {
            f"{one} → {two}": _paired(by_variant[one], by_variant[two], resamples, seed)
            for one, two in wanted
            if one in by_variant and two in by_variant and set(by_variant[one]) & set(by_variant[two])
        }
        result[split] = {"variants": {name: _means(by_seed) for name, by_seed in by_variant.items()}, "paired": paired}
    return result


def crossed_interval(sums: Floats, counts: Floats, resamples: int = RESAMPLES, seed: int = 0) -> tuple[float, float, float]:
    """(mean, low, high) of a seeds x videos table, from (S, V) sums and counts of the values of each seed on each video."""
    low, high = percentile(crossed_means(sums, counts, resamples, seed)[:, None])
    return float(sums.sum() / counts.sum()), float(low[0]), float(high[0])


def crossed_means(sums: Floats, counts: Floats, resamples: int = RESAMPLES, seed: int = 0, apart: int | None = None) -> Floats:
    """(resamples,) means of a seeds x videos table, both resampled; tables with numbers `apart` share seeds alone."""
    rng = np.random.default_rng(seed)
    seeds, videos = sums.shape
    picked = rng.multinomial(seeds, np.full(seeds, 1 / seeds), resamples).astype(np.float64)
    if apart is not None:
        rng = np.random.default_rng([seed, apart])
    drawn = rng.multinomial(videos, np.full(videos, 1 / videos), resamples).astype(np.float64)
    with np.errstate(invalid="ignore", divide="ignore"):
        means: Floats = ((picked @ sums) * drawn).sum(1) / ((picked @ counts) * drawn).sum(1)
    return means


def answered_rows(run: RunFolder, comparison: Comparison = ">=") -> list[tuple[str, str, Rows]]:
    """(split, checkpoint, rows) of all that the run answered; the last checkpoint's name is empty."""
    metrics = read_metrics(run)
    result: list[tuple[str, str, Rows]] = []
    for split, kind in split_kinds(metrics).items():
        present = in_order(metrics["splits"][split])
        samples = asked(run.read_samples(split), kind)
        for checkpoint in present:
            answers = answered(run, checkpoint, split)
            if kind == "grounding":
                every = columns(join(samples, answers, form_of(metrics)), comparison)
                table = {metric: every[metric] for metric in pooled_keys()}
            else:
                table = {"accuracy": 100.0 * questions.correct(samples, pair(samples, answers))}
            rows: Rows = {s.id: (s.video, {m: float(table[m][i]) for m in table}) for i, s in enumerate(samples)}
            result.append((split, "" if checkpoint == present[-1] else checkpoint, rows))
    return result


def _means(by_seed: Mapping[int, Rows]) -> dict[str, Any]:
    rows = {number: [values for _, values in table.values()] for number, table in sorted(by_seed.items())}
    every = [row for table in rows.values() for row in table]
    metrics = list(every[0]) if every else []
    main = "accuracy" if "accuracy" in metrics else "mIoU"
    means = {metric: mean(np.array([row[metric] for row in every])) for metric in metrics}
    by_number = {number: mean(np.array([row[main] for row in table])) for number, table in rows.items()}
    return {"seeds": len(rows), "queries": len(every), **means, "by_seed": by_number}


def _paired(first: Mapping[int, Rows], second: Mapping[int, Rows], resamples: int, seed: int) -> dict[str, Any]:
    example = next((values for table in first.values() for _, values in table.values()), {})
    result: dict[str, Any] = {}
    for metric in [m for m in (*paired_keys("grounding"), *paired_keys("questions")) if m in example]:
        sums, counts, shared = crossed_sums([(first, second)], metric)
        if not counts.sum(1).all():
            continue
        difference, low, high = crossed_interval(sums, counts, resamples, seed)
        by_seed = (sums.sum(1) / counts.sum(1)).tolist()
        row_of = {"difference": difference, "interval": [low, high], "by_seed": by_seed}
        result[metric] = row_of | {"seeds": len(shared), "n": int(counts.sum())}
    return result


def crossed_sums(
    pieces: Sequence[tuple[Mapping[int, Rows], Mapping[int, Rows]]], metric: str
) -> tuple[Floats, Floats, list[int]]:
    """(S, V) sums and counts of differences in a metric, second less first, and the seeds that both have.

    Several pieces, such as the points of a grid, are added up: they share seeds and videos.
    """
    shared = sorted(set.intersection(*(set(part) for piece in pieces for part in piece)))
    named = dict.fromkeys(video for first, _ in pieces for s in shared for video, _ in first[s].values())
    videos = {video: i for i, video in enumerate(named)}
    sums, counts = np.zeros((len(shared), len(videos))), np.zeros((len(shared), len(videos)))
    for first, second in pieces:
        for row, number in enumerate(shared):
            for key, (video, one) in first[number].items():
                # in the order of the samples: a sum of floats depends on it
                delta = second[number][key][1][metric] - one[metric] if key in second[number] else np.nan
                if np.isfinite(delta):
                    sums[row, videos[video]] += delta
                    counts[row, videos[video]] += 1
    return sums, counts, shared


def pooled_keys() -> list[str]:
    """The metrics of grounding that are averaged over seeds, with those that stand beside them."""
    return [key for c in shown("pooled", "grounding") for key in ([c.key, c.beside[0]] if c.beside else [c.key])]


def pooled_text(value: Mapping[str, Any]) -> str:
    """Two text tables for each split: means over seeds, and paired differences with their intervals and each seed's own."""
    parts = []
    for split, part in value.items():
        columns = shown("pooled")
        means = [
            {"row": name, "seeds": row["seeds"], "queries": row["queries"]}
            | {c.title: score_cell(row, c) for c in columns if c.key in row}
            for name, row in part["variants"].items()
        ]
        differences = [
            {"difference": name, "metric": column.title, "mean, 95% interval": difference_cell(row, column, 2),
             "by seed": " ".join(f"{column.scale * d:+.1f}" for d in row["by_seed"])}
            for name, metrics in part["paired"].items()
            for column, row in ((column_of(metric), row) for metric, row in metrics.items())
        ]  # fmt: skip
        parts.append(f"{split}, means over seeds\n{text_table(table_of(means))}")
        if differences:
            table = text_table(table_of(differences))
            parts.append(f"{split}, paired by seed, intervals over seeds and videos\n{table}")
    return "\n\n".join(parts)


def means_table(rows: Sequence[Mapping[str, Any]]) -> str:
    """Text: each variant's last checkpoint, averaged over seeds, with the seeds' standard deviation where several.

    `rows` are {variant, run (its folder), error} of each run of a sweep; those that failed are left out.
    """
    found: dict[tuple[str, str, str], list[Mapping[str, Any]]] = {}
    for row in rows:
        metrics = Path(row["run"]) / "metrics.json"
        if row["error"] or not metrics.is_file():
            continue
        for split, given in read_json(metrics).get("splits", {}).items():
            for checkpoint, scores in list(scores_of(given).items())[-1:]:
                found.setdefault((split, row["variant"], checkpoint), []).append(scores)
    columns = present(shown("brief"), [scores for members in found.values() for scores in members])
    made = []
    for (split, variant, checkpoint), members in sorted(found.items(), key=lambda item: item[0][0]):
        cells = {column.title: _over_seeds(members, column) for column in columns}
        made.append({"split": split, "row": variant, "checkpoint": checkpoint, **cells})
    return text_table(table_of(made))


def _over_seeds(members: Sequence[Mapping[str, Any]], column: Column) -> Cell:
    given = [listed.number(scores.get(column.key)) for scores in members]
    values = [column.scale * value for value in given if value is not None]
    spread = statistics.stdev(values) if len(values) > 1 else None
    return Cell(statistics.fmean(values) if values else None, None, spread, "", f".{column.digits}f", column.unit)
