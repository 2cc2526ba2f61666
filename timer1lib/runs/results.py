"""The table at the end of a run, from `metrics.json`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

COLUMNS = ("mIoU", "R1@0.3", "R1@0.5", "R1@0.7", "accuracy")
CHECKPOINTS = ("base", "sft", "grpo")
_TITLES = {"base": "base", "sft": "SFT", "grpo": "GRPO"}


def results_table(metrics: Mapping[str, Any]) -> str:
    """Rows of split and checkpoint, columns of metrics in percent; only columns that some row has.

    Reads `{"splits": {split: {checkpoint: {"mIoU": ...}}}}`; checkpoints stand in the order of training.
    """
    rows: list[tuple[str, str, Mapping[str, Any]]] = []
    for split, by_checkpoint in metrics.get("splits", {}).items():
        if not isinstance(by_checkpoint, Mapping):
            continue
        order = [name for name in CHECKPOINTS if name in by_checkpoint]
        for name in [*order, *(other for other in by_checkpoint if other not in order)]:
            if isinstance(by_checkpoint[name], Mapping):
                rows.append((split, _TITLES.get(name, name), by_checkpoint[name]))
    columns = [column for column in COLUMNS if any(number(row[2].get(column)) is not None for row in rows)]
    table = [["split", "model", *columns]]
    table += [[split, name, *(_cell(values.get(column)) for column in columns)] for split, name, values in rows]
    return "\n".join(aligned(table))


def aligned(table: list[list[str]], left: int = 2) -> list[str]:
    """Lines of a table with the first `left` columns left and the rest right, a rule under the head."""
    widths = [max(len(row[i]) for row in table) for i in range(len(table[0]))]
    lines = []
    for row in table:
        padded = enumerate(zip(row, widths, strict=True))
        cells = [cell.ljust(width) if i < left else cell.rjust(width) for i, (cell, width) in padded]
        lines.append("  ".join(cells).rstrip())
    return [lines[0], "-" * len(lines[0]), *lines[1:]]


def number(value: Any) -> float | None:
    """A plain number, or the `value` of a metric that is written with its interval."""
    if isinstance(value, Mapping):
        value = value.get("value")
    return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else None


def _cell(value: Any) -> str:
    plain = number(value)
    return "-" if plain is None else f"{plain:.1f}"
