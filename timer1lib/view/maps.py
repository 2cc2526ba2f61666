"""The map of a sweep with a grid, drawn: differences over both axes, a panel a split, and what does not stand set apart."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import plotly.graph_objects as go
from plotly.subplots import make_subplots

from timer1lib.evaluation.columns import column_of
from timer1lib.evaluation.learned import CURVES, curves
from timer1lib.evaluation.maps import NOVELTIES, Effect, Grid, Point
from timer1lib.view.figures import COLOURS, TEMPLATE, figure, whiskers

SYMBOLS = {"": "circle", "not after correction": "circle-open", "holds 0": "x-thin-open"}
"""By an effect's verdict."""
PANELS = 3


def map_figure(grid: Grid, found: Sequence[Effect], metric: str = "mIoU") -> go.Figure:
    """One pair's effects with their intervals: a panel a split, the first axis below, a colour for each value of the second.

    A disc stands after correction, a ring does not, a cross has an interval that holds 0.
    """
    column, splits = column_of(metric), list(dict.fromkeys(effect.split for effect in found))
    keys, across = list(grid.axes), list(grid.axes.values())
    series = across[1] if len(across) > 1 else [None]
    titles = [f"{split}<br>new: {NOVELTIES[split]}" if split in NOVELTIES else split for split in splits]
    lines = -(-len(splits) // PANELS)
    fig = make_subplots(lines, min(PANELS, len(splits)), subplot_titles=titles, shared_yaxes="all", vertical_spacing=0.36 / lines)
    for panel, split in enumerate(splits):
        place = {"row": panel // PANELS + 1, "col": panel % PANELS + 1}
        fig.add_hline(y=0, line_width=1, line_color="#767d88", **place)
        for i, value in enumerate(series):
            here = [e for e in found if e.split == split and e.at is not None and (value is None or e.at[1] == value)]
            shift = 0.16 * (i - (len(series) - 1) / 2)
            symbols = [SYMBOLS[e.verdict] for e in here]
            points = [column.scale * e.difference for e in here]
            bars = whiskers(points, [[column.scale * end for end in e.interval] for e in here])
            fig.add_scatter(
                x=[across[0].index(e.at[0]) + shift for e in here if e.at], y=points,
                error_y=bars, mode="markers", name=f"{_short(keys[-1])} {value}", legendgroup=str(i),
                showlegend=panel == 0 and value is not None, text=[f"{e.name}: {e.verdict or 'stands'}, n={e.n}" for e in here],
                marker={"size": 9, "color": COLOURS[i % len(COLOURS)], "symbol": symbols, "line_width": 2},
                **place,
            )  # fmt: skip
        fig.update_xaxes(title_text=_short(keys[0]), tickvals=list(range(len(across[0]))), ticktext=across[0], **place)
    title = f"{found[0].name if found else ''}, {column.title}: disc stands after correction, ring not, cross holds 0"
    fig.update_layout(template=TEMPLATE, title=title, height=100 + 270 * lines, margin_t=110, legend={"y": 1.0 + 0.22 / lines})
    return fig


def map_figures(grid: Grid, found: Sequence[Effect]) -> list[go.Figure]:
    """A figure for each pair."""
    return [map_figure(grid, [one for one in found if one.name == name]) for name in dict.fromkeys(one.name for one in found)]


def _short(key: str) -> str:
    return key.rsplit(".", 1)[-1].replace("_", " ")


def curve_figures(grid: Grid, ways: Mapping[str, str], at: Point, names: Sequence[str] = CURVES) -> list[go.Figure]:
    """What the logs say over the training, a figure for each name that some way logs. `ways`: {way: its title}."""
    read = {way: curves(grid, way, at, names) for way in ways}
    made = []
    for name in names:
        fig = figure(f"{name}, mean over seeds", "share of the training", name)
        for way, title in ways.items():
            points = read[way].get(name, [])
            if points:
                fig.add_scatter(x=[x for x, _ in points], y=[y for _, y in points], mode="lines", name=title)
        if fig.data:
            made.append(fig.update_layout(showlegend=True, margin_t=72))
    return made
