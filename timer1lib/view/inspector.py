"""Table, scatter and scrubber as one: choose anywhere, and everything follows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import anywidget
import ipywidgets
import traitlets

from timer1lib.data.notes import Note
from timer1lib.errors import Timer1Error
from timer1lib.runfolder import RunFolder
from timer1lib.view.items import Item, table_row
from timer1lib.view.scrubber import SegmentScrubber
from timer1lib.view.static_view import items_html, static_item

HERE = Path(__file__).parent


class SampleTable(anywidget.AnyWidget):
    """A row an item, with a small timeline.

    Traits:
        selected: key of the chosen item; set by a click, or from Python.
        visible: keys that pass the filters, in the order shown.
    """

    _esm = HERE / "table.js"
    _css = HERE / "table.css"
    rows: Any = traitlets.List().tag(sync=True)
    names: Any = traitlets.List().tag(sync=True)
    mode = traitlets.Unicode("checkpoints").tag(sync=True)
    compare: Any = traitlets.List().tag(sync=True)
    selected = traitlets.Unicode("").tag(sync=True)
    visible: Any = traitlets.List().tag(sync=True)

    def __init__(
        self, items: Sequence[Item], notes: Mapping[str, Note], mode: Literal["checkpoints", "rollouts"], compare: tuple[str, str]
    ) -> None:
        names = [{"label": row.label, "colour": row.style.colour} for row in items[0].rows]
        keys = [item.key for item in items]
        super().__init__(
            rows=[table_row(item, notes.get(item.sample.id)) for item in items],
            names=names,
            mode=mode,
            compare=[[name["label"] for name in names].index(end) for end in compare],
            visible=keys,
            selected=keys[0],
        )

    def set_note(self, sample_id: str, note: Note | None) -> None:
        """Show a note's mark on every row of that sample."""
        label = note.label if note else ""
        self.rows = [row | {"note": label} if row["id"] == sample_id else row for row in self.rows]


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

    def __init__(self, points: list[dict[str, Any]], title: str, x_label: str, y_label: str, **ranges: Any) -> None:
        keys = [point["key"] for point in points]
        names = {"title": title, "x_label": x_label, "y_label": y_label}
        super().__init__(points=points, selected=keys[0] if keys else "", visible=keys, **names, **ranges)


def sample_scatter(items: Sequence[Item], compare: tuple[str, str]) -> SampleScatter:
    """IoU of the second checkpoint over that of the first: above the dotted line the sample got better."""
    first, second = compare
    points = []
    for item in items:
        ious = {row.label: item.iou(row) for row in item.rows}
        x, y = ious.get(first, 0.0), ious.get(second, 0.0)
        text = f"{item.sample.query[:90]}\n{item.sample.type} · {item.sample.id}\n{first} {x:.2f} → {second} {y:.2f}"
        points.append({"key": item.key, "x": round(x, 4), "y": round(y, 4), "text": text})
    title = f"Click a point to see the sample; above the line, {second} is better than {first}"
    ends = [-0.03, 1.03]
    return SampleScatter(points, title, f"IoU of {first}", f"IoU of {second}", x_range=ends, y_range=ends, diagonal=True)


def rollout_scatter(items: Sequence[Item]) -> SampleScatter:
    """Mean reward of each group of rollouts over steps; a point is as large as the spread inside the group."""
    points = []
    for item in items:
        mean, spread = item.rewards()
        text = f"{item.sample.query[:90]}\nstep {item.step}, mean {mean:.3f}, spread {spread:.3f}"
        radius = round(3 + 12 * min(1.0, spread), 2)
        points.append({"key": item.key, "x": item.step or 0, "y": round(mean, 4), "r": radius, "text": text})
    title = "Click a group to see its rollouts; large points have spread, and only spread teaches"
    return SampleScatter(points, title, "step", "mean reward of the group")


class Inspector(ipywidgets.VBox):  # type: ignore[misc]
    """The view of 06_inspect on items of `load_items` or `load_rollouts`.

    `compare` names two checkpoints whose difference is sorted and drawn, the first and the last where not given;
    `static_samples` says how many are drawn where there is no kernel.
    """

    def __init__(
        self,
        run: RunFolder,
        items: Sequence[Item],
        cache: Path,
        reward: str = "tiou",
        compare: tuple[str, str] | None = None,
        max_bytes: int = 12_000_000,
        mode: Literal["checkpoints", "rollouts"] = "checkpoints",
        static_samples: int = 6,
    ) -> None:
        if not items:
            raise Timer1Error(f"{run.root}: nothing to look at")
        self.items = list(items)
        self.static_samples = static_samples
        labels = [row.label for row in self.items[0].rows]
        ends = compare if compare and set(compare) <= set(labels) else (labels[0], labels[-1])
        self.scrubber = SegmentScrubber(run, self.items, cache, reward, max_bytes)
        self.table = SampleTable(self.items, self.scrubber.notes, mode, ends)
        self.scatter = sample_scatter(self.items, ends) if mode == "checkpoints" else rollout_scatter(self.items)
        self._following = False
        self.table.observe(lambda change: self.select(change["new"]), "selected")
        self.scatter.observe(lambda change: self.select(change["new"]), "selected")
        self.table.observe(lambda change: self._filtered(change["new"]), "visible")
        self.scrubber.on_select.append(lambda item: self.select(item.key))
        self.scrubber.on_note.append(lambda item, note: self.table.set_note(item.sample.id, note))
        super().__init__([self.table, self.scrubber, self.scatter])

    def select(self, key: str) -> None:
        """Choose an item everywhere: table, scatter and scrubber."""
        if self._following:
            return
        self._following = True
        try:
            if self.scrubber.shown is None or self.scrubber.shown.key != key:
                self.scrubber.select(key)
            self.table.selected = key
            self.scatter.selected = key
        finally:
            self._following = False

    def _filtered(self, keys: list[str]) -> None:
        self.scrubber.set_order(keys)
        self.scatter.visible = keys

    def static_html(self) -> str:
        """Items as HTML without a script: the chosen one, then the first of the order shown; the rest is counted."""
        chosen = [self.scrubber.shown.key] if self.scrubber.shown else []
        keys = list(dict.fromkeys([*chosen, *self.scrubber.order]))[: self.static_samples]
        by_key = {item.key: item for item in self.items}
        scrubber = self.scrubber
        parts = [static_item(scrubber.run, by_key[key], scrubber.cache, scrubber.max_bytes) for key in keys]
        return items_html(parts, len(self.items) - len(parts))

    def _repr_mimebundle_(self, **kwargs: Any) -> dict[str, Any]:
        return {**super()._repr_mimebundle_(**kwargs), "text/html": self.static_html()}
