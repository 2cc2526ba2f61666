"""What two ways of training learned, from the rows of a sweep with a grid: memory against learning, what changed over the steps,
which queries gained, which failures each shows, and samples to look at.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from timer1lib.evaluation.intervals import percentile
from timer1lib.evaluation.maps import Answers, Grid, Point, point_name
from timer1lib.evaluation.pooled import Rows, crossed_means, crossed_sums
from timer1lib.evaluation.tables import Cell, Table, table_of
from timer1lib.files import read_json, read_jsonl

RESAMPLES = 4000
CURVES = ("entropy", "completions/mean_length", "rewards/tiou/mean", "mean_token_accuracy")
"""What the logs of SFT and GRPO say of every step, on what is trained on."""


def memory_table(
    grid: Grid,
    answers: Answers,
    ways: Sequence[str] = (),
    metric: str = "mIoU",
    test: str = "test_id",
    resamples: int = RESAMPLES,
) -> Table:
    """mIoU on queries that were trained on and on a test like them, and the gap: what is remembered and not learned.

    A gap has its interval over seeds, the same for both, and over the videos of either. The base's gap is that of the
    queries themselves.
    """
    rows = []
    for (way, at), by_split in answers.items():
        if "seen" not in by_split or test not in by_split or (ways and way not in ways):
            continue
        tables = [crossed_sums([(_nothing(by_split[name]), by_split[name])], metric) for name in ("seen", test)]
        means = [float(sums.sum() / counts.sum()) for sums, counts, _ in tables]
        drawn = [crossed_means(sums, counts, resamples, apart=i) for i, (sums, counts, _) in enumerate(tables)]
        low, high = percentile((drawn[0] - drawn[1])[:, None])
        ends = float(low[0]), float(high[0])
        gap = Cell(means[0] - means[1], ends, None, "holds 0" if ends[0] <= 0 <= ends[1] else "", "+.1f")
        rows.append({"way": way, "at": point_name(grid, at), "trained on": means[0], test: means[1], "gap": gap})
    return table_of(rows)


def _nothing(by_seed: Mapping[int, Rows]) -> dict[int, Rows]:
    """The same rows with every metric 0, so that a difference from them is the value itself."""
    return {
        seed: {key: (video, dict.fromkeys(values, 0.0)) for key, (video, values) in rows.items()}
        for seed, rows in by_seed.items()
    }


def curves(grid: Grid, way: str, at: Point, names: Sequence[str] = CURVES) -> dict[str, list[tuple[float, float]]]:
    """{name: [(share of the training, mean over seeds)]} of what the logs say of each step, the cold start before RL left out."""
    found: dict[str, dict[int, list[float]]] = {}
    for row in grid.of(way, at):
        log = next((path for path in (row.run.log("grpo"), row.run.log("sft")) if path.is_file()), None)
        for i, step in enumerate(read_jsonl(log) if log else (), 1):
            for name in names:
                if isinstance(step.get(name), int | float):
                    found.setdefault(name, {}).setdefault(i, []).append(float(step[name]))
    return {name: [(i / max(steps), float(np.mean(values))) for i, values in steps.items()] for name, steps in found.items()}


def type_of(grid: Grid) -> Callable[[str, str], str]:
    """(split, sample id) -> the query's type, for `maps.effects`; ids are the same at all points."""
    known: dict[str, dict[str, str]] = {}

    def of(split: str, name: str) -> str:
        for row in grid.rows if name not in known.get(split, {}) else ():
            known.setdefault(split, {}).update({s.id: s.type or "" for s in row.run.read_samples(split)})
            if name in known[split]:
                break
        return known.get(split, {}).get(name, "")

    return of


def signature_counts(grid: Grid, ways: Sequence[str] = ()) -> Table:
    """How many of a way's runs show each failure signature, split by split."""
    flagged: Counter[tuple[str, str, str]] = Counter()
    asked: Counter[tuple[str, str, str]] = Counter()
    for row in grid.rows:
        for split, by_checkpoint in (read_json(row.run.metrics).get("signatures") or {}).items():
            for name, signature in (list(by_checkpoint.values()) or [{}])[-1].items():
                asked[split, name, row.way] += signature["value"] is not None
                flagged[split, name, row.way] += bool(signature["flagged"])
    wanted = list(ways) or grid.ways
    rows: dict[tuple[str, str], dict[str, Any]] = {}
    for split, name, way in sorted(asked):
        line = rows.setdefault((split, name), {"split": split, "signature": name.replace("_", " "), **dict.fromkeys(wanted)})
        if way in wanted and asked[split, name, way]:
            line[way] = f"{flagged[split, name, way]} of {asked[split, name, way]}"
    return table_of([row for row in rows.values() if any(row[way] for way in wanted)])


def telling(
    grid: Grid, answers: Answers, first: str, second: str, at: Point, split: str, count: int = 3, metric: str = "mIoU"
) -> list[dict[str, Any]]:
    """Samples to look at in 06: those where `second` is furthest above `first` over all seeds, then those furthest below.

    Returns:
        {better, id, query, type, window, first's and second's score (percent, mean over seeds), runs: the folders to open}.
    """
    one, two = answers[first, at][split], answers[second, at][split]
    seeds = sorted(set(one) & set(two))
    scores = {
        key: [float(np.mean([rows[seed][key][1][metric] for seed in seeds])) for rows in (one, two)]
        for key in (one[seeds[0]] if seeds else ())
    }
    order = sorted(scores, key=lambda key: (scores[key][0] - scores[key][1], key))
    runs = [next(row.run for row in grid.of(way.split("/")[0], at) if row.seed in seeds) for way in (first, second)]
    samples = {sample.id: sample for sample in runs[0].read_samples(split)}
    chosen = [(second, key) for key in order[:count]] + [(first, key) for key in reversed(order[-count:])]
    return [
        {
            "better": better, "id": key, "query": samples[key].query, "type": samples[key].type, "window": samples[key].window,
            first: scores[key][0], second: scores[key][1], "runs": [str(run.root) for run in runs],
        }
        for better, key in chosen if (scores[key][1] > scores[key][0]) == (better == second)
    ]  # fmt: skip
