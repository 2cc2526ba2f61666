"""Figures of 01 and 03: what the audit found, what the data covers, what can be guessed, what was selected."""

from __future__ import annotations

import html
from collections.abc import Mapping, Sequence
from typing import Any

import plotly.graph_objects as go
from plotly.subplots import make_subplots

from timer1lib.data.audit import AuditReport
from timer1lib.data.findings import CODES
from timer1lib.view.plots import COLOURS, TEMPLATE, figure

RED = "#c1272d"
SEVERITY_COLOURS = {"error": "#d55e00", "warning": "#e69f00", "info": "#56b4e9"}
SEVERITY_SHAPES = {"error": "/", "warning": ".", "info": ""}
Reports = Mapping[str, Mapping[str, Any]]


def audit_figure(report: AuditReport) -> go.Figure:
    """Findings by code, coloured by severity; the text says what the treatments did."""
    fig = figure("What the audit found", "findings", "", 120 + 26 * max(1, len(report.findings)))
    for severity in SEVERITY_COLOURS:
        codes = [code for code in report.findings if CODES[code].severity == severity]
        marker = {
            "color": SEVERITY_COLOURS[severity],
            "pattern": {"shape": SEVERITY_SHAPES[severity], "fgcolor": "rgba(0,0,0,0.4)", "fillmode": "overlay"},
        }
        text = [f"{report.findings[code]} · {report.treatments[code]}" for code in codes]
        hover = [CODES[code].meaning for code in codes]
        counts = [report.findings[code] for code in codes]
        bars = {
            "orientation": "h",
            "marker": marker,
            "text": text,
            "textposition": "outside",
            "cliponaxis": False,
            "hovertext": hover,
        }
        fig.add_bar(y=codes, x=counts, name=severity, **bars)
    return fig.update_layout(barmode="stack").update_yaxes(autorange="reversed")


def coverage_figure(reports: Reports) -> go.Figure:
    """Where windows lie and how long they are, as shares of their video: a square for each split."""
    fig = make_subplots(1, len(reports), subplot_titles=[f"{name} (evenness {r['evenness']:.2f})" for name, r in reports.items()])
    for i, report in enumerate(reports.values(), 1):
        axis = [5 + 10 * k for k in range(10)]
        fig.add_heatmap(z=report["cells"], x=axis, y=axis, colorscale="Viridis", showscale=False, row=1, col=i)
        fig.update_xaxes(title_text="centre, % of the video", row=1, col=i)
    fig.update_yaxes(title_text="length, % of the video", row=1, col=1)
    return fig.update_layout(template=TEMPLATE, height=370, title="Where the windows are", margin_t=84)


def length_figure(reports: Reports) -> go.Figure:
    """Window lengths in seconds, a line for each split."""
    fig = figure("How long the windows are", "window, seconds", "share of windows, %")
    known = {name: [v for v in report["seconds"]["window"] if v is not None] for name, report in reports.items()}
    top = max((sorted(lengths)[int(0.95 * (len(lengths) - 1))] for lengths in known.values() if lengths), default=1.0)
    for i, (name, lengths) in enumerate(known.items()):
        line = {"color": COLOURS[i % len(COLOURS)], "dash": ("solid", "dot", "dash")[i % 3]}
        counts, edges = _histogram(lengths, top, 24)
        fig.add_scatter(
            x=edges, y=[100 * n / max(1, len(lengths)) for n in counts], name=name, mode="lines", line={"shape": "hv", **line}
        )
    return fig


def _histogram(values: Sequence[float], top: float, bins: int) -> tuple[list[int], list[float]]:
    """Counts in equal bins from 0 to `top`, with their left edges; the last one takes all that is longer."""
    width = (top or 1.0) / bins
    counts = [0] * bins
    for value in values:
        counts[min(bins - 1, max(0, int(value / width)))] += 1
    return counts, [round(i * width, 3) for i in range(bins)]


def type_figure(reports: Reports) -> go.Figure:
    """Share of queries by type."""
    fig = figure("What is asked", "", "share of queries, %", 380)
    for i, (name, report) in enumerate(reports.items()):
        shares = {kind: 100 * n / report["n"] for kind, n in report["types"].items()}
        marker = {
            "color": COLOURS[i % len(COLOURS)],
            "pattern": {"shape": ("", "/", ".")[i % 3], "fgcolor": "rgba(0,0,0,0.35)", "fillmode": "overlay"},
        }
        fig.add_bar(x=list(shares), y=list(shares.values()), name=name, marker=marker)
    return fig


def word_figure(report: Mapping[str, Any], top: int = 25) -> go.Figure:
    """The most frequent words of one split's queries."""
    words = dict(list(report["words"]["top"].items())[:top])
    title = f"Vocabulary: {report['words']['vocabulary']} words in {report['n']} queries"
    fig = figure(title, "", "times", 320)
    return fig.add_bar(x=list(words), y=list(words.values()), marker_color=COLOURS[0])


def blind_figure(reports: Reports, metric: str = "R1@0.5") -> go.Figure:
    """What answers without the video score, with 95% intervals; red where that is too much to trust the benchmark."""
    fig = figure(f"What can be guessed without looking: {metric}", "", f"{metric}, %", 380)
    names = list(dict.fromkeys(name for report in reports.values() for name in report["bias"]["answers"]))
    for i, name in enumerate(names):
        rows = {split: report["bias"] for split, report in reports.items() if name in report["bias"]["answers"]}
        answers = [bias["answers"][name] for bias in rows.values()]
        strong = [
            bias["strong"] and a["interval"]["R1@0.5"][0] > bias["limit"] for bias, a in zip(rows.values(), answers, strict=True)
        ]
        colours = [RED if s else ("#9aa0a8", "#56b4e9", "#0072b2")[i % 3] for s in strong]
        error = {"type": "data", "array": [a["interval"][metric][1] - a[metric] for a in answers],
                 "arrayminus": [a[metric] - a["interval"][metric][0] for a in answers], "thickness": 1}  # fmt: skip
        marker = {
            "color": colours,
            "pattern": {"shape": ("", ".", "/")[i % 3], "fgcolor": "rgba(0,0,0,0.35)", "fillmode": "overlay"},
        }
        fig.add_bar(x=list(rows), y=[a[metric] for a in answers], name=name, marker=marker, error_y=error)
    limits = [report["bias"]["limit"] for report in reports.values()]
    if metric == "R1@0.5" and limits:
        fig.add_hline(y=limits[0], line={"color": RED, "dash": "dot"}, annotation_text="too much to trust")
    return fig


def warnings_html(reports: Reports) -> str:
    """Every warning of the quality reports, in red; a calm sentence where there is none."""
    lines = [(name, text) for name, report in reports.items() for text in report["warnings"]]
    if not lines:
        return "<p>No warning: no blind answer comes near enough to doubt the splits.</p>"
    items = "".join(f"<li><b>{html.escape(name)}</b>: {html.escape(text)}</li>" for name, text in lines)
    return f'<ul style="color:{RED};font-weight:600">{items}</ul>'


def weight_figure(table: Sequence[Mapping[str, Any]], rule: str) -> go.Figure:
    """Every sample of the pool: its weight over its IoU, and whether it was taken."""
    fig = figure(f"Selection by {rule}: weight of every sample", "IoU of the model's answer", "weight")
    for chosen, name, colour, symbol in (
        (False, "left out", "rgba(128,132,140,0.6)", "x"),
        (True, "chosen", "#009e73", "circle"),
    ):
        rows = [row for row in table if row["chosen"] is chosen and row["iou"] is not None]
        x, y = [row["iou"] for row in rows], [row["weight"] for row in rows]
        text = [f"{row['id']}: {row['fate']}" for row in rows]
        fig.add_scatter(x=x, y=y, mode="markers", name=name, text=text, marker={"color": colour, "symbol": symbol, "size": 7})
    return fig


def spread_figure(rows: Sequence[Mapping[str, Any]]) -> go.Figure:
    """Spread of the reward over sampled answers, over the greedy answer's IoU: only spread teaches GRPO."""
    fig = figure("What GRPO could learn from", "IoU of the greedy answer", "spread of the reward over sampled answers")
    known = [row for row in rows if row.get("reward_std") is not None and row["iou"] is not None]
    x, y = [row["iou"] for row in known], [row["reward_std"] for row in known]
    marker = {"color": COLOURS[0], "size": 7, "opacity": 0.6}
    return fig.add_scatter(x=x, y=y, mode="markers", text=[row["id"] for row in known], marker=marker)
