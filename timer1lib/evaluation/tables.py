"""Results as tables: rows of text cells first, then text, Markdown or HTML of them."""

from __future__ import annotations

import html
from collections.abc import Mapping, Sequence
from typing import Any

Row = Mapping[str, str]

RESULT_COLUMNS = ("R1@0.3", "R1@0.5", "R1@0.7", "mIoU")


def results_rows(metrics: Mapping[str, Any], split: str) -> list[dict[str, str]]:
    """One split of a `metrics.json`: a row a checkpoint, then a row a baseline; intervals in brackets."""
    rows = [_result_row(name, row) for name, row in metrics.get("splits", {}).get(split, {}).items()]
    rows += [_result_row(f"({name})", row) for name, row in metrics.get("baselines", {}).get(split, {}).items()]
    return rows


def _result_row(name: str, row: Mapping[str, Any]) -> dict[str, str]:
    cells = {
        "model": name,
        "n": str(row.get("n", "")),
        "answered": str(row.get("answered", "")),
        "unparsable": str(row.get("unparsable", "")),
    }
    if "accuracy" in row:
        cells["accuracy"] = with_interval(row, "accuracy")
        cells["chance"] = percent(row.get("chance"))
    if "mIoU" in row:
        cells |= {metric: with_interval(row, metric) for metric in RESULT_COLUMNS}
    if "mean_relative_length" in row:
        cells["length"] = _share(row.get("mean_relative_length"))
        cells["true length"] = _share(row.get("true_relative_length"))
        cells["edge error"] = "-" if row.get("boundary_error_s") is None else f"{row['boundary_error_s']:.2f} s"
    return cells


def paired_rows(by_pair: Mapping[str, Mapping[str, Mapping[str, Any]]]) -> list[dict[str, str]]:
    """Paired differences of one split: {pair: {metric: {difference, interval, p, n}}}."""
    rows = []
    for name, by_metric in by_pair.items():
        for metric, row in by_metric.items():
            if row.get("difference") is None:
                continue
            low, high = row.get("interval") or (None, None)
            ends = f"[{low:+.2f}, {high:+.2f}]" if low is not None and high is not None else "-"
            p = row.get("p")
            cells = {"pair": name, "metric": metric, "difference": f"{row['difference']:+.2f}", "95% interval": ends}
            rows.append(cells | {"p": "-" if p is None else f"{p:.4f}", "n": str(row.get("n", ""))})
    return rows


def group_rows(row: Mapping[str, Any], grouping: str) -> list[dict[str, str]]:
    """One checkpoint's scores by group: `grouping` is type, video_length, window_length, window_position or source."""
    return [
        {
            grouping.replace("_", " "): name,
            "n": str(part["n"]),
            **{metric: with_interval(part, metric) for metric in RESULT_COLUMNS},
        }
        for name, part in row.get(f"by_{grouping}", {}).items()
    ]


def signature_rows(found: Mapping[str, Mapping[str, Any]]) -> list[dict[str, str]]:
    """Signatures of one checkpoint on one split: {name: Signature as JSON}."""
    rows = []
    for name, row in found.items():
        value, ends = row.get("value"), row.get("interval")
        rows.append(
            {
                "signature": name.replace("_", " "),
                "value": "not measured" if value is None else f"{value:.2f} {row.get('unit', '')}",
                "95% interval": f"[{ends[0]:.2f}, {ends[1]:.2f}]" if ends else "-",
                "flagged": "YES" if row.get("flagged") else "no",
                "samples": str(len(row.get("samples", ()))),
                "note": str(row.get("note", "")),
            }
        )
    return rows


def with_interval(row: Mapping[str, Any], metric: str) -> str:
    """`45.2 [41.0, 49.3]`, without the brackets where there is no interval."""
    ends = (row.get("interval") or {}).get(metric)
    value = percent(row.get(metric))
    return f"{value} [{ends[0]:.1f}, {ends[1]:.1f}]" if ends and value != "-" else value


def percent(value: Any) -> str:
    return f"{value:.1f}" if isinstance(value, (int, float)) else "-"


def _share(value: Any) -> str:
    return f"{100 * value:.1f}%" if isinstance(value, (int, float)) else "-"


def columns(rows: Sequence[Row]) -> list[str]:
    """Every column that some row has, in order of appearance."""
    return list(dict.fromkeys(name for row in rows for name in row))


def text_table(rows: Sequence[Row]) -> str:
    """Aligned lines, the first column left, the others right; empty text where there are no rows."""
    if not rows:
        return ""
    head = columns(rows)
    lines = [head, *([str(row.get(name, "-")) for name in head] for row in rows)]
    widths = [max(len(line[i]) for line in lines) for i in range(len(head))]
    shown = [
        "  ".join(
            cell.ljust(width) if i == 0 else cell.rjust(width) for i, (cell, width) in enumerate(zip(line, widths, strict=True))
        )
        for line in lines
    ]
    return "\n".join([shown[0], "-" * len(shown[0]), *shown[1:]])


def markdown_table(rows: Sequence[Row]) -> str:
    """A Markdown table; bars in cells are escaped."""
    if not rows:
        return ""
    head = columns(rows)
    lines = [head, ["---"] * len(head), *([str(row.get(name, "-")).replace("|", "\\|") for name in head] for row in rows)]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def html_table(rows: Sequence[Row]) -> str:
    """An HTML table; every cell is escaped."""
    if not rows:
        return ""
    head = columns(rows)
    top = "".join(f"<th>{html.escape(name)}</th>" for name in head)
    body = "".join(
        "<tr>" + "".join(f"<td>{html.escape(str(row.get(name, '-')))}</td>" for name in head) + "</tr>" for row in rows
    )
    return f"<table><thead><tr>{top}</tr></thead><tbody>{body}</tbody></table>"
