"""07_compare: this run beside others, and beside what has been published."""

from __future__ import annotations

from typing import Any

from timer1lib.errors import Timer1Error
from timer1lib.evaluation.compare import beside_published, compare_runs
from timer1lib.evaluation.differing import default_pair, runs_table, runs_there
from timer1lib.evaluation.maps import Effect, Grid, effects, marginals, read_answers, read_grid
from timer1lib.evaluation.metrics import COMPARISONS
from timer1lib.evaluation.tables import Table
from timer1lib.params import split_list
from timer1lib.params.sections import CompareParams
from timer1lib.stages import Stage

CompareStage = Stage[CompareParams]


def there(stage: CompareStage) -> Table:
    """Every evaluated run beside this one, the newest first, and what is not as in the defaults."""
    return runs_table(runs_there(stage.run.root.resolve().parent))


def runs(stage: CompareStage) -> list[str]:
    """Folders or names of the runs to compare: those of the parameters, else the default run and this or the newest other."""
    root = stage.run.root.resolve()
    if named := split_list(stage.params.runs):
        return named
    return [str(root.parent / name) for name in default_pair(runs_there(root.parent), root.name)] or [str(stage.run.root)]


def compare(stage: CompareStage) -> dict[str, Any]:
    """`evaluation.compare.compare_runs` by the parameters; a Timer1Error where a run is not there, or was not evaluated."""
    p = stage.params
    return compare_runs(
        runs(stage), checkpoint=p.checkpoint, comparison=COMPARISONS[p.comparison], resamples=p.resamples, seed=stage.shared.seed
    )


def sweep_map(stage: CompareStage) -> tuple[Grid, list[Effect], list[list[Effect]]] | None:
    """The map of the sweep that the parameters name, and what it comes to along each axis; None where they name none.

    Raises:
        Timer1Error: no such sweep, one without a grid, or without any of the pairs.
    """
    if not stage.params.sweep:
        return None
    grid = read_grid(stage.params.sweep)
    named = (text.partition(":") for text in split_list(stage.params.sweep_pairs))
    pairs = [(one.strip(), two.strip()) for one, _, two in named]
    pairs, answers = pairs or grid.pairs, read_answers(grid)
    found = effects(grid, pairs, answers, seed=stage.shared.seed)
    if not found:
        raise Timer1Error(f"compare.sweep_pairs {stage.params.sweep_pairs!r}: no such rows; there are {', '.join(grid.ways)}")
    return grid, found, marginals(grid, pairs, answers, stage.shared.seed)


def published(stage: CompareStage, value: dict[str, Any]) -> list[dict[str, Any]]:
    """Published results of one benchmark, or of all; those that the runs were tested on stand below the runs' own."""
    return beside_published(value, None if stage.params.benchmark == "all" else stage.params.benchmark)
