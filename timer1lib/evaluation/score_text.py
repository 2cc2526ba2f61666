"""What `timer1 score` prints for a person: the numbers, their breakdown, and what was repaired or left out."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from timer1lib.evaluation.tables import text_table

MEASURES = ("mIoU", "R1@0.3", "R1@0.5", "R1@0.7", "mAP", "mAP@0.5", "mAP@0.75")
_BREAKDOWNS = {
    "by_type": "query type",
    "by_video_length": "video length",
    "by_window_length": "window length",
    "by_window_position": "window position",
    "by_source": "source",
    "by_length": "window length (QVHighlights)",
}


def score_text(value: Mapping[str, Any]) -> str:
    """Lines for the result of `score_files`; percent, with 95% intervals over videos where they were drawn."""
    intervals = value.get("interval", {})
    head = []
    for name in MEASURES:
        if name in value:
            low_high = intervals.get(name)
            interval = f"{low_high[0]:.1f} to {low_high[1]:.1f}" if low_high else "-"
            head.append({"measure": name, "percent": f"{value[name]:.1f}", "95% interval": interval})
    parts = [
        f"{value['n']} asked, {value['answered']} answered, {value['unparsable']} unparsable, {value.get('missing', 0)} missing; "
        f"R1@m counts IoU {value['comparison']} m; answers read as {value['form']}, annotations read as {value['format']}",
        text_table(head),
    ]
    for key, title in _BREAKDOWNS.items():
        groups = value.get(key)
        if isinstance(groups, Mapping) and groups:
            parts.append(_breakdown(title, groups))
    parts += _fates(value)
    return "\n\n".join(parts)


def _breakdown(title: str, groups: Mapping[str, Mapping[str, Any]]) -> str:
    names = [name for name in MEASURES if any(name in group for group in groups.values())]
    rows = []
    for group, numbers in groups.items():
        cells = {name: f"{numbers[name]:.1f}" for name in names if isinstance(numbers.get(name), int | float)}
        rows.append({title: group, "n": str(numbers.get("n", "")), **cells})
    return text_table(rows)


def _fates(value: Mapping[str, Any]) -> list[str]:
    """One line for everything that did not simply fit."""
    lines = []
    for code, few in value.get("repaired", {}).items():
        lines.append(f"repaired ({value['repair_policy']}) {code}: {few['n']}, such as {', '.join(map(str, few['examples']))}")
    for code, few in value.get("left_out", {}).items():
        if isinstance(few, Mapping):
            lines.append(f"left out {code}: {few['n']}, such as {', '.join(map(str, few['examples']))}")
    titles = {"unreadable": "unreadable rows", "duplicates": "answered twice", "unknown": "about no known sample"}
    for name, words in titles.items():
        few = value.get(name, {})
        if few.get("n"):
            lines.append(f"{words}: {few['n']}, such as {', '.join(map(str, few['examples']))}")
    return ["\n".join(lines)] if lines else []
