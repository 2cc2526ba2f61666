"""A clock report for people: a table for the terminal, a plot for a notebook."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from plotly.graph_objects import Figure


def format_clock(report: dict[str, Any]) -> str:
    """The report as a table with its warnings, for a terminal."""
    lines = [
        f"{report['video']}: {report['duration_s']:.2f} s, a frame every {report['step_s']:.3f} s, by {report['decoder']}",
        f"{report['model']} ({report['family']}): {report['rule']}",
        "",
        "  frame     true s     told s   position    error s",
    ]
    for i, row in enumerate(report["frames"]):
        mark = "  <" if row["error_s"] > report["limit_s"] else ""
        lines.append(f"{i:7d}{row['true_s']:11.3f}{row['told_s']:11.3f}{row['position']:11d}{row['error_s']:11.3f}{mark}")
    lines += ["", f"text after the video goes on at position {report['text_position']}"]
    lines.append(f"largest error {report['max_error_s']:.3f} s (limit {report['limit_s']:.3f} s: half a frame step and rounding)")
    lines += [f"warning: {text}" for text in report["warnings"]] or ["no warnings"]
    return "\n".join(lines)


def clock_figure(report: dict[str, Any]) -> Figure:
    """Told over true time with the line where they agree, and the error of each frame under it."""
    import plotly.graph_objects as go
    from plotly.subplots import make_subplots

    true = [row["true_s"] for row in report["frames"]]
    told = [row["told_s"] for row in report["frames"]]
    error = [row["told_s"] - row["true_s"] for row in report["frames"]]
    figure = make_subplots(rows=2, cols=1, shared_xaxes=True, row_heights=[0.7, 0.3], vertical_spacing=0.06)
    end = max([*true, *told])
    figure.add_trace(
        go.Scatter(x=[0, end], y=[0, end], mode="lines", name="told = true", line={"color": "#999", "dash": "dot"}), 1, 1
    )
    hover = [f"position {row['position']}" for row in report["frames"]]
    figure.add_trace(
        go.Scatter(x=true, y=told, mode="markers", name="frame", text=hover, marker={"color": "#1f77b4", "size": 7}), 1, 1
    )
    figure.add_trace(go.Bar(x=true, y=error, name="error", marker={"color": "#d62728"}), 2, 1)
    for sign in (1, -1):
        figure.add_hline(y=sign * report["limit_s"], line={"color": "#999", "dash": "dot"}, row=2, col=1)
    figure.update_yaxes(title="told, s", row=1, col=1)
    figure.update_yaxes(title="told - true, s", row=2, col=1)
    figure.update_xaxes(title="true time of the frame, s", row=2, col=1)
    figure.update_layout(
        title=f"What the model is told about time: largest error {report['max_error_s']:.2f} s",
        height=460,
        template="plotly_white",
        legend={"orientation": "h", "y": 1.12, "x": 1, "xanchor": "right"},
    )
    return figure
