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
from timer1lib.files import atomic_write_json, read_json
from timer1lib.forms import FORMS, AnswerForm
from timer1lib.runfolder import RunFolder
from timer1lib.view.aside import HERE, Aside, script
from timer1lib.view.exports import FORMATS, export
from timer1lib.view.items import Item, table_row
from timer1lib.view.playable import pictures
from timer1lib.view.scrubber import SegmentScrubber
from timer1lib.view.static_view import items_html, static_item


class SampleTable(anywidget.AnyWidget):
    """A row an item, with a small timeline.

    Traits:
        selected: key of the chosen item; set by a click, or from Python.
        visible: keys that pass the filters, in the order shown.
        compare: places of the two checkpoints whose difference is shown.
        views: what a person kept: {name: the part of its link after #}.
    """

    _esm = script("dom", "cards", "table")
    _css = HERE / "table.css"
    rows: Any = traitlets.List().tag(sync=True)
    names: Any = traitlets.List().tag(sync=True)
    mode = traitlets.Unicode("checkpoints").tag(sync=True)
    compare: Any = traitlets.List().tag(sync=True)
    selected = traitlets.Unicode("").tag(sync=True)
    visible: Any = traitlets.List().tag(sync=True)
    views: Any = traitlets.Dict().tag(sync=True)

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

    def compare(self, items: Sequence[Item], compare: tuple[str, str]) -> None:
        """Draw two other checkpoints."""
        first, second = compare
        with self.hold_sync():
            self.x_label, self.y_label = f"IoU of {first}", f"IoU of {second}"
            self.title = f"Click a point to see the sample; above the line, {second} is better than {first}"
            self.points = _pairs(items, compare)


def sample_scatter(items: Sequence[Item], compare: tuple[str, str]) -> SampleScatter:
    """IoU of the second checkpoint over that of the first: above the dotted line the sample got better."""
    ends = [-0.03, 1.03]
    made = SampleScatter(_pairs(items, compare), "", "", "", x_range=ends, y_range=ends, diagonal=True)
    made.compare(items, compare)
    return made


def _pairs(items: Sequence[Item], compare: tuple[str, str]) -> list[dict[str, Any]]:
    first, second = compare
    points = []
    for item in items:
        ious = {row.label: item.iou(row) for row in item.rows}
        x, y = ious.get(first, 0.0), ious.get(second, 0.0)
        text = f"{item.sample.query[:90]}\n{item.sample.type} · {item.sample.id}\n{first} {x:.2f} → {second} {y:.2f}"
        points.append({"key": item.key, "x": round(x, 4), "y": round(y, 4), "text": text})
    return points


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


class Handle(anywidget.AnyWidget):
    """Between table and scrubber: drags, and puts them side by side or one above the other."""

    _esm = script("dom", "split")
    _css = HERE / "split.css"


class Inspector(ipywidgets.VBox):  # type: ignore[misc]
    """The view of 06_inspect on items of `load_items`, `load_several` or `load_rollouts`.

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
        form: AnswerForm = FORMS["timer1"],
    ) -> None:
        if not items:
            raise Timer1Error(f"{run.root}: nothing to look at")
        self.items = list(items)
        self.static_samples = static_samples
        labels = [row.label for row in self.items[0].rows]
        ends = compare if compare and set(compare) <= set(labels) else (labels[0], labels[-1])
        self.scrubber = SegmentScrubber(run, self.items, cache, reward, max_bytes, form)
        self.table = SampleTable(self.items, self.scrubber.notes, mode, ends)
        self.table.views = _views(run)
        self.scatter: SampleScatter | None = None
        if mode == "rollouts":
            self.scatter = rollout_scatter(self.items)
        elif len(labels) > 1:  # one checkpoint has nothing to be compared with
            self.scatter = sample_scatter(self.items, ends)
        self._by_key = {item.key: item for item in self.items}
        self._aside = Aside("pictures")
        self._following = False
        self._pair({"new": self.table.compare})
        self.table.observe(lambda change: self.select(change["new"]), "selected")
        self.table.observe(lambda change: self._filtered(change["new"]), "visible")
        self.table.observe(self._pair, "compare")
        self.table.on_msg(self._asked)
        self.scrubber.on_select.append(lambda item: self.select(item.key))
        self.scrubber.on_note.append(lambda item, note: self.table.set_note(item.sample.id, note))
        parts = [self.table, Handle(), self.scrubber]
        if self.scatter is not None:
            self.scatter.observe(lambda change: self.select(change["new"]), "selected")
            parts.append(self.scatter)
        super().__init__(parts)
        self.add_class("t1-inspector")

    def select(self, key: str) -> None:
        """Choose an item everywhere: table, scatter and scrubber."""
        if self._following:
            return
        self._following = True
        try:
            if self.scrubber.shown is None or self.scrubber.shown.key != key:
                self.scrubber.select(key)
            self.table.selected = key
            if self.scatter is not None:
                self.scatter.selected = key
        finally:
            self._following = False

    def _filtered(self, keys: list[str]) -> None:
        self.scrubber.set_order(keys)
        if self.scatter is not None:
            self.scatter.visible = keys

    def _pair(self, change: Any) -> None:
        """Two other checkpoints are compared: keys and scatter follow."""
        count = len(self.items[0].rows)
        pair = [place for place in change["new"] if isinstance(place, int) and 0 <= place < count]
        if len(pair) != 2:
            return
        self.scrubber.pair = (pair[0], pair[1])
        if self.scatter is not None and self.table.mode == "checkpoints":
            labels = [row.label for row in self.items[0].rows]
            self.scatter.compare(self.items, (labels[pair[0]], labels[pair[1]]))

    def _asked(self, _widget: Any, content: dict[str, Any], _buffers: Any) -> None:
        kind = content.get("type")
        if kind == "walk":
            self.scrubber.move(1 if content.get("delta", 1) > 0 else -1, str(content.get("how", "next")))
        elif kind == "pictures":
            for key in content.get("keys", [])[:200]:
                if item := self._by_key.get(key):
                    self._picture(item)
        elif kind == "view" and (name := str(content.get("name", "")).strip()[:60]):
            views = {**_views(self.scrubber.run), name: str(content.get("hash", ""))[:4000]}
            self.table.views = {name: link for name, link in views.items() if link}
            atomic_write_json(self.scrubber.run.views, self.table.views)
        elif kind == "export" and content.get("format") in FORMATS:
            self._export(str(content["format"]), [key for key in content.get("keys", []) if key in self._by_key])

    def _picture(self, item: Item) -> None:
        """A few pictures of a sample for its card."""
        scrubber = self.scrubber

        def make() -> bytes:
            try:
                return pictures(item.run or scrubber.run, item.sample, scrubber.cache, item.duration, scrubber.max_bytes, 3)[
                    1
                ].jpeg
            except Timer1Error:
                return b""

        self._aside.do(make, lambda jpeg: self.table.send({"type": "picture", "key": item.key}, buffers=[jpeg]))

    def _export(self, format: str, keys: list[str]) -> None:
        run, items = self.scrubber.run, [self._by_key[key] for key in keys]
        name, mime, _ = FORMATS[format]

        def hand(made: tuple[bytes, str]) -> None:
            self.table.send({"type": "file", "name": name, "mime": mime}, buffers=[made[0]])
            if made[1]:
                self.table.send({"type": "said", "text": made[1]})

        self._aside.do(lambda: export(format, run, items), hand)

    def static_html(self) -> str:
        """Items as HTML without a script: the chosen one, then the first of the order shown; the rest is counted."""
        chosen = [self.scrubber.shown.key] if self.scrubber.shown else []
        keys = list(dict.fromkeys([*chosen, *self.scrubber.order]))[: self.static_samples]
        scrubber = self.scrubber
        shown = [self._by_key[key] for key in keys]
        parts = [static_item(item.run or scrubber.run, item, scrubber.cache, scrubber.max_bytes) for item in shown]
        return items_html(parts, len(self.items) - len(parts))

    def _repr_mimebundle_(self, **kwargs: Any) -> dict[str, Any]:
        return {**super()._repr_mimebundle_(**kwargs), "text/html": self.static_html()}


def _views(run: RunFolder) -> dict[str, str]:
    """Views that were kept with the run; none where the file is not what this writes."""
    try:
        found = read_json(run.views) if run.views.is_file() else {}
    except Timer1Error:
        found = {}
    return {str(name): str(link) for name, link in found.items()} if isinstance(found, dict) else {}
