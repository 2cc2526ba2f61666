"""The table of a sweep: every variant's last checkpoint, averaged over seeds."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from timer1lib.files import read_json
from timer1lib.runs.results import COLUMNS, aligned, number


def means_table(rows: Sequence[dict[str, Any]]) -> str:
    """Mean over seeds of every variant's last checkpoint, in percent, with the seeds' standard deviation where several."""
    table: list[list[str]] = []
    by_variant: dict[str, list[dict[str, Any]]] = {}
    for row in rows:
        by_variant.setdefault(row["variant"], []).append(row)
    found: dict[tuple[str, str, str], dict[str, list[float]]] = {}
    for variant, members in by_variant.items():
        for row in members:
            metrics = Path(row["run"]) / "metrics.json"
            if row["error"] or not metrics.is_file():
                continue
            for split, by_checkpoint in read_json(metrics).get("splits", {}).items():
                checkpoint = next((c for c in ("grpo", "sft", "base") if isinstance(by_checkpoint.get(c), dict)), None)
                for column in COLUMNS if checkpoint else ():
                    value = number(by_checkpoint[checkpoint].get(column))
                    if value is not None:
                        found.setdefault((split, variant, str(checkpoint)), {}).setdefault(column, []).append(value)
    columns = [column for column in COLUMNS if any(column in values for values in found.values())]
    table.append(["split", "row", "checkpoint", *columns])
    for (split, variant, checkpoint), values in sorted(found.items(), key=lambda item: item[0][0]):
        table.append([split, variant, checkpoint, *(_mean(values.get(column, [])) for column in columns)])
    return "\n".join(aligned(table, left=3))


def _mean(values: list[float]) -> str:
    if not values:
        return "-"
    spread = f" +-{statistics.stdev(values):.1f}" if len(values) > 1 else ""
    return f"{statistics.fmean(values):.1f}{spread}"
