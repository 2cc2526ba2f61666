"""The tables of the report: scores with intervals, paired differences, signatures, questions, failures."""

from __future__ import annotations

import html
from collections.abc import Mapping, Sequence
from typing import Any

from timer1lib.view.items import ORDER
from timer1lib.view.palette import styles

NAMES = {"base": "base", "sft": "SFT", "grpo": "GRPO"}
COLUMNS = (
    ("mIoU", "mIoU", ""),
    ("R1@0.3", "R1@0.3", ""),
    ("R1@0.5", "R1@0.5", ""),
    ("R1@0.7", "R1@0.7", ""),
    ("parse_rate", "answered", "share of completions that hold a segment, percent"),
    ("mean_relative_length", "length", "mean length of the answer over the video's, percent; beside it the truth's"),
    ("boundary_error_s", "edge error", "mean distance of an answer's edges from the true ones, seconds"),
)


def number(value: Any) -> float | None:
    """A plain number, or the `value` of one that comes with its interval."""
    if isinstance(value, Mapping):
        value = value.get("value", value.get("mean"))
    return float(value) if isinstance(value, (int, float)) and not isinstance(value, bool) else None


def grounding(metrics: Mapping[str, Any]) -> dict[str, dict[str, Mapping[str, Any]]]:
    """{split: {checkpoint: scores}} of the splits that have an mIoU, base, sft and grpo first."""
    found = {}
    for split, rows in (metrics.get("splits") or {}).items():
        if not isinstance(rows, Mapping):
            continue
        names = [name for name in ORDER if name in rows] + [name for name in rows if name not in ORDER]
        kept = {
            name: rows[name] for name in names if isinstance(rows[name], Mapping) and number(rows[name].get("mIoU")) is not None
        }
        if kept:
            found[split] = kept
    return found


def display_name(checkpoint: str) -> str:
    return NAMES.get(checkpoint, checkpoint)


def plain(row: Mapping[str, Any], metric: str) -> str:
    value = number(row.get(metric))
    return "–" if value is None else f"{value:.1f}"


def results(metrics: Mapping[str, Any]) -> str:
    """A table a split: every checkpoint with intervals, then the baselines, then paired differences."""
    splits = grounding(metrics)
    if not splits:
        return ""
    comparison = {">=": "≥", ">": "&gt;"}.get(str(metrics.get("comparison", ">=")), "≥")
    parts = [
        f'<p class="soft">R1@m counts answers with IoU {comparison} m, in percent; a missing or unreadable answer counts as wrong. Small: 95% intervals over videos.</p>'
    ]
    for split, rows in splits.items():
        baselines = (metrics.get("baselines") or {}).get(split) or {}
        parts.append(f"<h3>{html.escape(split)}</h3>" + _results_table(rows, baselines))
        paired = (metrics.get("paired") or {}).get(split) if isinstance(metrics.get("paired"), Mapping) else None
        if isinstance(paired, Mapping) and paired:
            parts.append(_paired(paired))
    return "".join(parts)


def _results_table(rows: Mapping[str, Mapping[str, Any]], baselines: Mapping[str, Any]) -> str:
    columns = [c for c in COLUMNS if any(number(row.get(c[0])) is not None for row in rows.values())]
    head = "".join(f'<th title="{html.escape(tip, quote=True)}">{label}</th>' for _, label, tip in columns)
    colours = styles(list(rows))
    best = max(rows, key=lambda name: number(rows[name].get("mIoU")) or 0.0)
    lines = []
    for name, row in rows.items():
        swatch = f'<span class="swatch" style="background:{colours[name].colour}"></span>'
        lines.append(
            f"<tr{' class=best' if name == best and len(rows) > 1 else ''}><td>{swatch}{html.escape(display_name(name))}</td>{''.join(_cell(row, key) for key, _, _ in columns)}</tr>"
        )
    for name, row in baselines.items():
        if isinstance(row, Mapping):
            lines.append(
                f'<tr class="baseline"><td>{html.escape(str(name).replace("_", " "))}</td>{"".join(_cell(row, key) for key, _, _ in columns)}</tr>'
            )
    return f'<div class="scroll"><table><thead><tr><th>checkpoint</th>{head}</tr></thead><tbody>{"".join(lines)}</tbody></table></div>'


def _cell(row: Mapping[str, Any], key: str) -> str:
    value = number(row.get(key))
    if value is None:
        return "<td>–</td>"
    if key == "mean_relative_length":
        true = number(row.get("true_relative_length"))
        return f"<td>{100 * value:.0f}{f'<small>true {100 * true:.0f}</small>' if true is not None else ''}</td>"
    if key == "boundary_error_s":
        return f"<td>{value:.2f} s</td>"
    interval = row.get("interval")
    ends = interval.get(key) if isinstance(interval, Mapping) else None
    return f"<td>{value:.1f}{f'<small>{ends[0]:.1f} – {ends[1]:.1f}</small>' if ends and key in ('mIoU', 'R1@0.3', 'R1@0.5', 'R1@0.7') else ''}</td>"


def _paired(paired: Mapping[str, Any]) -> str:
    lines = []
    for pair, by_metric in paired.items():
        if not isinstance(by_metric, Mapping):
            continue
        rows = {"": by_metric} if number(by_metric.get("difference")) is not None else by_metric
        for metric, row in rows.items():
            if not isinstance(row, Mapping) or number(row.get("difference")) is None:
                continue
            ends = row.get("interval") or (None, None)
            shown = f"{ends[0]:+.1f} to {ends[1]:+.1f}" if ends[0] is not None else "–"
            p = number(row.get("p_value", row.get("p")))
            said = "–" if p is None else "&lt; 0.001" if p < 0.001 else f"{p:.3f}"
            lines.append(
                f"<tr><td>{html.escape(str(pair))}</td><td>{html.escape(str(metric))}</td><td>{number(row['difference']):+.1f}</td><td>{shown}</td><td>{said}</td></tr>"
            )
    if not lines:
        return ""
    head = "<tr><th>paired</th><th>metric</th><th>difference</th><th>95% interval</th><th>p</th></tr>"
    return f'<details><summary>Paired comparisons, sample by sample</summary><div class="scroll"><table><thead>{head}</thead><tbody>{"".join(lines)}</tbody></table></div></details>'


def signatures(metrics: Mapping[str, Any]) -> str:
    """Every signature's number with its interval, by split and checkpoint."""
    return _nested_table(
        metrics.get("signatures"), "Each is a number with an interval; the samples behind it are listed in 06_inspect."
    )


def questions(metrics: Mapping[str, Any]) -> str:
    return _nested_table(metrics.get("questions"), "Multiple choice, answered by the same checkpoints.")


def failed(metrics: Mapping[str, Any]) -> str:
    """What could not be read or answered, listed."""
    rows = metrics.get("failed")
    if not isinstance(rows, Sequence) or isinstance(rows, str) or not rows:
        return ""
    lines = "".join(
        f'<tr><td>{html.escape(str(row.get("id", "")))}</td><td class="wrap">{html.escape(str(row.get("error", row.get("reason", ""))))}</td></tr>'
        for row in rows[:50]
        if isinstance(row, Mapping)
    )
    more = f'<p class="note">and {len(rows) - 50} more in metrics.json</p>' if len(rows) > 50 else ""
    return f'<div class="scroll"><table><thead><tr><th>sample</th><th class="left">why</th></tr></thead><tbody>{lines}</tbody></table></div>{more}'


def _nested_table(value: Any, note: str) -> str:
    """{split: {checkpoint: {name: number or {value, interval, ...}}}} as one table; whatever is no number is left out."""
    if not isinstance(value, Mapping) or not value:
        return ""
    rows: list[tuple[str, str, str, Mapping[str, Any] | float]] = []
    for split, by_checkpoint in value.items():
        for checkpoint, entries in by_checkpoint.items() if isinstance(by_checkpoint, Mapping) else ():
            for name, entry in entries.items() if isinstance(entries, Mapping) else ():
                if number(entry) is not None:
                    rows.append((str(split), str(checkpoint), str(name), entry))
    if not rows:
        return ""
    lines = []
    for split, checkpoint, name, entry in rows:
        ends = entry.get("interval") if isinstance(entry, Mapping) else None
        listed = entry.get("samples") if isinstance(entry, Mapping) else None
        shown = f"{ends[0]:.3g} – {ends[1]:.3g}" if isinstance(ends, Sequence) and len(ends) == 2 and None not in ends else "–"
        lines.append(
            f'<tr><td>{html.escape(name.replace("_", " "))}</td><td class="left">{html.escape(split)}</td><td class="left">{html.escape(display_name(checkpoint))}</td><td>{number(entry):.3g}</td><td>{shown}</td><td>{len(listed) if isinstance(listed, Sequence) else "–"}</td></tr>'
        )
    head = '<tr><th>what</th><th class="left">split</th><th class="left">checkpoint</th><th>value</th><th>95% interval</th><th>samples</th></tr>'
    return (
        f'<p class="soft">{note}</p><div class="scroll"><table><thead>{head}</thead><tbody>{"".join(lines)}</tbody></table></div>'
    )
