"""07_compare: this run beside others, and beside what has been published."""

from __future__ import annotations

from typing import Any

from timer1lib.errors import Timer1Error
from timer1lib.evaluation.compare import beside_published, compare_runs
from timer1lib.evaluation.maps import Effect, Grid, effects, read_grid
from timer1lib.evaluation.metrics import COMPARISONS
from timer1lib.params import split_list
from timer1lib.params.sections import CompareParams
from timer1lib.stages import Stage

CompareStage = Stage[CompareParams]


def runs(stage: CompareStage) -> list[str]:
    """Folders or names of the runs to compare: those of the parameters, else this run alone."""
    return split_list(stage.params.runs) or [str(stage.run.root)]


def compare(stage: CompareStage) -> dict[str, Any]:
    """`evaluation.compare.compare_runs` by the parameters; a Timer1Error where a run is not there, or was not evaluated."""
    p = stage.params
    return compare_runs(
        runs(stage), checkpoint=p.checkpoint, comparison=COMPARISONS[p.comparison], resamples=p.resamples, seed=stage.shared.seed
    )


def sweep_map(stage: CompareStage) -> tuple[Grid, list[Effect]] | None:
    """The map of the sweep that the parameters name; None where they name none.

    Raises:
        Timer1Error: no such sweep, one without a grid, or without any of the pairs.
    """
    if not stage.params.sweep:
        return None
    grid = read_grid(stage.params.sweep)
    pairs = [(one.strip(), two.strip()) for one, _, two in (text.partition(":") for text in split_list(stage.params.sweep_pairs))]
    found = effects(grid, pairs, seed=stage.shared.seed)
    if not found:
        raise Timer1Error(f"compare.sweep_pairs {stage.params.sweep_pairs!r}: no such rows; there are {', '.join(grid.ways)}")
    return grid, found


def by_run(value: dict[str, Any], measure: str) -> dict[str, dict[str, Any]]:
    """{run: {split: scores}} of the splits that have a measure, for `view.figures.by_group`."""
    table: dict[str, dict[str, Any]] = {}
    for split, part in value["splits"].items():
        for row in part["rows"]:
            if row.get(measure) is not None:
                table.setdefault(f"{row['run']} ({row['checkpoint']})", {})[split] = row
    return table


def types(value: dict[str, Any], split: str) -> dict[str, dict[str, Any]]:
    """{run: {query type: scores}} of one grounding split."""
    return {row["run"]: row.get("by_type", {}) for row in value["splits"][split]["rows"]}


def published(stage: CompareStage, value: dict[str, Any]) -> list[dict[str, Any]]:
    """Published results of one benchmark, or of all; those that the runs were tested on stand below the runs' own."""
    return beside_published(value, None if stage.params.benchmark == "all" else stage.params.benchmark)
