"""Figures with one look. Each function takes plain rows and returns a plotly figure; `show` puts it into a notebook.

In HTML they need no network: plotly.js is embedded once, compressed, then only data.
"""

from __future__ import annotations

import base64
import gzip
import itertools
import json
import textwrap
from collections import Counter
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import plotly.graph_objects as go
from markupsafe import Markup
from plotly.subplots import make_subplots

from timer1lib.view import templates
from timer1lib.view.items import styles

if TYPE_CHECKING:
    from timer1lib.data.audit import AuditReport

_numbers = itertools.count(1)
_first_cell: dict[str, Any] = {}


@cache
def _packed_plotly() -> str:
    from plotly.offline import get_plotlyjs

    return base64.b64encode(gzip.compress(get_plotlyjs().encode(), 9, mtime=0)).decode()


def _macros() -> Any:
    return templates().get_template("figures.html").module


def loader_html() -> Markup:
    """Style of figures, and a script with plotly.js (1.9 MB compressed) that later figures on the page wait for."""
    return Markup(_macros().loader(_packed_plotly(), Markup(json.dumps(CSS.read_text()))))


CSS = Path(__file__).with_name("figures.css")
"""Text and error bars in the colours of the page, light or dark, which a figure's own data cannot know."""

CONFIG: dict[str, Any] = {
    "displaylogo": False,
    "displayModeBar": "hover",
    "responsive": True,
    "showSendToCloud": False,
    "plotlyServerURL": "",
    "modeBarButtonsToRemove": ["sendChartToCloud", "sendDataToCloud", "select2d", "lasso2d", "autoScale2d"],
    "toImageButtonOptions": {"format": "svg"},
}
"""How figures behave in a notebook: tools on hover alone, an SVG from the camera, and nothing that sends data anywhere."""


def figure_html(fig: go.Figure, label: str = "", tools: bool = False) -> Markup:
    """The figure's place on the page and a script that draws it once `loader_html`'s script has run.

    `tools`: with plotly's buttons while the pointer is over it; a report has none.
    """
    title = label or str(getattr(fig.layout.title, "text", "") or "figure").replace("<br>", " ")
    data = str(fig.to_json()).replace("</", "<\\/").replace("<!--", "<\\!--")
    config = Markup(json.dumps(CONFIG if tools else {**CONFIG, "displayModeBar": False}))
    return Markup(_macros().figure(f"t1-figure-{next(_numbers)}", title, int(fig.layout.height or 360), Markup(data), config))


def needs_loader() -> bool:
    """Whether the figure shown now is the first of its notebook, and so has to bring plotly.js along."""
    from IPython.core.getipython import get_ipython

    shell: Any = get_ipython()
    parent = shell.get_parent() if shell is not None and hasattr(shell, "get_parent") else {}
    cell = parent.get("metadata", {}).get("cellId")
    if not _first_cell:
        _first_cell["cell"] = cell
        return True
    return cell is not None and cell == _first_cell["cell"]


INK = "#6f7681"
"""Text colour where `CSS` does not reach, as in a saved SVG: 4.5:1 on white."""
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
        "title": {"x": 0.004, "xref": "container", "y": 1, "yref": "container", "yanchor": "top", "font": {"size": 15}},
        "legend": {"orientation": "h", "yref": "container", "y": 0, "yanchor": "bottom", "x": 0},
        "modebar": {"orientation": "v"},
        "margin": {"l": 56, "r": 16, "t": 16, "b": 48},
        "hoverlabel": {"font": {"size": 12, "color": "#14171c"}, "bgcolor": "#ffffff"},
        "bargap": 0.25,
    }
)  # fmt: skip
WRAPPED = 40
"""Letters of a title's line: it fits a figure of 330 pixels."""


def figure(title: str, x: str, y: str, height: int = 340) -> go.Figure:
    """An empty figure in the common look; `x` and `y` are the axes' titles, with units."""
    empty = _titled(go.Figure(layout={"template": TEMPLATE}), title, height)
    return empty.update_xaxes(title_text=x).update_yaxes(title_text=y)


def _titled(fig: go.Figure, title: str, height: int, above: int = 0) -> go.Figure:
    """Give a figure a title, broken into lines, and room for it; `above`: pixels for what else stands over the plot."""
    lines = textwrap.wrap(title, WRAPPED)
    room = 20 * len(lines)
    return fig.update_layout(
        title_text="<br>".join(lines),
        margin_t=22 + room + above,
        title_pad_t=8 + 10 * len(lines[1:]),
        height=height + max(0, room - 20),
    )


def _legend(fig: go.Figure, on: bool = True) -> go.Figure:
    """Legend under the plot; none where there is nothing to tell apart."""
    return fig.update_layout(showlegend=on)


def show(fig: go.Figure) -> None:
    """Display a figure so that it is drawn in JupyterLab and still there in the notebook's HTML export.

    JupyterLab takes plotly's own MIME type. nbconvert drops that one, so HTML comes along: plotly.js, compressed,
    with the first figure of a notebook, and with every figure its data. The style for JupyterLab comes as an output of its own.
    """
    from IPython import display as notebook

    publish: Any = notebook.display
    html = figure_html(fig, tools=True)
    if needs_loader():
        publish({"text/html": str(_macros().style(Markup(json.dumps(CSS.read_text()))))}, raw=True)
        html = loader_html() + html
    drawn = json.loads(str(fig.to_json())) | {"config": CONFIG}
    publish({"application/vnd.plotly.v1+json": drawn, "text/html": str(html)}, raw=True)


def training_curve(
    rows: Sequence[Mapping[str, Any]], names: Sequence[str] | Mapping[str, str], title: str, y: str, smooth: int = 5
) -> go.Figure:
    """Values over steps: thin as logged, thick as a running mean over `smooth` rows. Absent names are left out.

    `names`: fields of the rows, or {field: what it is called}.
    """
    fig = figure(title, "step", y)
    called = names if isinstance(names, Mapping) else {name: name for name in names}
    present = [name for name in called if any(isinstance(row.get(name), (int, float)) for row in rows)]
    for i, name in enumerate(present):
        points = [(row["step"], float(row[name])) for row in rows if isinstance(row.get(name), (int, float)) and "step" in row]
        steps, values = [p[0] for p in points], [p[1] for p in points]
        colour = COLOURS[i % len(COLOURS)]
        thin, thick = {"color": colour, "width": 1}, {"color": colour, "width": 2.6, "dash": ("solid", "dot", "dash")[i % 3]}
        fig.add_scatter(x=steps, y=values, mode="lines", line=thin, opacity=0.35, showlegend=False, hoverinfo="skip")
        fig.add_scatter(x=steps, y=_running_mean(values, smooth), mode="lines", name=called[name], line=thick)
    return _legend(fig, len(present) > 1)


def _running_mean(values: Sequence[float], width: int) -> list[float]:
    """Mean of the last `width` values at each place."""
    return [sum(values[max(0, i - width + 1) : i + 1]) / (i + 1 - max(0, i - width + 1)) for i in range(len(values))]


def iou_histogram(ious: Mapping[str, Sequence[float]], title: str = "How far off: IoU of every answer") -> go.Figure:
    """Share of samples by IoU (20 bins), a step line a checkpoint. IoU 0 has a bin of its own at the left."""
    fig = figure(title, "IoU", "share of samples, %")
    for name, style in styles(list(ious)).items():
        bins = Counter(0 if value <= 0 else min(20, int(value * 20) + 1) for value in ious[name])
        share = [100 * bins[i] / max(1, len(ious[name])) for i in range(21)]
        line = {"shape": "hvh", "color": style.colour, "width": 2.4}
        fig.add_scatter(x=[-0.025 + 0.05 * i for i in range(21)], y=share, name=name, mode="lines", line=line)
    return _legend(fig, len(ious) > 1).update_layout(hovermode="x unified")


def by_group(groups: Mapping[str, Mapping[str, Mapping[str, Any]]], metric: str = "R1@0.5", title: str = "") -> go.Figure:
    """Bars of a metric (percent) by group, with intervals where given. `groups`: {checkpoint: {group: {metric: value}}}."""
    fig = figure(title or f"{metric} by group", f"{metric}, %", "", 390)
    for name, style in styles(list(groups)).items():
        rows = {group: row for group, row in groups[name].items() if isinstance(row.get(metric), (int, float))}
        values = [float(row[metric]) for row in rows.values()]
        ends = [row.get("interval", {}).get(metric) or (value, value) for row, value in zip(rows.values(), values, strict=True)]
        errors = whiskers(values, ends)
        labels = [f"{group} (n={row['n']})" if "n" in row else group for group, row in rows.items()]
        marker = _filled(style.colour, SHAPES[style.pattern])
        fig.add_bar(y=labels, x=values, name=name, orientation="h", marker=marker, error_x=errors)
    longest = max((len(rows) for rows in groups.values()), default=1)
    fig.update_layout(height=fig.layout.height - 240 + longest * (12 + 14 * max(1, len(groups))), legend_traceorder="normal")
    return _legend(fig, len(groups) > 1).update_yaxes(autorange="reversed", showgrid=False).update_xaxes(rangemode="tozero")


def forest(paired: Mapping[str, Any], title: str) -> go.Figure | None:
    """Paired differences of mIoU (accuracy for questions) in points, each with its interval; None where there is none.

    `paired`: {"a → b": {metric: {difference, interval}}}.
    """
    found = [
        (name, by[key]) for name, by in paired.items() for key in [next((k for k in ("mIoU", "accuracy") if k in by), "")] if key
    ]
    rows = [(name, row["difference"], row["interval"]) for name, row in found if row.get("interval")]
    if not rows:
        return None
    fig = figure(f"{title}: paired difference, 95% interval", "points (right: the second is better)", "", 170 + 30 * len(rows))
    clear = [not low <= 0 <= high for _, _, (low, high) in rows]
    colours = [
        COLOURS[0] if sure and value > 0 else COLOURS[1] if sure else "#8a919c"
        for sure, (_, value, _) in zip(clear, rows, strict=True)
    ]
    symbols = ["circle" if sure else "circle-open" for sure in clear]
    error = whiskers([value for _, value, _ in rows], [ends for *_, ends in rows])
    marker = {"color": colours, "symbol": symbols, "size": 10}
    fig.add_scatter(
        x=[value for _, value, _ in rows], y=[name for name, *_ in rows], mode="markers", marker=marker, error_x=error
    )
    fig.add_vline(x=0, line={"color": "#8a919c", "dash": "dot"})
    return _legend(fig, False).update_yaxes(autorange="reversed", showgrid=False)


def whiskers(values: Sequence[float], ends: Sequence[Sequence[float]]) -> dict[str, Any]:
    """Error bars from each value's interval."""
    over = [high - value for value, (_, high) in zip(values, ends, strict=True)]
    under = [value - low for value, (low, _) in zip(values, ends, strict=True)]
    return {"type": "data", "array": over, "arrayminus": under, "thickness": 2, "width": 4, "color": "#14171c"}


def _filled(colour: str | Sequence[str], shape: str) -> dict[str, Any]:
    """A bar's fill (or each bar's): the colour, with a pattern over it for those who see no colours."""
    pattern = {"shape": shape, "bgcolor": colour, "fgcolor": "rgba(0,0,0,0.28)", "size": 7, "solidity": 0.2}
    return {"color": colour, "line": {"width": 0}, "pattern": pattern}


def difficulty_histogram(ious: Sequence[float], chosen: Sequence[float] = (), judge: str = "the model") -> go.Figure:
    """Samples by the IoU of a judge's answer, and those that were chosen over them."""
    fig = figure(f"Difficulty: what {judge} finds in the pool", f"IoU of the answer of {judge} (1 is easy)", "samples")
    bins = {"start": 0, "end": 1.0001, "size": 0.05}
    fig.add_histogram(x=list(ious), xbins=bins, name="pool", marker_color="rgba(128,132,140,0.45)")
    if chosen:
        fig.add_histogram(x=list(chosen), xbins=bins, name="chosen", marker=_filled("#009e73", "/"))
    return _legend(fig, bool(chosen)).update_layout(barmode="overlay")


def epoch_flow(epochs: Mapping[int, Sequence[Mapping[str, Any]]]) -> go.Figure:
    """Stacked bars: samples kept and dropped after each epoch, by the reason given. `epochs`: {k: filter_epoch rows}."""
    fig = figure("Where the samples go: filtering between epochs", "epoch", "samples")
    counts = {
        k: Counter("kept" if row.get("kept") else str(row.get("reason") or "dropped") for row in rows)
        for k, rows in epochs.items()
    }
    reasons = ["kept", *sorted(set().union(*counts.values()) - {"kept"})]
    for i, reason in enumerate(reasons):
        shape = ("", "/", ".", "\\", "x")[i % 5]
        colour = ("#009e73", "#d55e00", "#56b4e9", "#e69f00", "#cc79a7")[i % 5]
        fig.add_bar(x=[str(k) for k in counts], y=[counts[k][reason] for k in counts], name=reason, marker=_filled(colour, shape))
    return _legend(fig, len(reasons) > 1).update_layout(barmode="stack")


RED = "#c1272d"
SEVERITIES = {"error": ("#d55e00", "/"), "warning": ("#e69f00", "."), "info": ("#56b4e9", "")}
Reports = Mapping[str, Mapping[str, Any]]


def audit_figure(report: AuditReport) -> go.Figure:
    """Findings by code, coloured by severity; the text says what the treatments did."""
    fig = figure("What the audit found", "findings", "", 120 + 26 * max(1, len(report.findings)))
    for severity in SEVERITIES:
        codes = [code for code in report.findings if report.codes[code].severity == severity]
        counts = [report.findings[code] for code in codes]
        fig.add_bar(
            y=codes, x=counts, name=severity, orientation="h", marker=_filled(*SEVERITIES[severity]), textposition="outside",
            text=[f"{report.findings[code]} · {report.treatments[code]}" for code in codes], cliponaxis=False,
            hovertext=[report.codes[code].meaning for code in codes]
        )  # fmt: skip
    room = 1.3 * max(report.findings.values(), default=1)  # for the text behind the longest bar
    return fig.update_layout(barmode="stack").update_yaxes(autorange="reversed").update_xaxes(range=[0, room])


def coverage_figure(reports: Reports) -> go.Figure:
    """Where windows lie and how long they are, as shares of their video: a square for each split."""
    fig = make_subplots(1, len(reports), subplot_titles=[f"{name} (evenness {r['evenness']:.2f})" for name, r in reports.items()])
    for i, report in enumerate(reports.values(), 1):
        axis = [5 + 10 * k for k in range(10)]
        fig.add_heatmap(z=report["cells"], x=axis, y=axis, colorscale="Viridis", showscale=False, row=1, col=i)
        fig.update_xaxes(title_text="centre, % of the video", row=1, col=i)
    fig.update_yaxes(title_text="length, % of the video", row=1, col=1)
    return _titled(fig.update_layout(template=TEMPLATE), "Where the windows are", 370, above=24)


def length_figure(reports: Reports) -> go.Figure:
    """Window lengths in seconds, a line for each split."""
    fig = figure("How long the windows are", "window, seconds", "share of windows, %")
    known = {name: [v for v in report["seconds"]["window"] if v is not None] for name, report in reports.items()}
    top = max((sorted(lengths)[int(0.95 * (len(lengths) - 1))] for lengths in known.values() if lengths), default=1.0)
    for i, (name, lengths) in enumerate(known.items()):
        line = {"color": COLOURS[i % len(COLOURS)], "dash": ("solid", "dot", "dash")[i % 3]}
        width = (top or 1.0) / 24
        counts = Counter(min(23, max(0, int(length / width))) for length in lengths)  # the last bin takes all that is longer
        share = [100 * counts[i] / max(1, len(lengths)) for i in range(24)]
        edges = [round(i * width, 3) for i in range(24)]
        fig.add_scatter(x=edges, y=share, name=name, mode="lines", line={"shape": "hv", **line})
    return fig


def type_figure(reports: Reports) -> go.Figure:
    """Share of queries by type."""
    fig = figure("What is asked", "", "share of queries, %", 380)
    for i, (name, report) in enumerate(reports.items()):
        shares = {kind: 100 * n / report["n"] for kind, n in report["types"].items()}
        marker = _filled(COLOURS[i % len(COLOURS)], ("", "/", ".")[i % 3])
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
        values = [a[metric] for a in answers]
        error = whiskers(values, [a["interval"][metric] for a in answers])
        marker = _filled(colours, ("", ".", "/")[i % 3])
        fig.add_bar(x=list(rows), y=values, name=name, marker=marker, error_y=error)
    limits = [report["bias"]["limit"] for report in reports.values()]
    if metric == "R1@0.5" and limits:
        fig.add_hline(y=limits[0], line={"color": RED, "dash": "dot"}, annotation_text="too much to trust")
    return fig


def warnings_html(reports: Reports) -> str:
    """Every warning of the quality reports, in red; a calm sentence where there is none."""
    lines = [(name, text) for name, report in reports.items() for text in report["warnings"]]
    return str(_macros().warnings(lines, RED))


def weight_figure(table: Sequence[Mapping[str, Any]], rule: str) -> go.Figure:
    """Every sample of the pool: its weight over its IoU, and whether it was taken."""
    fig = figure(f"Selection by {rule}: weight of every sample", "IoU of the model's answer", "weight")
    looks = (False, "left out", "rgba(128,132,140,0.6)", "x"), (True, "chosen", "#009e73", "circle")
    for chosen, name, colour, symbol in looks:
        rows = [row for row in table if row["chosen"] is chosen and row["iou"] is not None]
        x, y = [row["iou"] for row in rows], [row["weight"] for row in rows]
        text = [f"{row['id']}: {row['fate']}" for row in rows]
        fig.add_scatter(x=x, y=y, mode="markers", name=name, text=text, marker={"color": colour, "symbol": symbol, "size": 7})
    return fig


def spread_figure(rows: Sequence[Mapping[str, Any]]) -> go.Figure:
    """Spread of the reward over sampled answers, over the greedy answer's IoU: only spread teaches GRPO."""
    fig = figure("What GRPO could learn from", "IoU of the greedy answer", "spread of the reward")
    known = [row for row in rows if row.get("reward_std") is not None and row["iou"] is not None]
    x, y = [row["iou"] for row in known], [row["reward_std"] for row in known]
    marker = {"color": COLOURS[0], "size": 7, "opacity": 0.6}
    return fig.add_scatter(x=x, y=y, mode="markers", text=[row["id"] for row in known], marker=marker)


def clock_figure(report: Mapping[str, Any]) -> go.Figure:
    """What `inference.clock_report` found: told over true time, the line where they agree, and below it each frame's error."""
    true, told = ([row[name] for row in report["frames"]] for name in ("true_s", "told_s"))
    fig = make_subplots(rows=2, cols=1, shared_xaxes=True, row_heights=[0.7, 0.3], vertical_spacing=0.06)
    end, dots = max([*true, *told]), {"color": INK, "dash": "dot"}
    fig.add_scatter(x=[0, end], y=[0, end], mode="lines", name="told = true", line=dots, row=1, col=1)
    hover, marker = [f"position {row['position']}" for row in report["frames"]], {"color": COLOURS[0], "size": 7}
    fig.add_scatter(x=true, y=told, mode="markers", name="frame", text=hover, marker=marker, row=1, col=1)
    errors = [row["told_s"] - row["true_s"] for row in report["frames"]]
    fig.add_bar(x=true, y=errors, name="error", marker_color=COLOURS[1], row=2, col=1)
    for sign in (1, -1):
        fig.add_hline(y=sign * report["limit_s"], line=dots, row=2, col=1)
    fig.update_yaxes(title="told, s", row=1, col=1).update_yaxes(title="told - true, s", row=2, col=1)
    fig.update_xaxes(title="true time of the frame, s", row=2, col=1)
    title = f"What the model is told about time: largest error {report['max_error_s']:.2f} s"
    return _titled(fig.update_layout(template=TEMPLATE), title, 480)
