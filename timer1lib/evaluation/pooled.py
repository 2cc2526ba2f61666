"""Variants of a sweep over several seeds: one mean over seeds and queries, and paired differences that count both.

A difference is averaged over a table of seeds x videos. A resample draws seeds and, independently of them, videos, each
with replacement (the pigeonhole bootstrap of a crossed design; Owen 2007, Ann. Appl. Stat. 1(2)), so that an interval
holds for new seeds and new videos, not for these seeds alone. With five seeds it is a rough one.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from timer1lib.evaluation import questions
from timer1lib.evaluation.compare import PAIRED, answered, asked, form_of, split_kinds
from timer1lib.evaluation.intervals import LEVEL, RESAMPLES, percentile
from timer1lib.evaluation.measure import CHECKPOINTS
from timer1lib.evaluation.metrics import Comparison, columns, mean
from timer1lib.evaluation.scored import Floats, join
from timer1lib.evaluation.tables import text_table
from timer1lib.files import read_json
from timer1lib.runfolder import RunFolder

METRICS = (
    "mIoU",
    "R1@0.5",
    "R1@0.7",
    "form_rate",
    "mean_relative_length",
    "true_relative_length",
    "boundary_error_s",
)

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
        for split, checkpoint, rows in _read(RunFolder(Path(folder)), comparison):
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


def crossed_interval(
    sums: Floats, counts: Floats, resamples: int = RESAMPLES, seed: int = 0, level: float = LEVEL
) -> tuple[float, float, float]:
    """Mean of a seeds x videos table with its interval over both.

    Args:
        sums, counts: (S, V) sum and number of the values of each seed on each video.

    Returns:
        mean, low, high.
    """
    rng = np.random.default_rng(seed)
    seeds, videos = sums.shape
    picked = rng.multinomial(seeds, np.full(seeds, 1 / seeds), resamples).astype(np.float64)
    drawn = rng.multinomial(videos, np.full(videos, 1 / videos), resamples).astype(np.float64)
    with np.errstate(invalid="ignore", divide="ignore"):
        means = ((picked @ sums) * drawn).sum(1) / ((picked @ counts) * drawn).sum(1)
    low, high = percentile(means[:, None], level)
    return float(sums.sum() / counts.sum()), float(low[0]), float(high[0])


def _read(run: RunFolder, comparison: Comparison) -> list[tuple[str, str, Rows]]:
    """(split, checkpoint, rows) of all that the run answered; the last checkpoint's name is empty."""
    metrics = read_json(run.metrics)
    result: list[tuple[str, str, Rows]] = []
    for split, kind in split_kinds(metrics).items():
        present = [name for name in CHECKPOINTS if name in metrics["splits"][split]]
        samples = asked(run, split, kind)
        for checkpoint in present:
            answers = answered(run, checkpoint, split)
            if kind == "grounding":
                every = columns(join(samples, answers, form_of(metrics)), comparison)
                table = {metric: every[metric] for metric in METRICS}
            else:
                table = {"accuracy": 100.0 * questions.correct(samples, questions.pair(samples, answers))}
            rows: Rows = {s.id: (s.video, {m: float(table[m][i]) for m in table}) for i, s in enumerate(samples)}
            result.append((split, "" if checkpoint == present[-1] else checkpoint, rows))
    return result


def _means(by_seed: Mapping[int, Rows]) -> dict[str, Any]:
    rows = {number: [values for _, values in table.values()] for number, table in sorted(by_seed.items())}
    every = [row for table in rows.values() for row in table]
    means: dict[str, Any] = {"seeds": len(rows), "queries": len(every)}
    for metric in every[0] if every else ():
        means[metric] = _mean(every, metric)
    main = "accuracy" if every and "accuracy" in every[0] else "mIoU"
    means["by_seed"] = {number: _mean(table, main) for number, table in rows.items()}
    return means


def _mean(rows: Sequence[Mapping[str, float]], metric: str) -> float | None:
    return mean(np.array([row[metric] for row in rows]))


def _paired(first: Mapping[int, Rows], second: Mapping[int, Rows], resamples: int, seed: int) -> dict[str, Any]:
    shared = sorted(set(first) & set(second))
    videos = {v: i for i, v in enumerate(dict.fromkeys(video for s in shared for video, _ in first[s].values()))}
    example = next((values for table in first.values() for _, values in table.values()), {})
    result: dict[str, Any] = {}
    for metric in [m for m in (*PAIRED, "accuracy") if m in example]:
        sums, counts = np.zeros((len(shared), len(videos))), np.zeros((len(shared), len(videos)))
        for row, number in enumerate(shared):
            for key in first[number].keys() & second[number].keys():
                video, one = first[number][key]
                delta = second[number][key][1][metric] - one[metric]
                if np.isfinite(delta):
                    sums[row, videos[video]] += delta
                    counts[row, videos[video]] += 1
        if not counts.sum(1).all():
            continue
        difference, low, high = crossed_interval(sums, counts, resamples, seed)
        by_seed = (sums.sum(1) / counts.sum(1)).tolist()
        result[metric] = {
            "difference": difference,
            "interval": [low, high],
            "by_seed": by_seed,
            "seeds": len(shared),
            "n": int(counts.sum()),
        }
    return result


def pooled_text(value: Mapping[str, Any]) -> str:
    """Two text tables a split: means over seeds, and paired differences with their intervals and each seed's own."""
    parts = []
    for split, part in value.items():
        means = [
            {"row": name, "seeds": str(row["seeds"]), "queries": str(row["queries"])}
            | {m: _shown(row[m], m) for m in row if m not in ("seeds", "queries", "by_seed")}
            for name, row in part["variants"].items()
        ]
        differences = [
            {
                "difference": name,
                "metric": metric,
                "mean": f"{row['difference']:+.2f}",
                "95% interval": f"{row['interval'][0]:+.2f} to {row['interval'][1]:+.2f}",
                "by seed": " ".join(f"{d:+.1f}" for d in row["by_seed"]),
            }
            for name, metrics in part["paired"].items()
            for metric, row in metrics.items()
        ]
        parts.append(f"{split}, means over seeds\n{text_table(means)}")
        if differences:
            parts.append(f"{split}, paired by seed, intervals over seeds and videos\n{text_table(differences)}")
    return "\n\n".join(parts)


def _shown(value: float | None, metric: str) -> str:
    if value is None:
        return "-"
    if metric.endswith("_length"):
        return f"{100 * value:.1f}%"
    return f"{value:.2f} s" if metric.endswith("_s") else f"{value:.1f}"
