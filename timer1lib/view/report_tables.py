"""The tables of the report: scores with intervals, paired differences, signatures, questions, failures."""

from __future__ import annotations

import html
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from timer1lib.view.items import ORDER, styles

NAMES = {"base": "base", "sft": "SFT", "grpo": "GRPO"}
HEADLINE = ("mIoU", "R1@0.3", "R1@0.5", "R1@0.7")
COLUMNS = (
    ("mIoU", "mIoU", ""),
    ("R1@0.3", "R1@0.3", ""),
    ("R1@0.5", "R1@0.5", ""),
    ("R1@0.7", "R1@0.7", ""),
    ("parse_rate", "answered", "share of completions that hold a segment, percent"),
    ("mean_relative_length", "length", "mean length of the answer over the video's, percent; beside it the truth's"),
    ("boundary_error_s", "edge error", "mean distance of an answer's edges from the true ones, seconds"),
)
MOST_FAILED = 50


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
        scored = {name: rows[name] for name in names if isinstance(rows[name], Mapping)}
        kept = {name: row for name, row in scored.items() if number(row.get("mIoU")) is not None}
        if kept:
            found[split] = kept
    return found


def display_name(checkpoint: str) -> str:
    return NAMES.get(checkpoint, checkpoint)


def plain(row: Mapping[str, Any], metric: str) -> str:
    value = number(row.get(metric))
    return "–" if value is None else f"{value:.1f}"


def table(head: Sequence[str], rows: Sequence[str], narrow: bool = False) -> str:
    """A table that scrolls on a narrow screen; `head` and `rows` are HTML, a row with its `<tr>`."""
    width = ' style="width:auto"' if narrow else ""
    return (
        f'<div class="scroll"><table{width}><thead><tr>{"".join(head)}</tr></thead><tbody>{"".join(rows)}</tbody></table></div>'
    )


def _heads(*names: str, left: int = 1) -> list[str]:
    """Header cells; the first `left` stand over words, the others over numbers."""
    return [f"<th{' class=left' if i < left else ''}>{name}</th>" for i, name in enumerate(names)]


def _row(*cells: str, left: int = 1, kind: str = "") -> str:
    """A row of plain-text cells."""
    made = (f"<td{' class=left' if i < left else ''}>{html.escape(cell)}</td>" for i, cell in enumerate(cells))
    return f"<tr{f' class={kind}' if kind else ''}>{''.join(made)}</tr>"


def results(metrics: Mapping[str, Any]) -> str:
    """A table a split: every checkpoint with intervals, then the baselines, then paired differences."""
    splits = grounding(metrics)
    if not splits:
        return ""
    reaches = "&gt;" if metrics.get("comparison") in (">", "exceeds") else "≥"
    parts = [
        f'<p class="soft">R1@m counts answers with IoU {reaches} m, in percent; a missing or unreadable answer counts as '
        "wrong. Small: 95% intervals over videos. Length and edge error stand here because a mean IoU can be bought with "
        "longer answers.</p>"
    ]
    for split, rows in splits.items():
        baselines = (metrics.get("baselines") or {}).get(split) or {}
        parts.append(f"<h3>{html.escape(split)}</h3>" + _results_table(rows, baselines))
        paired = (metrics.get("paired") or {}).get(split)
        if isinstance(paired, Mapping) and paired:
            parts.append(_paired(paired))
    return "".join(parts)


def _results_table(rows: Mapping[str, Mapping[str, Any]], baselines: Mapping[str, Any]) -> str:
    columns = [c for c in COLUMNS if any(number(row.get(c[0])) is not None for row in rows.values())]
    head = ["<th>checkpoint</th>"] + [f'<th title="{html.escape(tip, quote=True)}">{label}</th>' for _, label, tip in columns]
    colours = styles(list(rows))
    best = max(rows, key=lambda name: number(rows[name].get("mIoU")) or 0.0)
    lines = []
    for name, row in rows.items():
        swatch = f'<span class="swatch" style="background:{colours[name].colour}"></span>'
        kind = " class=best" if name == best and len(rows) > 1 else ""
        cells = "".join(_cell(row, key) for key, _, _ in columns)
        lines.append(f"<tr{kind}><td>{swatch}{html.escape(display_name(name))}</td>{cells}</tr>")
    for name, row in baselines.items():
        if isinstance(row, Mapping):
            cells = "".join(_cell(row, key) for key, _, _ in columns)
            lines.append(f'<tr class="baseline"><td>{html.escape(str(name).replace("_", " "))}</td>{cells}</tr>')
    return table(head, lines)


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
    ends = interval.get(key) if isinstance(interval, Mapping) and key in HEADLINE else None
    small = f"<small>{ends[0]:.1f} – {ends[1]:.1f}</small>" if ends and None not in ends else ""
    return f"<td>{value:.1f}{small}</td>"


def _paired(paired: Mapping[str, Any]) -> str:
    lines = []
    for pair, by_metric in paired.items():
        for metric, row in by_metric.items() if isinstance(by_metric, Mapping) else ():
            difference = number(row.get("difference")) if isinstance(row, Mapping) else None
            if difference is None:
                continue
            p = number(row.get("p"))
            said = "–" if p is None else "< 0.001" if p < 0.001 else f"{p:.3f}"
            lines.append(_row(str(pair), str(metric), f"{difference:+.1f}", _ends(row, "+.1f"), said, left=2))
    if not lines:
        return ""
    head = _heads("paired", "metric", "difference", "95% interval", "p", left=2)
    return f"<details><summary>Paired comparisons, question by question</summary>{table(head, lines)}</details>"


def _ends(entry: Any, form: str) -> str:
    ends = entry.get("interval") if isinstance(entry, Mapping) else None
    if not isinstance(ends, Sequence) or len(ends) != 2 or None in ends:
        return "–"
    return f"{ends[0]:{form}} to {ends[1]:{form}}"


def signatures(metrics: Mapping[str, Any]) -> str:
    """A table a split: a signature a row, a checkpoint a column, with intervals; what was found stands first."""
    rows = list(_entries(metrics.get("signatures")))
    if not rows:
        return ""
    parts = [
        '<p class="soft">Each signature is a number with an interval. It counts as found, <strong>● bold</strong>, where the '
        "interval lies beyond nothing and the effect is large enough to matter. 06_inspect lists the samples behind it.</p>"
    ]
    for split in dict.fromkeys(row[0] for row in rows):
        own = [row for row in rows if row[0] == split]
        checkpoints = list(dict.fromkeys(row[1] for row in own))
        found = {row[2] for row in own if isinstance(row[3], Mapping) and row[3].get("flagged")}
        names = sorted(dict.fromkeys(row[2] for row in own), key=lambda name: name not in found)
        cells = {(row[2], row[1]): row[3] for row in own}
        lines = []
        for name in names:
            facts = [cells[name, checkpoint] for checkpoint in checkpoints if (name, checkpoint) in cells]
            unit = next((str(entry["unit"]) for entry in facts if isinstance(entry, Mapping) and entry.get("unit")), "")
            values = "".join(_signature_cell(cells.get((name, checkpoint))) for checkpoint in checkpoints)
            label = f"{html.escape(name.replace('_', ' '))}<small>{html.escape(unit)}</small>"
            lines.append(f"<tr><td>{label}</td>{values}</tr>")
        heads = _heads("signature", *(html.escape(display_name(name)) for name in checkpoints))
        parts.append(f"<h3>{html.escape(split)}</h3>{table(heads, lines)}")
    return "".join(parts)


def _signature_cell(entry: Any) -> str:
    value = number(entry)
    if value is None:
        return "<td>–</td>"
    found = isinstance(entry, Mapping) and entry.get("flagged")
    shown = f"<strong>● {value:.3g}</strong>" if found else f"{value:.3g}"
    return f"<td>{shown}<small>{_ends(entry, '.3g')}</small></td>"


def questions(metrics: Mapping[str, Any]) -> str:
    """Multiple choice: a split and checkpoint a row; accuracy beside chance and always answering the same letter."""
    rows = [row for row in _entries(metrics.get("questions")) if row[2] != "n"]
    if not rows:
        return ""
    columns = list(dict.fromkeys(row[2] for row in rows))
    cells = {(row[0], row[1], row[2]): row[3] for row in rows}
    lines = []
    for split, checkpoint in dict.fromkeys((row[0], row[1]) for row in rows):
        values = ""
        for column in columns:
            entry = cells.get((split, checkpoint, column))
            value, ends = number(entry), _ends(entry, ".1f")
            small = f"<small>{ends}</small>" if ends != "–" else ""
            values += "<td>–</td>" if value is None else f"<td>{value:.1f}{small}</td>"
        names = f'<td>{html.escape(split)}</td><td class="left">{html.escape(display_name(checkpoint))}</td>'
        lines.append(f"<tr>{names}{values}</tr>")
    note = '<p class="soft">Multiple choice, answered by the same checkpoints, in percent.</p>'
    heads = _heads("split", "checkpoint", *(html.escape(name.replace("_", " ")) for name in columns), left=2)
    return note + table(heads, lines)


def _entries(value: Any) -> Iterator[tuple[str, str, str, Any]]:
    """{split: {checkpoint: {name: number or {value, ...}}}} as rows; whatever is no number is left out."""
    for split, by_checkpoint in value.items() if isinstance(value, Mapping) else ():
        for checkpoint, entries in by_checkpoint.items() if isinstance(by_checkpoint, Mapping) else ():
            for name, entry in entries.items() if isinstance(entries, Mapping) else ():
                if number(entry) is not None:
                    yield str(split), str(checkpoint), str(name), entry


def failed(metrics: Mapping[str, Any]) -> str:
    """What could not be read or answered, listed."""
    rows = metrics.get("failed")
    if not isinstance(rows, Sequence) or isinstance(rows, str) or not rows:
        return ""
    lines = []
    for row in rows[:MOST_FAILED]:
        if isinstance(row, Mapping):
            why = html.escape(str(row.get("error", row.get("reason", ""))))
            where = " · ".join(str(row[key]) for key in ("split", "checkpoint") if row.get(key))
            cells = f'<td class="left">{html.escape(where)}</td><td class="wrap">{why}</td>'
            lines.append(f"<tr><td>{html.escape(str(row.get('id', '')))}</td>{cells}</tr>")
    more = f'<p class="note">and {len(rows) - MOST_FAILED} more in metrics.json</p>' if len(rows) > MOST_FAILED else ""
    return table(_heads("sample", "where", "why", left=3), lines) + more
