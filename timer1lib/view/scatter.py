"""A scatter whose points are samples: choose one by clicking. Small, since a figure widget would send 5 MB a figure."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from statistics import fmean, pstdev
from typing import Any

import anywidget
import traitlets

from timer1lib.view.items import Item

HERE = Path(__file__).parent


class SampleScatter(anywidget.AnyWidget):
    """A point an item.

    Traits:
        selected: key of the chosen item; set by a click or an arrow key, or from Python.
        visible: keys that are drawn strongly, in the order that arrow keys follow.
    """

    _esm = HERE / "scatter.js"
    _css = HERE / "scatter.css"
    points: Any = traitlets.List().tag(sync=True)
    title = traitlets.Unicode("").tag(sync=True)
    x_label = traitlets.Unicode("").tag(sync=True)
    y_label = traitlets.Unicode("").tag(sync=True)
    x_range: Any = traitlets.List().tag(sync=True)
    y_range: Any = traitlets.List().tag(sync=True)
    diagonal = traitlets.Bool(False).tag(sync=True)
    selected = traitlets.Unicode("").tag(sync=True)
    visible: Any = traitlets.List().tag(sync=True)


def sample_scatter(items: Sequence[Item], compare: tuple[str, str]) -> SampleScatter:
    """IoU of the second checkpoint over that of the first: above the dotted line the sample got better."""
    first, second = compare
    points = []
    for item in items:
        ious = {row.label: item.iou(row) for row in item.rows}
        x, y = ious.get(first, 0.0), ious.get(second, 0.0)
        text = f"{item.sample.query[:90]}\n{item.sample.type} · {item.sample.id}\n{first} {x:.2f} → {second} {y:.2f}"
        points.append({"key": item.key, "x": round(x, 4), "y": round(y, 4), "text": text})
    return SampleScatter(
        points=points,
        title=f"Click a point to see the sample; above the line, {second} is better than {first}",
        x_label=f"IoU of {first}",
        y_label=f"IoU of {second}",
        x_range=[-0.03, 1.03],
        y_range=[-0.03, 1.03],
        diagonal=True,
        selected=items[0].key if items else "",
        visible=[item.key for item in items],
    )


def rollout_scatter(items: Sequence[Item]) -> SampleScatter:
    """Mean reward of each group of rollouts over steps; a point is as large as the spread inside the group."""
    points = []
    for item in items:
        rewards = [row.reward or 0.0 for row in item.rows] or [0.0]
        mean, spread = fmean(rewards), pstdev(rewards)
        text = f"{item.sample.query[:90]}\nstep {item.step}, mean {mean:.3f}, spread {spread:.3f}"
        radius = round(3 + 12 * min(1.0, spread), 2)
        points.append({"key": item.key, "x": item.step or 0, "y": round(mean, 4), "r": radius, "text": text})
    return SampleScatter(
        points=points,
        title="Click a group to see its rollouts; large points have spread, and only spread teaches",
        x_label="step",
        y_label="mean reward of the group",
        selected=items[0].key if items else "",
        visible=[item.key for item in items],
    )
