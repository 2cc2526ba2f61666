"""Figures with one look. Each function takes plain rows and returns a plotly figure; `show` puts it into a notebook."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import plotly.graph_objects as go

from timer1lib.view.palette import styles
from timer1lib.view.plotly_html import figure_html, loader_html, needs_loader

INK = "#767d88"
"""Text colour that is readable on a light and on a dark page."""
GRID = "rgba(128,132,140,0.22)"
COLOURS = ("#0072b2", "#d55e00", "#009e73", "#e69f00", "#cc79a7", "#56b4e9", "#8a6fd1")
SHAPES = {"diagonal": "/", "back": "\\", "dots": ".", "vertical": "|", "cross": "x", "solid": ""}

_AXIS = {"gridcolor": GRID, "linecolor": GRID, "zerolinecolor": GRID, "ticks": "", "title": {"standoff": 10}, "automargin": True}
TEMPLATE = go.layout.Template(
    layout={
        "font": {"family": "system-ui, -apple-system, 'Segoe UI', sans-serif", "size": 13, "color": INK},
        "paper_bgcolor": "rgba(0,0,0,0)",
        "plot_bgcolor": "rgba(0,0,0,0)",
        "colorway": list(COLOURS),
        "xaxis": _AXIS,
        "yaxis": _AXIS,
        "title": {"x": 0.004, "xref": "container", "y": 0.98, "yanchor": "top", "font": {"size": 15}},
        "legend": {"orientation": "h", "y": 1.0, "yanchor": "bottom", "x": 0},
        "margin": {"l": 56, "r": 16, "t": 44, "b": 48},
        "hoverlabel": {"font": {"size": 12}},
        "bargap": 0.25,
    }
)


def figure(title: str, x: str, y: str, height: int = 340) -> go.Figure:
    """An empty figure in the common look; `x` and `y` are the axes' titles, with units."""
    empty = go.Figure(layout={"template": TEMPLATE, "title": {"text": title}, "height": height})
    return empty.update_xaxes(title_text=x).update_yaxes(title_text=y)


def _legend(fig: go.Figure, on: bool = True) -> go.Figure:
    """Legend between title and plot, with room for it; none where there is nothing to tell apart."""
    return fig.update_layout(showlegend=on, margin_t=72 if on else 44)


def show(fig: go.Figure) -> None:
    """Display a figure so that it is drawn in JupyterLab and still there in the notebook's HTML export.

    JupyterLab takes plotly's own MIME type. nbconvert drops that one, so HTML comes along: plotly.js, compressed,
    with the first figure of a notebook, and with every figure its data.
    """
    from IPython import display as notebook

    html = (loader_html() if needs_loader() else "") + figure_html(fig)
    bundle = {"application/vnd.plotly.v1+json": _json(fig), "text/html": html}
    publish: Any = notebook.display
    publish(bundle, raw=True)


def _json(fig: go.Figure) -> Any:
    import json

    return json.loads(str(fig.to_json())) | {"config": {"displaylogo": False, "responsive": True}}


def training_curve(rows: Sequence[Mapping[str, Any]], names: Sequence[str], title: str, y: str, smooth: int = 5) -> go.Figure:
    """Values over steps: thin as logged, thick as a running mean over `smooth` rows. Absent names are left out."""
    fig = figure(title, "step", y)
    present = [name for name in names if any(isinstance(row.get(name), (int, float)) for row in rows)]
    for i, name in enumerate(present):
        points = [(row["step"], float(row[name])) for row in rows if isinstance(row.get(name), (int, float)) and "step" in row]
        steps, values = [p[0] for p in points], [p[1] for p in points]
        colour = COLOURS[i % len(COLOURS)]
        fig.add_scatter(
            x=steps, y=values, mode="lines", line={"color": colour, "width": 1}, opacity=0.35, showlegend=False, hoverinfo="skip"
        )
        fig.add_scatter(
            x=steps,
            y=_running_mean(values, smooth),
            mode="lines",
            name=name,
            line={"color": colour, "width": 2.6, "dash": ("solid", "dot", "dash")[i % 3]},
        )
    return _legend(fig, len(present) > 1)


def _running_mean(values: Sequence[float], width: int) -> list[float]:
    """Mean of the last `width` values at each place."""
    return [sum(values[max(0, i - width + 1) : i + 1]) / (i + 1 - max(0, i - width + 1)) for i in range(len(values))]


def iou_histogram(ious: Mapping[str, Sequence[float]], title: str = "How far off: IoU of every answer") -> go.Figure:
    """Share of samples by IoU (20 bins), a step line a checkpoint. IoU 0 has a bin of its own at the left."""
    fig = figure(title, "IoU", "share of samples, %")
    for name, style in styles(list(ious)).items():
        values = list(ious[name])
        bins = [0] * 21
        for value in values:
            bins[0 if value <= 0 else min(20, int(value * 20) + 1)] += 1
        share = [100 * count / max(1, len(values)) for count in bins]
        fig.add_scatter(
            x=[-0.025 + 0.05 * i for i in range(21)],
            y=share,
            name=name,
            mode="lines",
            line={"shape": "hvh", "color": style.colour, "width": 2.4},
        )
    return _legend(fig, len(ious) > 1).update_layout(hovermode="x unified")


def by_group(groups: Mapping[str, Mapping[str, Mapping[str, Any]]], metric: str = "R1@0.5", title: str = "") -> go.Figure:
    """Bars of a metric (percent) by group, with intervals where given. `groups`: {checkpoint: {group: {metric: value}}}."""
    fig = figure(title or f"{metric} by group", f"{metric}, %", "", 360)
    for name, style in styles(list(groups)).items():
        rows = {group: row for group, row in groups[name].items() if isinstance(row.get(metric), (int, float))}
        values = [float(row[metric]) for row in rows.values()]
        ends = [row.get("interval", {}).get(metric) or (value, value) for row, value in zip(rows.values(), values, strict=True)]
        errors = {
            "type": "data",
            "array": [e[1] - v for e, v in zip(ends, values, strict=True)],
            "arrayminus": [v - e[0] for e, v in zip(ends, values, strict=True)],
            "thickness": 1,
        }
        labels = [f"{group} (n={row['n']})" if "n" in row else group for group, row in rows.items()]
        fig.add_bar(
            y=labels, x=values, name=name, orientation="h", marker=_filled(style.colour, SHAPES[style.pattern]), error_x=errors
        )
    longest = max((len(rows) for rows in groups.values()), default=1)
    fig.update_layout(height=140 + longest * (10 + 13 * max(1, len(groups))), legend_traceorder="normal")
    return _legend(fig, len(groups) > 1).update_yaxes(autorange="reversed", showgrid=False).update_xaxes(rangemode="tozero")


def _filled(colour: str, shape: str) -> dict[str, Any]:
    """A bar's fill: the colour, with a pattern over it for those who see no colours."""
    return {
        "color": colour,
        "line": {"width": 0},
        "pattern": {"shape": shape, "bgcolor": colour, "fgcolor": "rgba(0,0,0,0.4)", "size": 6},
    }


def difficulty_histogram(
    ious: Sequence[float], chosen: Sequence[float] = (), title: str = "Difficulty: the base model's IoU on the pool"
) -> go.Figure:
    """Samples by IoU, and those that were chosen over them."""
    fig = figure(title, "IoU of the base model's answer (1 is easy)", "samples")
    bins = {"start": 0, "end": 1.0001, "size": 0.05}
    fig.add_histogram(x=list(ious), xbins=bins, name="pool", marker_color="rgba(128,132,140,0.45)")
    if chosen:
        fig.add_histogram(x=list(chosen), xbins=bins, name="chosen", marker=_filled("#009e73", "/"))
    return _legend(fig, bool(chosen)).update_layout(barmode="overlay")


def epoch_flow(
    epochs: Mapping[int, Sequence[Mapping[str, Any]]], title: str = "Where the samples go: filtering between epochs"
) -> go.Figure:
    """Stacked bars: samples kept and dropped after each epoch, by the reason given. `epochs`: {k: filter_epoch rows}."""
    fig = figure(title, "epoch", "samples")
    counts = {
        k: Counter("kept" if row.get("kept") else str(row.get("reason") or "dropped") for row in rows)
        for k, rows in epochs.items()
    }
    reasons = ["kept", *sorted({reason for count in counts.values() for reason in count} - {"kept"})]
    for i, reason in enumerate(reasons):
        shape = ("", "/", ".", "\\", "x")[i % 5]
        colour = ("#009e73", "#d55e00", "#56b4e9", "#e69f00", "#cc79a7")[i % 5]
        fig.add_bar(x=[str(k) for k in counts], y=[counts[k][reason] for k in counts], name=reason, marker=_filled(colour, shape))
    return _legend(fig, len(reasons) > 1).update_layout(barmode="stack")
