"""A sweep with a grid, read as a map: what one way of training gains over another at every point, on every split.

Differences are paired by seed and query, and their intervals are over seeds and videos at once (`evaluation.pooled`). Many
are asked at the same time, and some would exclude 0 by luck: p-values are corrected by Holm's procedure (1979, Scand. J.
Statist. 6). It bounds the chance of even one false claim, as every point is read as a claim of its own, and holds however the
comparisons depend on each other: points share videos, seeds and the base.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from timer1lib.errors import Timer1Error
from timer1lib.evaluation.answers import find_sweep
from timer1lib.evaluation.intervals import percentile
from timer1lib.evaluation.pooled import Rows, answered_rows, crossed_means, crossed_sums
from timer1lib.evaluation.scored import Floats
from timer1lib.evaluation.tables import Cell, Table, table_of
from timer1lib.files import read_json
from timer1lib.runfolder import SWEEP, RunFolder

RESAMPLES = 20_000
"""So many that a p-value can be small enough for hundreds of comparisons."""
LEVEL = 0.05
NOVELTIES = {
    "seen": "trained on", "test_id": "nothing", "test_wording": "wording", "test_pairs": "colour-shape pairs",
    "test_long": "longer videos", "test_hard": "look-alikes, shorter windows", "test_ood": "all of it",
}  # fmt: skip
"""What is new to a model in each of the embedded world's splits."""

Point = tuple[Any, ...]
"""A value for each axis of a grid; None where all its values count together."""


@dataclass(frozen=True, slots=True)
class Trained:
    """One run of a sweep: the way it was trained, where on the grid, and with which seed."""

    way: str
    at: Point
    seed: int
    run: RunFolder


@dataclass(frozen=True, slots=True)
class Grid:
    """A sweep's finished runs. `axes` are the parameters that its grid varies, with their values in order."""

    name: str
    axes: dict[str, list[Any]]
    rows: list[Trained]
    notes: list[str]
    """What is missing from it, and why."""
    named: Sequence[tuple[str, str]] = ()
    """The pairs that its file compares."""

    @property
    def ways(self) -> list[str]:
        return list(dict.fromkeys(row.way for row in self.rows))

    @property
    def points(self) -> list[Point]:
        found = {row.at for row in self.rows}
        return sorted(found, key=lambda point: [values.index(v) for v, values in zip(point, self.axes.values(), strict=True)])

    @property
    def pairs(self) -> list[tuple[str, str]]:
        """What is compared: as its file says, else each way with the base, and with the way listed first."""
        ways = self.ways
        return list(self.named) or [(f"{way}/base", way) for way in ways] + [(ways[0], way) for way in ways[1:]]

    def of(self, way: str, at: Point | None = None) -> list[Trained]:
        """A way's runs, at one point or at all."""
        return [row for row in self.rows if row.way == way and at in (None, row.at)]


def read_grid(sweep: str | Path) -> Grid:
    """A sweep with a grid, given as a folder or as a name under `outputs/sweeps/`; of one that is under way, what has ended.

    Raises:
        Timer1Error: no such sweep, one of which no row has ended yet, or one without a grid of one or two axes.
    """
    folder = find_sweep(sweep)
    if folder is None:
        raise Timer1Error(
            f"sweep {str(sweep)!r}: no sweep.json there, nor under outputs/sweeps/; a sweep writes it when rows end"
        )
    written = read_json(folder / SWEEP)
    axes = axes_of(written["rows"])
    if not can_be_drawn(axes):
        raise Timer1Error(f"{folder}: a map needs a sweep with a grid of one or two parameters; this one varies {len(axes)}")
    rows = [
        Trained(row["way"], tuple(row["at"][key] for key in axes), row["seed"], RunFolder(folder / row["run"]))
        for row in written["rows"]
        if row.get("at") and not row["error"]
    ]
    failed = [row["name"] for row in written["rows"] if row["error"]]
    notes = [f"rows that failed are left out: {', '.join(failed)}"] if failed else []
    if left := written.get("unfinished"):
        notes.append(f"{left} rows have not ended yet")
    return Grid(written["name"], axes, rows, notes, [(one, two) for one, two in written.get("pairs", ())])


def axes_of(rows: Sequence[Mapping[str, Any]]) -> dict[str, list[Any]]:
    """The parameters that the rows of a `sweep.json` vary over its grid, with their values in order."""
    listed = [row["at"] for row in rows if row.get("at")]
    axes = {key: sorted({at[key] for at in listed}, key=_order) for key in (listed[0] if listed else ())}
    return {key: values for key, values in axes.items() if len(values) > 1}


def can_be_drawn(axes: Mapping[str, Sequence[Any]]) -> bool:
    """Whether a map has room for so many axes."""
    return 1 <= len(axes) <= 2


def _order(value: Any) -> tuple[bool, Any]:
    return (False, value) if isinstance(value, int | float) else (True, str(value))


@dataclass(frozen=True, slots=True)
class Effect:
    """What `second` has more than `first` at a point on a split (`part`: its queries of one kind).

    None in place of a point's value, or of the point, says that it is over all of that axis, or of the grid.

    `interval` is 95% over seeds and videos; `p` belongs to it, and `corrected` is p after Holm's correction for all
    effects of its pair that were asked for together: those of one picture.
    """

    first: str
    second: str
    at: Point | None
    split: str
    part: str
    difference: float
    interval: tuple[float, float]
    p: float
    corrected: float
    by_seed: tuple[float, ...]
    n: int

    @property
    def name(self) -> str:
        return f"{self.second} - {self.first}"

    @property
    def verdict(self) -> str:
        """`holds 0`, `not after correction`, or nothing where the difference stands."""
        if self.interval[0] <= 0 <= self.interval[1]:
            return "holds 0"
        return "" if self.corrected < LEVEL else "not after correction"


Answers = dict[tuple[str, Point], dict[str, dict[int, Rows]]]
"""By (way or way/checkpoint, point): by split: by seed."""


def read_answers(grid: Grid) -> Answers:
    """Every answer of a sweep, scored. A way's last checkpoint goes by its name, others are `way/checkpoint`."""
    found: Answers = {}
    for row in grid.rows:
        for split, checkpoint, rows in answered_rows(row.run):
            name = f"{row.way}/{checkpoint}" if checkpoint else row.way
            found.setdefault((name, row.at), {}).setdefault(split, {})[row.seed] = rows
    return found


def effects(
    grid: Grid,
    pairs: Sequence[tuple[str, str]],
    answers: Answers | None = None,
    *,
    metric: str = "mIoU",
    splits: Sequence[str] = (),
    along: Sequence[str] | None = None,
    part_of: Callable[[str, str], str] | None = None,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> list[Effect]:
    """The effects of pairs of ways, [from, to], in the order pair, split, part, point; those of a pair corrected for one another.

    Args:
        splits: empty takes all that the runs were asked, but for what they were trained on.
        along: the axes whose values stay apart; over the others the points where both ways stand count together, seeds and
            videos being the same at all of them. Empty: one effect over all points.
        part_of: (split, sample id) -> the part of the split that a sample belongs to.
    """
    answers = read_answers(grid) if answers is None else answers
    given = [(split, rows) for by_split in answers.values() for split, rows in by_split.items() if _has(rows, metric)]
    known = list(dict.fromkeys(split for split, _ in given if (split in splits if splits else split != "seen")))
    made: list[Effect] = []
    apart = [along is None or key in along for key in grid.axes]
    for one, two in dict.fromkeys(pairs):
        both = [at for at in grid.points if (one, at) in answers and (two, at) in answers]
        for split in known:
            tables: dict[tuple[str, Point | None], list[tuple[Mapping[int, Rows], Mapping[int, Rows]]]] = {}
            for at in both:
                place = tuple(value if kept else None for value, kept in zip(at, apart, strict=True)) if any(apart) else None
                first, second = answers[one, at].get(split, {}), answers[two, at].get(split, {})
                for part, rows in _parts(first, split, part_of).items() if second else ():
                    tables.setdefault((part, place), []).append((rows, second))
            for (part, place), pieces in tables.items():
                sums, counts, seeds = crossed_sums(pieces, metric)
                if len(seeds) == 0 or not counts.sum(1).all():
                    continue
                means = crossed_means(sums, counts, resamples, seed)
                low, high = percentile(means[:, None])
                by_seed = tuple((sums.sum(1) / counts.sum(1)).tolist())
                mean, p = float(sums.sum() / counts.sum()), p_value(means)
                made.append(
                    Effect(one, two, place, split, part, mean, (float(low[0]), float(high[0])), p, p, by_seed, int(counts.sum()))
                )
    families = [[effect for effect in made if (effect.first, effect.second) == pair] for pair in dict.fromkeys(pairs)]
    corrected = [p for family in families for p in holm([effect.p for effect in family])]
    return [replace(effect, corrected=p) for effect, p in zip(made, corrected, strict=True)]


def marginals(grid: Grid, pairs: Sequence[tuple[str, str]], answers: Answers, seed: int = 0) -> list[list[Effect]]:
    """For each axis of a grid of two the effects along it, over all values of the other: of pairs that stand at every point."""
    whole = [pair for pair in pairs if all((way, at) in answers for way in pair for at in grid.points)]
    return [effects(grid, whole, answers, along=[key], seed=seed) for key in (grid.axes if whole and len(grid.axes) > 1 else ())]


def _has(by_seed: Mapping[int, Rows], metric: str) -> bool:
    return any(metric in values for rows in by_seed.values() for _, values in list(rows.values())[:1])


def _parts(by_seed: Mapping[int, Rows], split: str, part_of: Callable[[str, str], str] | None) -> dict[str, dict[int, Rows]]:
    """The rows of each part of a split, by seed."""
    if part_of is None:
        return {"": dict(by_seed)} if by_seed else {}
    found: dict[str, dict[int, Rows]] = {}
    for seed, rows in by_seed.items():
        for key, row in rows.items():
            found.setdefault(part_of(split, key), {}).setdefault(seed, {})[key] = row
    return dict(sorted(found.items()))


def p_value(means: Floats) -> float:
    """Two-sided p of a mean of 0, by the share of resampled means (B,) beyond it: small where the interval leaves 0 out."""
    beyond = 1 + min(int((means <= 0).sum()), int((means >= 0).sum()))
    return min(1.0, 2 * beyond / (1 + len(means)))


def holm(p: Sequence[float]) -> list[float]:
    """p-values corrected by Holm's step-down procedure, in the order given."""
    order = sorted(range(len(p)), key=p.__getitem__)
    corrected, largest = [0.0] * len(p), 0.0
    for rank, i in enumerate(order):
        largest = max(largest, min(1.0, (len(p) - rank) * p[i]))
        corrected[i] = largest
    return corrected


def seconds(run: RunFolder) -> float:
    """What training took: cold start, difficulty and RL, as measured when they ran."""
    stamps = [run.stamp(name) for name in ("02_sft", "03_difficulty", "04_grpo")]
    return sum(float(read_json(path)["seconds"]) for path in stamps if path.is_file())


def point_name(grid: Grid, at: Point | None) -> str:
    if at is None:
        return "all points"
    named = [(key.rsplit(".", 1)[-1].replace("_", " "), value) for key, value in zip(grid.axes, at, strict=True)]
    return ", ".join(f"{name} {value}" for name, value in named if value is not None)


def effect_table(grid: Grid, found: Sequence[Effect], title: str = "") -> Table:
    """A row for each pair and point (or part), a column for each split; what does not stand says so."""
    rows: dict[tuple[str, str, str], dict[str, Any]] = {}
    for effect in found:
        key = (effect.name, point_name(grid, effect.at), effect.part)
        row = rows.setdefault(key, {"difference": key[0], "at": key[1], **({"of": key[2]} if effect.part else {})})
        note = effect.verdict
        row[effect.split] = Cell(effect.difference, effect.interval, None, note, "+.1f", "", not note)
    return table_of(list(rows.values()), title)


def seconds_table(grid: Grid, title: str = "") -> Table:
    """Seconds of training of each way at each point, means over seeds: whether two ways had equal compute."""
    rows = []
    for at in grid.points:
        row: dict[str, Any] = {"at": point_name(grid, at)}
        for way in grid.ways:
            took = [seconds(trained.run) for trained in grid.of(way, at)]
            row[way] = (
                Cell(float(np.mean(took)), None, float(np.std(took, ddof=1)) if len(took) > 1 else None, "", ".0f", "s")
                if took
                else None
            )
        rows.append(row)
    return table_of(rows, title)
